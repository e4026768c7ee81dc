//! The rules of mapping policies: how columns are described.

use serde_json::{Map, Value};

use super::{Check, Type, object};
use crate::LedgerError;

/// What a column may say, with its JSON types.
const COLUMN: &[(&str, &[Type])] = &[
    ("bring", &[Type::Text, Type::List]),
    ("root", &[Type::Boolean]),
    ("blob", &[Type::Boolean]),
    ("extension", &[Type::Text]),
    ("hash", &[Type::Text]),
    ("script", &[Type::List]),
    ("apply", &[Type::Text]),
    ("timezone", &[Type::Text]),
    ("dbms", &[Type::Text]),
    ("table", &[Type::Text]),
];

impl Check<'_> {
    /// Each column has a type, what it says has the right JSON type, and a default fits; imported policies are mappings.
    pub(super) fn mapping(&self) -> Result<(), LedgerError> {
        for (name, column) in object(self.policy, "schema").into_iter().flatten() {
            // Names in underscores speak of the row as a whole, not of a column.
            if name.starts_with("__") && name.ends_with("__") {
                continue;
            }
            match column {
                Value::Object(column) => self.column(name, column)?,
                Value::Array(alternatives) => {
                    for alternative in alternatives {
                        let Value::Object(column) = alternative else {
                            return Err(self.wrong(format!("the alternatives of column '{name}' must be objects")));
                        };
                        self.column(name, column)?;
                    }
                }
                _ => return Err(self.wrong(format!("column '{name}' must be an object or a list of objects"))),
            }
        }
        for (name, id) in object(self.policy, "import").into_iter().flatten() {
            let imported = id.as_str().filter(|id| *id != self.policy.id()).and_then(|id| self.others.get(id));
            let known = imported.is_some_and(|other| other.kind() == "mapping");
            if !known {
                return Err(self.wrong(format!("the import '{name}' names no mapping policy of the ledger")));
            }
        }
        Ok(())
    }

    fn column(&self, name: &str, column: &Map<String, Value>) -> Result<(), LedgerError> {
        let Some(kind) = column.get("type").and_then(Value::as_str) else {
            return Err(self.wrong(format!("column '{name}' needs a 'type'")));
        };
        for (attribute, types) in COLUMN {
            if let Some(value) = column.get(*attribute)
                && !types.iter().any(|kind| kind.fits(value))
            {
                let wanted: Vec<&str> = types.iter().map(|kind| kind.word()).collect();
                return Err(self.wrong(format!("'{attribute}' of column '{name}' must be {}", wanted.join(" or "))));
            }
        }
        for line in column.get("script").and_then(Value::as_array).into_iter().flatten() {
            if !line.is_string() {
                return Err(self.wrong(format!("each line of the script of column '{name}' must be a text")));
            }
        }
        match column.get("default") {
            Some(default) if !default_fits(kind, default) => {
                Err(self.wrong(format!("the default of column '{name}' is no {kind}")))
            }
            _ => Ok(()),
        }
    }
}

/// Texts, integers and truth values have to fit their type; other types take a default of any kind.
fn default_fits(kind: &str, default: &Value) -> bool {
    let kind = kind.to_lowercase();
    match kind.split('(').next().unwrap_or_default() {
        "string" | "str" | "varchar" | "char" => default.is_string(),
        "int" | "integer" => {
            Type::Integer.fits(default) || default.as_str().is_some_and(|text| text.parse::<i64>().is_ok())
        }
        "bool" | "boolean" => default.is_boolean() || matches!(default.as_str(), Some("true" | "false")),
        _ => true,
    }
}
