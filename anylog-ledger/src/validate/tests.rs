//! The rules, type by type.

use anylog_core::Status;
use serde_json::{Value, json};

use super::*;

fn policy(value: Value) -> Policy {
    Policy::from_value(value).unwrap()
}

fn ledger() -> PolicySet {
    let policies = [
        json!({"cluster": {"id": "c1", "name": "one", "company": "co"}}),
        json!({"cluster": {"id": "c2", "name": "two", "company": "co"}}),
        json!({"operator": {"id": "o1", "name": "op1", "company": "co", "ip": "10.0.0.1", "port": 32148, "cluster": "c1",
            "member": 7}}),
        json!({"table": {"id": "t1", "name": "t", "dbms": "d", "create": "CREATE ..."}}),
        json!({"mapping": {"id": "m1", "dbms": "d", "table": "t", "schema": {}}}),
        json!({"member": {"id": "r", "type": "root", "public_key": "k1"}}),
        json!({"license": {"id": "l", "activation_key": "a", "company": "co", "expiration": "2030", "type": "beta"}}),
        json!({"tag": {"id": "g", "dbms": "d", "table": "t", "ns": 1, "node_iid": 5}}),
        json!({"bucket": {"id": "b", "name": "b1"}}),
        json!({"uns": {"id": "u", "name": "site", "namespace": "site/"}}),
    ];
    policies.into_iter().map(|value| Arc::new(policy(value))).collect()
}

fn check(value: Value) -> Result<Policy, LedgerError> {
    validate(&policy(value), &ledger(), &Members::from_source(|| 7))
}

fn operator(changes: Value) -> Value {
    let mut inner = json!({"name": "op2", "company": "co", "ip": "10.0.0.2", "port": 32148, "cluster": "c1"});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            inner.as_object_mut().unwrap().remove(name);
        } else {
            inner[name] = value.clone();
        }
    }
    json!({"operator": inner})
}

