//! Answers in their formats, read back into rows.

use serde_json::Value;

use super::database::Rows;

/// The columns that each table has before those of its rows.
const SYSTEM: [&str; 4] = ["row_id", "insert_timestamp", "tsd_name", "tsd_id"];

/// Rows that were read, and the statistics if there were any.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) rows: Rows,
    pub(crate) statistics: Option<Value>,
}

/// Reads an answer in `json`, `json:list` or `json:output`.
pub(crate) fn json(format: &str, body: &str) -> Result<Read, String> {
    let document = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("{error} in {text}"));
    let mut objects = match format {
        "json" => {
            let whole = document(body)?;
            let statistics = whole.get("Statistics").cloned();
            return match (whole.get("Query"), whole.get("reply")) {
                (Some(Value::Array(rows)), None) => Ok(Read { rows: table(rows)?, statistics }),
                (None, reply) if reply.is_some() || statistics.is_some() => Ok(Read { rows: table(&[])?, statistics }),
                _ => Err(format!("no answer: {body}")),
            };
        }
        "json:list" => match document(body)? {
            Value::Array(objects) => objects,
            object => vec![object],
        },
        _ => body.lines().map(document).collect::<Result<_, _>>()?,
    };
    let is_statistics =
        |object: &Value| object.get("Statistics").is_some() && object.as_object().is_some_and(|o| o.len() == 1);
    let statistics = if objects.last().is_some_and(is_statistics) { objects.pop() } else { None };
    let statistics = statistics.map(|object| object["Statistics"].clone());
    objects.retain(|object| object.get("reply").is_none());
    Ok(Read { rows: table(&objects)?, statistics })
}

/// Objects with the same names as rows, without the columns of the system.
fn table(objects: &[Value]) -> Result<Rows, String> {
    let mut names: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for object in objects {
        let Value::Object(fields) = object else { return Err(format!("not a row: {object}")) };
        let kept = || fields.iter().filter(|(name, _)| !SYSTEM.contains(&name.as_str()));
        let own: Vec<String> = kept().map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            names = own;
        } else if names != own {
            return Err(format!("a row has other columns: {object}"));
        }
        rows.push(kept().map(|(_, value)| value.clone()).collect());
    }
    Ok(Rows { names, rows })
}

/// Reads a table for persons: names and the texts of all values.
pub(crate) fn text_table(body: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut names = Vec::new();
    let mut rows = Vec::new();
    let mut widths: Vec<usize> = Vec::new();
    let lines: Vec<&str> = body.lines().collect();
    let is_rule = |line: &str| !line.is_empty() && line.chars().all(|c| c == '-' || c == ' ');
    for (at, line) in lines.iter().enumerate() {
        let next_is_rule = lines.get(at + 1).is_some_and(|next| is_rule(next))
            && lines.get(at.wrapping_sub(1)).is_none_or(|line| line.is_empty());
        if line.is_empty() {
            widths.clear();
        } else if widths.is_empty() && is_rule(line) {
            widths = line.split(' ').filter(|word| !word.is_empty()).map(str::len).collect();
            names = cells(lines[at - 1], &widths);
        } else if line.starts_with("{\"Statistics\"") || line.starts_with("{\"reply\"") {
            break;
        } else if !widths.is_empty() && !next_is_rule {
            rows.push(cells(line, &widths));
        }
    }
    (names, rows)
}

fn cells(line: &str, widths: &[usize]) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut at = 0;
    let mut cells = Vec::new();
    for (index, width) in widths.iter().enumerate() {
        let end = if index + 1 == widths.len() { chars.len() } else { (at + width).min(chars.len()) };
        cells.push(chars[at.min(end)..end].iter().collect::<String>().trim().to_owned());
        at += width + 1;
    }
    cells
}

/// The text of a value in a table.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(['\r', '\n', '\t'], " ").trim().to_owned(),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap()),
        other => other.to_string(),
    }
}

/// True when two values are equal; floats to nine digits.
pub(crate) fn equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let (is_float, was_float) = (found.is_f64(), expected.is_f64());
            if !is_float && !was_float {
                return found == expected;
            }
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let near =
                (found - expected).abs() <= 1e-9 * found.abs().max(expected.abs()) || (found - expected).abs() < 1e-12;
            near && is_float == was_float
        }
        (found, expected) => found == expected,
    }
}
