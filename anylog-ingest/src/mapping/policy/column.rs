//! One column of a mapping policy's schema.

use anylog_core::names::normalize;
use anylog_dbms::schema::epoch;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::script::{Script, Verdict};
use super::super::source::{Cell, Document, Found, Source};
use super::super::types::{self, DeclaredType, Form};
use super::super::zone;
use super::Row;
use crate::json::{self, Kind, Node};

/// A column with its alternatives.
#[derive(Debug, Clone)]
pub(super) struct PolicyColumn {
    name: String,
    /// `__x__`: its script runs, but it is not written.
    hidden: bool,
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Clone)]
struct Alternative {
    dbms: Option<String>,
    table: Option<String>,
    kind: Type,
    what: What,
    default: Option<Default>,
    root: bool,
    apply: Option<Apply>,
    /// In which zone times without an offset are meant.
    zone: Option<TimeZone>,
    script: Script,
}

#[derive(Debug, Clone)]
enum Type {
    Fixed(DeclaredType),
    Bring(Source),
}

#[derive(Debug, Clone)]
enum What {
    Value(Source),
    /// `*`: all attributes of the reading.
    All,
    /// `*` with names: these attributes.
    Named(Vec<String>),
}

#[derive(Debug, Clone)]
enum Default {
    Now,
    Text(String),
    // As it stands in the policy.
    Json(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apply {
    EpochToDatetime,
    JsonDump,
}

impl PolicyColumn {
    /// Compiles a column; the error is what is wrong with it.
    pub(super) fn parse(name: &str, value: &Value, zone: Option<&TimeZone>) -> Result<Self, String> {
        let one = |value: &Value| {
            Alternative::parse(name, value, zone).map_err(|problem| format!("column '{name}': {problem}"))
        };
        let hidden = name.len() > 4 && name.starts_with("__") && name.ends_with("__");
        let alternatives = match value {
            Value::Array(list) if list.is_empty() => return Err(format!("column '{name}': no alternatives")),
            Value::Array(list) => list.iter().map(one).collect::<Result<_, _>>()?,
            value => vec![one(value)?],
        };
        Ok(Self { name: normalize(name), hidden, alternatives })
    }

    /// Its name and type, when all its alternatives have one and the same.
    pub(super) fn declared(&self) -> Option<(String, String)> {
        let (first, rest) = self.alternatives.split_first()?;
        let Type::Fixed(kind) = &first.kind else { return None };
        let same = |other: &Alternative| matches!(&other.kind, Type::Fixed(other) if other == kind);
        let written = !self.hidden && matches!(first.what, What::Value(_)) && rest.iter().all(same);
        written.then(|| (self.name.clone(), kind.name.clone().into_owned()))
    }

    /// Writes the column into a row by the first alternative that applies.
    pub(super) fn write(
        &self,
        message: &Document<'_>,
        reading: &Document<'_>,
        dbms: &str,
        table: &str,
        now: Timestamp,
        row: &mut Row,
    ) -> Verdict {
        let fits = |limit: &Option<String>, name: &str| limit.as_deref().is_none_or(|limit| limit == name);
        for alternative in &self.alternatives {
            if !fits(&alternative.dbms, dbms) || !fits(&alternative.table, table) {
                continue;
            }
            match alternative.script.run(reading) {
                Verdict::IgnoreEvent => return Verdict::IgnoreEvent,
                Verdict::IgnoreAttribute => continue,
                Verdict::Continue => {}
            }
            if !self.hidden {
                alternative.write(&self.name, if alternative.root { message } else { reading }, now, row);
            }
            return Verdict::Continue;
        }
        Verdict::Continue
    }
}

impl Alternative {
    fn parse(name: &str, value: &Value, zone: Option<&TimeZone>) -> Result<Self, String> {
        let object = value.as_object().ok_or("not an object")?;
        if object.get("blob").is_some_and(|blob| blob != &Value::Bool(false)) {
            return Err("blobs are not applied by this node".to_owned());
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let what = match object.get("bring") {
            Some(Value::Array(names)) => {
                let names: Option<Vec<String>> = names.iter().map(|n| n.as_str().map(str::to_owned)).collect();
                let names = names.ok_or("'bring' is a text or a list of texts")?;
                if names.iter().any(|name| name == "*") { What::All } else { What::Named(names) }
            }
            None if name == "*" => What::All,
            None => {
                let source = text("value").map_or_else(|| format!("[{name}]"), str::to_owned);
                What::Value(Source::parse(&source).map_err(|error| error.message)?)
            }
            Some(Value::String(items)) => What::Value(Source::parse(items).map_err(|error| error.message)?),
            Some(_) => return Err("'bring' is a text or a list of texts".to_owned()),
        };
        let kind = match object.get("type") {
            Some(Value::String(kind)) if kind == "*" => {
                Type::Fixed(DeclaredType { name: "*".into(), form: Form::Verbatim })
            }
            Some(Value::String(kind)) => {
                Type::Fixed(DeclaredType::parse(kind).ok_or_else(|| format!("'{kind}' is not a type"))?)
            }
            Some(Value::Object(kind)) => {
                let items = kind.get("bring").and_then(Value::as_str).ok_or("'type' has no 'bring'")?;
                Type::Bring(Source::parse(items).map_err(|error| error.message)?)
            }
            _ if name.starts_with("__") => Type::Fixed(DeclaredType { name: "varchar".into(), form: Form::Verbatim }),
            _ => return Err("'type' is missing".to_owned()),
        };
        let apply = match text("apply") {
            None => None,
            Some("epoch_to_datetime") => Some(Apply::EpochToDatetime),
            Some("json_dump") => Some(Apply::JsonDump),
            Some(other) => return Err(format!("'{other}' is not a function of a mapping")),
        };
        let is_timestamp = matches!(&kind, Type::Fixed(kind) if kind.name == "timestamp");
        let zone = match object.get("timezone") {
            None => zone.filter(|_| is_timestamp).cloned(),
            Some(Value::String(name)) if is_timestamp => Some(zone::parse(name)?),
            Some(Value::String(_)) => return Err("'timezone' is for columns of type timestamp".to_owned()),
            Some(_) => return Err("'timezone' is not a text".to_owned()),
        };
        Ok(Self {
            dbms: text("dbms").map(normalize),
            table: text("table").map(normalize),
            kind,
            what,
            default: object.get("default").map(default),
            root: object.get("root").and_then(Value::as_bool).unwrap_or(false),
            apply,
            zone,
            script: Script::parse(object.get("script")).map_err(|error| error.message)?,
        })
    }

    fn write(&self, name: &str, document: &Document<'_>, now: Timestamp, row: &mut Row) {
        match &self.what {
            What::Value(source) => {
                if row.begin(name) {
                    let form = self.form(document);
                    let found = match source.find(document) {
                        Cell::One(found) => found,
                        // Several values in one column are a list.
                        Cell::Many(found) => joined(&found),
                    };
                    match found {
                        Some(found) => self.value(&found, form, &mut row.text),
                        None => self.default_value(form, now, &mut row.text),
                    }
                }
            }
            What::All => {
                if let Kind::Object(entries) = &document.root.kind {
                    entries.iter().for_each(|(name, value)| plain(name, value, row));
                }
            }
            What::Named(names) => {
                for name in names {
                    if let Some(value) = document.root.get(name) {
                        expanded(name, value, row);
                    }
                }
            }
        }
    }

    fn form(&self, document: &Document<'_>) -> Form {
        match &self.kind {
            Type::Fixed(kind) => kind.form,
            Type::Bring(source) => {
                let kind = source.first(document).and_then(|found| DeclaredType::parse(&found.plain()));
                kind.map_or(Form::Verbatim, |kind| kind.form)
            }
        }
    }

    fn value(&self, found: &Found<'_>, form: Form, out: &mut String) {
        match self.apply {
            Some(Apply::EpochToDatetime) => match epoch(found.plain().trim()) {
                Some(time) => json::push_quoted(out, &anylog_core::time::policy_date(time)),
                None => found.write(form, out),
            },
            Some(Apply::JsonDump) => match found {
                Found::Node(node) => json::push_quoted(out, &json::one_line(node.raw)),
                Found::Text(text) => json::push_quoted(out, text),
            },
            None => match &self.zone {
                Some(zone) => zone::write(zone, found, form, out),
                None => found.write(form, out),
            },
        }
    }

    fn default_value(&self, form: Form, now: Timestamp, out: &mut String) {
        match &self.default {
            None => out.push_str("null"),
            Some(Default::Now) => json::push_quoted(out, &anylog_core::time::policy_date(now)),
            Some(Default::Text(text)) => types::write_text(form, text, out),
            Some(Default::Json(text)) => out.push_str(text),
        }
    }
}

fn default(value: &Value) -> Default {
    match value {
        Value::String(text) if text.trim() == "now()" || text.trim() == "now" => Default::Now,
        Value::String(text) => Default::Text(text.clone()),
        value => Default::Json(value.to_string()),
    }
}

fn joined(found: &[Option<Found<'_>>]) -> Option<Found<'static>> {
    if found.is_empty() {
        return None;
    }
    let texts: Vec<_> = found.iter().flatten().map(|found| found.plain().into_owned()).collect();
    Some(Found::Text(texts.join(",")))
}

fn plain(name: &str, value: &Node<'_>, row: &mut Row) {
    let name = normalize(name);
    if !name.is_empty() && row.begin(&name) {
        row.text.push_str(&json::one_line(value.raw));
    }
}

/// A named object becomes one column per attribute; a text that holds an object is read first.
fn expanded(name: &str, value: &Node<'_>, row: &mut Row) {
    match &value.kind {
        Kind::Object(entries) => entries.iter().for_each(|(sub, value)| plain(&format!("{name}_{sub}"), value, row)),
        Kind::Text(text) if text.trim_start().starts_with('{') => match json::parse(text) {
            Ok(inner) => expanded(name, &inner, row),
            Err(_) => plain(name, value, row),
        },
        _ => plain(name, value, row),
    }
}
