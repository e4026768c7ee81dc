//! `params` of a mapping policy: lists of values, for each of which the schema makes a row of its own.
//!
//! A message that holds one value per attribute, `{"temp_1": 20, "temp_2": 21}`, becomes a row per sensor with
//! `"params": [["temp_1", "cellar"], ["temp_2", "roof"]]`, a column that brings `[params.0]` and one with the default `params.1`.
//! The lists are put into the schema when the policy is compiled; a message costs no more for it.

use regex::{Captures, Regex};
use serde_json::Value;

/// The keys of a column in which `params.N` stands for a value.
const KEYS: [&str; 3] = ["bring", "default", "value"];

/// The schema for each list of `params`; the schema itself without lists.
pub(super) fn schemas(schema: &Value, params: Option<&Value>) -> Result<Vec<Value>, String> {
    let lists = match params {
        None => return Ok(vec![schema.clone()]),
        Some(Value::Array(lists)) if !lists.is_empty() => lists,
        Some(_) => return Err("'params' is a list of lists, with one at least".to_owned()),
    };
    let token = Regex::new(r"\bparams\.([0-9]+)\b").map_err(|error| error.to_string())?;
    let one = |list: &Value| match list {
        Value::Array(list) => put(&token, list, schema),
        _ => Err("'params' is a list of lists".to_owned()),
    };
    lists.iter().map(one).collect()
}

/// Puts the values of a list into the columns of a schema.
fn put(token: &Regex, list: &[Value], schema: &Value) -> Result<Value, String> {
    let mut schema = schema.clone();
    for (name, column) in schema.as_object_mut().into_iter().flatten() {
        let alternatives = match column {
            Value::Array(alternatives) => alternatives.as_mut_slice(),
            column => std::slice::from_mut(column),
        };
        for value in alternatives.iter_mut().filter_map(Value::as_object_mut).flatten() {
            if !KEYS.contains(&value.0.as_str()) {
                continue;
            }
            let texts = match value.1 {
                Value::Array(texts) => texts.as_mut_slice(),
                text => std::slice::from_mut(text),
            };
            for text in texts {
                *text = filled(token, list, text).map_err(|problem| format!("column '{name}': {problem}"))?;
            }
        }
    }
    Ok(schema)
}

/// A text with its parameters in place. One that is nothing but a parameter becomes its value, whatever type that has.
fn filled(token: &Regex, list: &[Value], value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else { return Ok(value.clone()) };
    let known = |index: &str| index.parse().ok().and_then(|index: usize| list.get(index));
    if let Some(unknown) =
        token.captures_iter(text).map(|found| found[1].to_owned()).find(|index| known(index).is_none())
    {
        return Err(format!("'params.{unknown}' is not in the list, whose first value is params.0"));
    }
    if let Some(whole) = token.captures(text.trim()).filter(|found| found[0].len() == text.trim().len()) {
        return Ok(known(&whole[1]).cloned().unwrap_or_default());
    }
    let plain = |found: &Captures<'_>| match known(&found[1]) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    Ok(Value::String(token.replace_all(text, plain).into_owned()))
}
