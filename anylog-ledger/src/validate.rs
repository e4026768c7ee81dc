//! Which policies the ledger takes.
//!
//! A type of the table below has rules; any other type is taken as it is. A rule names an attribute, its JSON type, whether it must be there,
//! and a default; then come the sets of attributes that no other policy of the type may share. Operators, clusters, mappings and the
//! like have rules of their own on top.
//!
//! Validation sees a set of policies, and so is the same at the node that inserts (against its copy) and at the master (against its
//! table).

mod mapping;
mod network;

use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Map, Value};

use crate::policy::shown;
use crate::{LedgerError, Policy, PolicySet};

/// The JSON type that an attribute must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Integer,
    Boolean,
    List,
    Object,
}

impl Type {
    fn fits(self, value: &Value) -> bool {
        match self {
            Type::Text => value.is_string(),
            Type::Integer => value.is_i64() || value.is_u64(),
            Type::Boolean => value.is_boolean(),
            Type::List => value.is_array(),
            Type::Object => value.is_object(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Type::Text => "a text",
            Type::Integer => "an integer",
            Type::Boolean => "true or false",
            Type::List => "a list",
            Type::Object => "an object",
        }
    }
}

/// The rule for one attribute.
struct Rule {
    name: &'static str,
    kind: Type,
    required: bool,
    default: Option<&'static str>,
}

const fn required(name: &'static str, kind: Type) -> Rule {
    Rule { name, kind, required: true, default: None }
}

const fn optional(name: &'static str, kind: Type) -> Rule {
    Rule { name, kind, required: false, default: None }
}

/// The rules of a type.
struct Rules {
    kind: &'static str,
    attributes: &'static [Rule],
    // Each list of attributes together is unique among policies of the type, over whichever of them are present.
    unique: &'static [&'static [&'static str]],
}

use Type::{Boolean, Integer, List, Object, Text};

const RULES: &[Rules] = &[
    Rules {
        kind: "cluster",
        attributes: &[
            required("name", Text),
            required("company", Text),
            Rule { name: "status", kind: Text, required: false, default: Some("active") },
            optional("table", List),
            optional("parent", Text),
        ],
        unique: &[],
    },
    Rules {
        kind: "operator",
        attributes: &[
            required("company", Text),
            required("name", Text),
            required("ip", Text),
            required("port", Integer),
            required("cluster", Text),
            optional("member", Integer),
            optional("main", Boolean),
        ],
        unique: &[],
    },
    Rules {
        kind: "table",
        attributes: &[
            required("name", Text),
            required("dbms", Text),
            required("create", Text),
            optional("source", Text),
            optional("company", Text),
        ],
        unique: &[&["dbms", "name"]],
    },
    Rules {
        kind: "mapping",
        attributes: &[
            required("dbms", Text),
            required("table", Text),
            required("schema", Object),
            optional("readings", Text),
            optional("condition", Text),
            optional("import", Object),
        ],
        unique: &[],
    },
    Rules {
        kind: "transform",
        attributes: &[
            required("dbms", Text),
            required("table", Text),
            required("column", Text),
            optional("re_match", Text),
        ],
        unique: &[],
    },
    Rules {
        kind: "member",
        attributes: &[
            required("type", Text),
            required("public_key", Text),
            optional("name", Text),
            optional("company", Text),
        ],
        unique: &[&["public_key"]],
    },
    Rules {
        kind: "permissions",
        attributes: &[
            required("name", Text),
            required("enable", List),
            required("public_key", Text),
            required("signature", Text),
            optional("disable", List),
            optional("databases", List),
            optional("tables", List),
        ],
        unique: &[&["name"]],
    },
    Rules {
        kind: "assignment",
        attributes: &[
            required("permissions", Text),
            required("members", List),
            required("public_key", Text),
            required("signature", Text),
        ],
        unique: &[],
    },
    Rules {
        kind: "license",
        attributes: &[
            required("activation_key", Text),
            required("company", Text),
            required("expiration", Text),
            required("type", Text),
        ],
        unique: &[&["activation_key"], &["company"], &["expiration"], &["type"]],
    },
    Rules {
        kind: "tag",
        attributes: &[required("dbms", Text), required("table", Text), required("ns", Integer)],
        unique: &[&["dbms", "table"]],
    },
    Rules { kind: "bucket", attributes: &[required("name", Text), optional("operator", Text)], unique: &[&["name"]] },
    Rules {
        kind: "uns",
        attributes: &[
            required("name", Text),
            required("namespace", Text),
            optional("parent", Text),
            optional("dbms", Text),
            optional("table", Text),
        ],
        unique: &[&["namespace"]],
    },
];

/// The types that have rules.
pub fn validated_types() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rules| rules.kind)
}

/// Where new member numbers come from.
pub struct Members(Mutex<Box<dyn FnMut() -> u8 + Send>>);

impl Members {
    /// Random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self::from_source(|| rand::rng().random())
    }

    /// Numbers from a source of bytes; for tests and simulations.
    pub fn from_source(source: impl FnMut() -> u8 + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(source)))
    }

    fn draw(&self) -> u8 {
        (self.0.lock())()
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Members")
    }
}

/// What the rules are checked against.
struct Check<'a> {
    policy: &'a Policy,
    others: &'a PolicySet,
}