#[test]
fn policies_that_break_a_rule_are_refused_with_its_status() {
    let cases = [
        // LED-2: names, addresses, members and clusters are unique or there.
        (operator(json!({"cluster": null})), Status::WRONG_POLICY),
        (operator(json!({"port": null})), Status::WRONG_POLICY),
        (operator(json!({"ip": "10.0.0.1"})), Status::NON_UNIQUE_ADDRESS),
        (operator(json!({"ip": "10.0.0.1", "port": "32148"})), Status::NON_UNIQUE_ADDRESS),
        (operator(json!({"name": "op1"})), Status::NON_UNIQUE_VALUES),
        (operator(json!({"name": "op1", "company": "other"})), Status::NON_UNIQUE_VALUES),
        (operator(json!({"member": 7})), Status::NON_UNIQUE_VALUES),
        (operator(json!({"member": 300})), Status::WRONG_POLICY),
        (operator(json!({"port": "32148"})), Status::WRONG_POLICY),
        (operator(json!({"port": 70000})), Status::WRONG_POLICY),
        (operator(json!({"main": "yes"})), Status::WRONG_POLICY),
        (operator(json!({"cluster": "unknown"})), Status::NO_CLUSTER_POLICY),
        (operator(json!({"name": null})), Status::WRONG_POLICY),
        (json!({"cluster": {"name": "x"}}), Status::WRONG_POLICY),
        (json!({"cluster": {"name": 5, "company": "co"}}), Status::WRONG_POLICY),
        (json!({"cluster": {"name": "one", "company": "other"}}), Status::NON_UNIQUE_VALUES),
        (json!({"cluster": {"name": "one", "company": "co", "parent": "c2"}}), Status::WRONG_POLICY),
        (json!({"cluster": {"name": "one", "company": "xx", "parent": "c1"}}), Status::WRONG_POLICY),
        (
            json!({"cluster": {"name": "new", "company": "co", "table": [{"dbms": "d", "name": "t"}, {"dbms": "d", "name": "t"}]}}),
            Status::WRONG_POLICY,
        ),
        (json!({"cluster": {"name": "new", "company": "co", "table": [{"dbms": "d"}]}}), Status::WRONG_POLICY),
        (json!({"table": {"name": "t", "dbms": "d", "create": "x"}}), Status::NON_UNIQUE_VALUES),
        (json!({"table": {"name": "u", "dbms": "d"}}), Status::WRONG_POLICY),
        (json!({"mapping": {"dbms": "d", "table": "t"}}), Status::WRONG_POLICY),
        (json!({"mapping": {"dbms": "d", "table": "t", "schema": {"c": {"bring": "[c]"}}}}), Status::WRONG_POLICY),
        (json!({"mapping": {"dbms": "d", "table": "t", "schema": {"c": "int"}}}), Status::WRONG_POLICY),
        (
            json!({"mapping": {"dbms": "d", "table": "t", "schema": {"c": {"type": "int", "default": "x"}}}}),
            Status::WRONG_POLICY,
        ),
        (
            json!({"mapping": {"dbms": "d", "table": "t", "schema": {"c": [{"type": "int", "bring": 5}]}}}),
            Status::WRONG_POLICY,
        ),
        (json!({"mapping": {"dbms": "d", "table": "t", "schema": {}, "import": {"x": "gone"}}}), Status::WRONG_POLICY),
        (json!({"transform": {"dbms": "d", "table": "t"}}), Status::WRONG_POLICY),
        (json!({"member": {"type": "user", "public_key": "k1"}}), Status::NON_UNIQUE_VALUES),
        (json!({"member": {"type": "root", "public_key": "k2"}}), Status::NON_UNIQUE_VALUES),
        (
            json!({"permissions": {"name": "p", "enable": "x", "public_key": "k", "signature": "s"}}),
            Status::WRONG_POLICY,
        ),
        (json!({"assignment": {"permissions": "p", "public_key": "k", "signature": "s"}}), Status::WRONG_POLICY),
        (
            json!({"license": {"activation_key": "b", "company": "co", "expiration": "2031", "type": "x"}}),
            Status::NON_UNIQUE_VALUES,
        ),
        (json!({"tag": {"dbms": "e", "table": "t", "ns": 1}}), Status::WRONG_POLICY),
        (json!({"tag": {"dbms": "d", "table": "t", "ns": 2, "node_sid": "x"}}), Status::NON_UNIQUE_VALUES),
        (json!({"bucket": {"name": "b1"}}), Status::NON_UNIQUE_VALUES),
        (json!({"uns": {"name": "x", "namespace": "site/"}}), Status::NON_UNIQUE_VALUES),
        (json!({"uns": {"name": "x", "namespace": "x/", "parent": "gone"}}), Status::WRONG_POLICY),
    ];
    for (value, status) in cases {
        match check(value.clone()) {
            Ok(_) => panic!("{value} was taken"),
            Err(error) => {
                assert_eq!(error.status(), status, "{value}: {error}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn policies_that_keep_the_rules_are_taken() {
    for value in [
        json!({"anything": {"goes": true}}),
        json!({"cluster": {"name": "new", "company": "co", "dbms": "d", "master": "m:1"}}),
        json!({"cluster": {"name": "one", "company": "co", "parent": "c1", "table": [{"dbms": "d", "name": "t"}]}}),
        json!({"table": {"name": "t", "dbms": "other", "create": "x"}}),
        json!({"mapping": {"dbms": "d", "table": "t", "import": {"x": "m1"}, "schema": {"__start__": 1,
            "a": {"type": "int", "default": 5, "bring": ["[a]"]}, "b": [{"type": "string", "default": "x"}]}}}),
        json!({"member": {"type": "user", "public_key": "k9"}}),
        json!({"uns": {"name": "line", "namespace": "site/line/", "parent": "u"}}),
        json!({"tag": {"dbms": "e", "table": "t", "ns": 1, "node_sid": "x"}}),
        operator(json!({"cluster": "c2"})),
    ] {
        check(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

#[test]
fn defaults_are_filled_in() {
    let cluster =
        check(json!({"cluster": {"name": "n", "company": "co", "table": [{"dbms": "d", "name": "t"}]}})).unwrap();
    assert_eq!(cluster.text("status"), Some("active"));
    assert_eq!(cluster.get("table"), Some(&json!([{"dbms": "d", "name": "t", "status": "active"}])));
    // Seven is drawn and taken, so the next free number is given.
    assert_eq!(check(operator(json!({}))).unwrap().get("member"), Some(&json!(8)));
    assert_eq!(check(operator(json!({"cluster": "c2"}))).unwrap().get("member"), Some(&json!(7)));
}

#[test]
fn a_policy_does_not_collide_with_its_older_form() {
    let table = json!({"table": {"id": "t1", "name": "t", "dbms": "d", "create": "CREATE wider"}});
    assert!(check(table).is_ok());
    let own = json!({"operator": {"id": "o1", "name": "op1", "company": "co", "ip": "10.0.0.1", "port": 32148,
        "cluster": "c1", "member": 7, "main": true}});
    assert!(check(own).is_ok());
}

#[test]
fn a_full_cluster_takes_no_more_operators() {
    let mut policies = PolicySet::default();
    policies.insert(Arc::new(policy(json!({"cluster": {"id": "c1", "name": "one", "company": "co"}}))));
    for member in 1..=255 {
        let name = format!("op{member}");
        policies.insert(Arc::new(policy(json!({"operator": {"id": name, "name": name, "company": "co",
            "ip": "10.0.0.1", "port": 1000 + member, "cluster": "c1", "member": member}}))));
    }
    let new = policy(operator(json!({"name": "new"})));
    let error = validate(&new, &policies, &Members::random()).unwrap_err();
    assert!(matches!(error, LedgerError::ClusterFull { .. }), "{error}");
    policies.remove("op200");
    let taken = validate(&new, &policies, &Members::random()).unwrap();
    assert_eq!(taken.get("member"), Some(&json!(200)));
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9 '\"]{0,6}".prop_map(Value::from),
        Just(Value::from("c1")),
    ];
    let names =
        "(name|company|ip|port|cluster|member|table|dbms|schema|type|parent|id|import|script|default|[a-z]{1,3})";
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn no_policy_panics(kind in "(cluster|operator|table|mapping|member|tag|uns|license|x)", inner in any_json()) {
        if let Ok(policy) = Policy::from_value(json!({kind: inner})) {
            let checked = validate(&policy, &ledger(), &Members::random());
            let again = checked.and_then(|policy| validate(&policy, &ledger(), &Members::random()).map(|again| (policy, again)));
            // What was taken once is taken again, unchanged.
            if let Ok((once, twice)) = again {
                proptest::prop_assert_eq!(once, twice);
            }
            proptest::prop_assert_eq!(policy.computed_id().len(), 32);
            drop(crate::View::build(&[Arc::new(policy)].into_iter().collect()));
        }
    }
}

#[test]
fn a_number_that_was_drawn_and_is_taken_is_drawn_again() {
    let drawn = |number: i64| {
        policy(operator(json!({}))).with("id", policy(operator(json!({}))).computed_id()).with("member", number)
    };
    let members = Members::from_source(|| 7);
    assert_eq!(validate(&drawn(7), &ledger(), &members).unwrap().get("member"), Some(&json!(8)));
    assert_eq!(validate(&drawn(9), &ledger(), &members).unwrap().get("member"), Some(&json!(9)));
    // One that is a part of the definition was asked for.
    let asked = policy(operator(json!({"member": 7})));
    let asked = asked.with("id", asked.computed_id());
    assert_eq!(validate(&asked, &ledger(), &members).unwrap_err().status(), Status::NON_UNIQUE_VALUES);
    // Who looks for what is wrong draws nothing.
    let mut policies = ledger();
    policies.insert(Arc::new(drawn(7)));
    let found = problems(&policies);
    assert!(found.iter().any(|text| text.contains("member 7")), "{found:?}");
}
