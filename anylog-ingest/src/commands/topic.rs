//! `topic=( ... )`: from options to a mapping.

use anylog_core::command::OptionValue;
use anylog_core::language::where_list;
use anylog_core::names::normalize;
use anylog_core::{CommandError, Node, Options, Status};

use super::inner_words;
use crate::Ingest;
use crate::client::{BrokerAddress, TopicSpec};
use crate::mapping::{Column, Inline, Mapper, Raw, RawTable};
use crate::subscription::Treatment;

/// The keys of a topic; `column.*` beside them.
const KEYS: &[&str] = &[
    "name",
    "qos",
    "dbms",
    "table",
    "policy",
    "flush",
    "persist",
    "dynamic",
    "table_prefix",
    "table_name_as_topic",
    "timezone",
];

/// Reads one topic.
pub(super) fn spec(
    ingest: &Ingest,
    node: &Node,
    options: &Options,
    broker: &BrokerAddress,
    only_log: bool,
) -> Result<TopicSpec, CommandError> {
    for (key, _) in options.iter() {
        if !KEYS.contains(&key) && !key.starts_with("column.") {
            let near = anylog_core::error::nearest(key, KEYS.iter().copied());
            let hint = near.map_or_else(
                || format!("keys are {} and column.<name>", KEYS.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            return Err(wrong(format!("Unknown key in a topic: {key}")).hint(hint));
        }
    }
    let filter =
        text(options, "name").ok_or_else(|| wrong("A topic without a name".into()).hint("add: name=<topic>"))?;
    let qos = match text(options, "qos") {
        // Another broker keeps what it sends with QoS 1 until the rows are stored (R4).
        None => u8::from(matches!(broker, BrokerAddress::Remote { .. })),
        Some(qos) => qos.parse().ok().filter(|qos| *qos <= 2).ok_or_else(|| {
            CommandError::structure(format!("Topic '{filter}': '{qos}' is not a quality of service"))
                .hint("use 0, 1 or 2")
        })?,
    };
    let dynamic = flag(options, "dynamic")?;
    let treatment = if only_log {
        Treatment::LogOnly
    } else {
        Treatment::Map(mapper(ingest, node, options, &filter, broker, dynamic)?)
    };
    Ok(TopicSpec { filter, qos, treatment, dynamic })
}

fn mapper(
    ingest: &Ingest,
    node: &Node,
    options: &Options,
    filter: &str,
    broker: &BrokerAddress,
    dynamic: bool,
) -> Result<Mapper, CommandError> {
    let policies = policies(options);
    if !policies.is_empty() {
        let policies = policies.iter().map(|id| ingest.policy_mapping(id)).collect::<Result<_, _>>()?;
        return Ok(Mapper::policies(policies));
    }
    if flag(options, "flush")? {
        let dbms = normalize(&broker.to_string());
        return Ok(Mapper::raw(Raw { dbms, table: RawTable::WholeTopic }));
    }
    let dbms = text(options, "dbms").ok_or_else(|| {
        wrong(format!("Topic '{filter}' without a database")).hint("add: dbms=<name> or dbms=\"bring [x]\"")
    })?;
    let columns = columns(node, options)?;
    if columns.iter().all(|column| column.zone().is_none()) && options.has("timezone") {
        return Err(wrong(format!("Topic '{filter}' has no timestamp column for its timezone")));
    }
    if dynamic || (columns.is_empty() && flag(options, "persist")?) {
        return Ok(Mapper::raw(Raw { dbms: normalize(&dbms), table: raw_table(options)? }));
    }
    let table = text(options, "table").ok_or_else(|| {
        wrong(format!("Topic '{filter}' without a table")).hint("add: table=<name> or table=\"bring [x]\"")
    })?;
    Inline::new(&dbms, &table, columns).map(Mapper::inline).map_err(|mut error| {
        error.message = format!("Topic '{filter}': {}", error.message);
        error
    })
}

/// Which table takes raw messages: the whole topic, a name, a prefix and the last level, or the last level.
fn raw_table(options: &Options) -> Result<RawTable, CommandError> {
    if flag(options, "table_name_as_topic")? {
        return Ok(RawTable::WholeTopic);
    }
    Ok(match (text(options, "table"), text(options, "table_prefix")) {
        (Some(table), _) => RawTable::Fixed(normalize(&table)),
        (None, Some(prefix)) => RawTable::Prefixed(prefix),
        (None, None) => RawTable::LastLevel,
    })
}

/// Ids given one by one, or as a list: `policy=a and policy=b`, `policy=(a, b)`.
fn policies(options: &Options) -> Vec<String> {
    let texts = options.texts("policy");
    let list = texts.iter().flat_map(|text| {
        let inner = text.trim().trim_start_matches(['(', '[']).trim_end_matches([')', ']']).to_owned();
        inner.split(',').map(|id| id.trim().trim_matches('"').to_owned()).collect::<Vec<_>>()
    });
    list.filter(|id| !id.is_empty()).collect()
}

fn columns(node: &Node, options: &Options) -> Result<Vec<Column>, CommandError> {
    let entries = options.iter().filter_map(|(key, value)| Some((key.strip_prefix("column.")?, value)));
    let of_topic = text(options, "timezone");
    let columns = entries.map(|(name, value)| {
        let column = column(node, name, value)?;
        match &of_topic {
            Some(zone) if column.is_timestamp() && column.zone().is_none() => column.in_zone(zone),
            _ => Ok(column),
        }
    });
    columns.collect()
}

/// `column.<name>.<type> = X`, or `column.<name> = (value=X and type=T and optional=true)`.
fn column(node: &Node, name: &str, value: &OptionValue) -> Result<Column, CommandError> {
    let described = match value {
        OptionValue::Nested(inner) => Some(inner.clone()),
        OptionValue::Value(value) => {
            let text = value.to_string();
            let is_list = text.trim_start().starts_with('(') && text.trim_end().ends_with(')');
            if is_list { Some(where_list::parse_any(node, &inner_words(&text)?)?) } else { None }
        }
        _ => None,
    };
    if let Some(inner) = described {
        for (key, _) in inner.iter() {
            if !["value", "type", "optional", "timezone"].contains(&key) {
                return Err(wrong(format!("Column '{name}': unknown key '{key}'"))
                    .hint("keys are value, type, optional, timezone"));
            }
        }
        let missing = |key: &str| wrong(format!("Column '{name}' without '{key}'"));
        let value = text(&inner, "value").ok_or_else(|| missing("value"))?;
        let kind = text(&inner, "type").ok_or_else(|| missing("type"))?;
        let column = Column::new(name, &kind, &value, flag(&inner, "optional")?)?;
        return match text(&inner, "timezone") {
            Some(zone) => column.in_zone(&zone),
            None => Ok(column),
        };
    }
    let OptionValue::Value(value) = value else { return Err(wrong(format!("Column '{name}' without a value"))) };
    let Some((name, kind)) = name.rsplit_once('.') else {
        return Err(wrong(format!("Column '{name}' without a type"))
            .hint(format!("write column.{name}.<type>=<value> or column.{name}=(value=<value> and type=<type>)")));
    };
    Column::new(name, kind, &value.to_string(), false)
}

fn text(options: &Options, name: &str) -> Option<String> {
    options.text(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn flag(options: &Options, name: &str) -> Result<bool, CommandError> {
    match options.text(name) {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(text) => Err(CommandError::structure(format!("'{name}' is true or false, not '{text}'"))),
    }
}

fn wrong(text: String) -> CommandError {
    CommandError::new(Status::MESSAGE_DECLARATION, text)
}