/// Checks a policy against the rules of its type and the other policies, and fills in defaults and the member number. A
/// policy with the same id is the same policy in an older form and is no conflict.
///
/// A member number that was drawn and is taken meanwhile is drawn again. It was drawn when the id does not depend on it.
///
/// # Errors
/// The first rule that is broken.
pub fn validate(policy: &Policy, others: &PolicySet, members: &Members) -> Result<Policy, LedgerError> {
    let Some(rules) = RULES.iter().find(|rules| rules.kind == policy.kind()) else {
        return Ok(policy.clone());
    };
    let mut policy = policy.clone();
    if policy.kind() == "operator" {
        let check = Check { policy: &policy, others };
        check.operator_address()?;
        if policy.get("member").is_none() || (check.member_was_drawn() && check.member_is_taken()) {
            policy = policy.with("member", check.free_member(members)?);
        }
    }
    policy = check_attributes(&policy, rules)?;
    let check = Check { policy: &policy, others };
    for attributes in rules.unique {
        check.unique(attributes)?;
    }
    match policy.kind() {
        "operator" => {
            check.operator_names()?;
            check.operator_cluster()?;
        }
        "cluster" => policy = check.cluster()?,
        "mapping" => check.mapping()?,
        "member" => check.one_root()?,
        "tag" => check.tag()?,
        "uns" => check.uns()?,
        _ => {}
    }
    Ok(policy)
}

fn check_attributes(policy: &Policy, rules: &Rules) -> Result<Policy, LedgerError> {
    let wrong = |problem: String| LedgerError::Attribute { kind: policy.kind().to_owned(), problem };
    let mut checked = policy.clone();
    for rule in rules.attributes {
        match policy.get(rule.name) {
            Some(value) if !rule.kind.fits(value) => {
                return Err(wrong(format!("'{}' must be {}, and is {}", rule.name, rule.kind.word(), shown(value))));
            }
            Some(Value::String(text)) if rule.required && text.is_empty() => {
                return Err(wrong(format!("'{}' is empty", rule.name)));
            }
            Some(_) => {}
            None if rule.required => return Err(wrong(format!("'{}' is missing", rule.name))),
            None => {
                if let Some(default) = rule.default {
                    checked = checked.with(rule.name, default);
                }
            }
        }
    }
    Ok(checked)
}

impl Check<'_> {
    fn wrong(&self, problem: impl Into<String>) -> LedgerError {
        LedgerError::Attribute { kind: self.policy.kind().to_owned(), problem: problem.into() }
    }

    /// Policies of a type, among them all others that have these values; never an older form of this one.
    fn with(&self, kind: &str, values: &[(&str, &Value)]) -> Vec<Arc<Policy>> {
        let id = self.policy.id();
        let mut found = self.others.with_values(kind, values);
        found.retain(|other| id.is_empty() || other.id() != id);
        found
    }

    /// Fails when another policy of the type has the same values of these attributes, as far as this policy has them.
    fn unique(&self, attributes: &[&str]) -> Result<(), LedgerError> {
        let present: Vec<(&str, &Value)> =
            attributes.iter().filter_map(|name| self.policy.get(name).map(|value| (*name, value))).collect();
        if present.is_empty() {
            return Ok(());
        }
        let clash = self.with(self.policy.kind(), &present).into_iter().find(|other| {
            let same = |(name, value): &(&str, &Value)| other.get(name).is_some_and(|theirs| equal(theirs, value));
            present.iter().all(same)
        });
        match clash {
            None => Ok(()),
            Some(other) => {
                let values: Vec<String> =
                    present.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect();
                Err(LedgerError::NonUnique {
                    kind: self.policy.kind().to_owned(),
                    values: values.join(" and "),
                    id: other.id().to_owned(),
                })
            }
        }
    }

    fn one_root(&self) -> Result<(), LedgerError> {
        if self.policy.text("type") != Some("root") {
            return Ok(());
        }
        let roots = self.with("member", &[("type", &Value::from("root"))]);
        match roots.iter().find(|other| other.text("type") == Some("root")) {
            None => Ok(()),
            Some(other) => Err(LedgerError::NonUnique {
                kind: "member".to_owned(),
                values: "type = root".to_owned(),
                id: other.id().to_owned(),
            }),
        }
    }

    fn tag(&self) -> Result<(), LedgerError> {
        let has = |name: &str| self.policy.get(name).is_some();
        if !has("node_iid") && !has("node_sid") {
            return Err(self.wrong("one of 'node_iid' and 'node_sid' must be there"));
        }
        self.unique(&["dbms", "table", "node_iid", "node_sid"])
    }

    fn uns(&self) -> Result<(), LedgerError> {
        if let Some(parent) = self.policy.text("parent")
            && self.others.get(parent).is_none()
        {
            return Err(self.wrong(format!("the parent {parent} is not in the ledger")));
        }
        if self.policy.get("dbms").is_some() || self.policy.get("table").is_some() {
            self.unique(&["dbms", "table", "name"])?;
        }
        Ok(())
    }
}

/// What is wrong with the policies of a ledger: each is checked against those before it.
#[must_use]
pub fn problems(policies: &PolicySet) -> Vec<String> {
    let members = Members::from_source(|| 1);
    let mut problems = Vec::new();
    for policy in policies.iter() {
        // A cluster may stand behind the operator that names it, so all policies count.
        match validate(policy, policies, &members) {
            // Member numbers are there already; one that would be drawn again is taken.
            Ok(valid) if policy.get("member").is_some() && valid.get("member") != policy.get("member") => {
                let member = policy.shown("member").unwrap_or_default();
                problems.push(format!("operator {}: another one of its cluster is member {member}", policy.id()));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{} {}: {error}", policy.kind(), policy.id())),
        }
    }
    problems
}

/// Equal as JSON, numbers also when one is written as text, since policies are often built from text.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => a == b,
        _ => a == b || shown(a) == shown(b),
    }
}

/// The object of an attribute.
fn object<'a>(policy: &'a Policy, name: &str) -> Option<&'a Map<String, Value>> {
    policy.get(name).and_then(Value::as_object)
}

#[cfg(test)]
mod tests;
