//! How message clients and the broker are shown.

use std::sync::Arc;

use anylog_core::Table;
use anylog_core::node::queues::QueueUse;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::broker::{
    BrokerUsage, EventCount, MAX_CONNECTIONS, MAX_FILTER_BYTES, MAX_PENDING, MAX_QUEUE_BYTES, MAX_QUEUES_BYTES,
    MAX_RECEIVED, MAX_RETAINED_BYTES, MAX_SESSIONS,
};
use crate::client::{BrokerAddress, MAX_WAITING, MessageClient};
use crate::intake::BUDGET_BYTES;
use crate::mapping::{Column, RawTable, ValueSource};
use crate::subscription::{Counts, Subscription, Treatment};

/// Seconds are enough for a person.
fn seconds(time: Option<Timestamp>) -> String {
    time.map(|time| anylog_core::time::stored(time).chars().take(19).collect()).unwrap_or_default()
}

/// Whether a client's broker is the one that a person named, with or without its port.
pub(super) fn is_broker(address: &BrokerAddress, named: &str) -> bool {
    match address {
        BrokerAddress::Remote { host, .. } => host == named || address.to_string() == named,
        _ => address.to_string().eq_ignore_ascii_case(named),
    }
}

/// A client as text, in the documented layout.
pub(super) fn text(client: &MessageClient, detailed: bool, width: usize) -> String {
    let counts = client.counters.counts();
    let mut text = String::new();
    let mut lines = vec![
        String::new(),
        format!("Subscription ID: {:04}", client.id),
        format!("User:         {}", client.user.as_deref().unwrap_or("unused")),
        format!("Broker:       {}", client.broker),
        format!("Connection:   {}", client.connection()),
    ];
    if let Some(id) = client.client_id() {
        lines.push(format!("Client ID:    {id}"));
    }
    if detailed || client.client_id().is_some() {
        lines.push(format!("Resubscribed: {}", client.resubscribed()));
    }
    if let Some(load) = client.load().filter(|_| detailed) {
        lines.extend([
            format!("Protocol:     {}", client.protocol().unwrap_or_default()),
            format!("Connections:  {}", client.connections()),
            format!("In flight:    {}", load.in_flight),
            format!(
                "Waiting:      {} of {} messages, {} of {} bytes",
                load.messages, MAX_WAITING.0, load.bytes, MAX_WAITING.1
            ),
        ]);
    }
    lines.extend([
        String::new(),
        "     Messages    Success     Errors      Last message time    Last error time      Last Error".to_owned(),
        "     ----------  ----------  ----------  -------------------  -------------------  ----------------------------------"
            .to_owned(),
        counts_line(&counts),
        "     ".to_owned(),
        "     Subscribed Topics:".to_owned(),
    ]);
    for line in lines {
        text.push_str(&line);
        text.push_str("\r\n");
    }
    // The table begins with a line end of its own.
    text.push_str(topics(client, width).to_string().trim_start_matches("\r\n"));
    if detailed {
        text.push_str(&statistics(client).to_string());
    }
    text.push_str("\r\n");
    text
}

fn counts_line(counts: &Counts) -> String {
    format!(
        "     {:>10}  {:>10}  {:>10}  {:<19}  {:<19}  {}",
        counts.messages,
        counts.success,
        counts.errors,
        seconds(counts.last_message),
        seconds(counts.last_error),
        counts.last_error_text
    )
    .trim_end()
    .to_owned()
}

fn topics(client: &MessageClient, width: usize) -> Table {
    let headings = [
        "Topic",
        "Dynamic",
        "QOS",
        "DBMS",
        "Table",
        "Column name",
        "Column Type",
        "Mapping Function",
        "Optional",
        "Policies",
    ];
    let mut table = Table::new(headings).indent(5).max_width(width);
    for subscription in &client.subscriptions {
        for row in topic_rows(subscription) {
            table.push(row);
        }
    }
    table
}

fn topic_rows(subscription: &Subscription) -> Vec<[String; 10]> {
    let dynamic = truth(subscription.dynamic);
    let first = |dbms: String, table: String, policies: String| {
        let mut row: [String; 10] = Default::default();
        row[0].clone_from(&subscription.filter);
        row[1] = dynamic.into();
        row[2] = subscription.qos.to_string();
        row[3] = dbms;
        row[4] = table;
        row[9] = policies;
        row
    };
    let Treatment::Map(mapper) = &subscription.treatment else {
        return vec![first(String::new(), String::new(), String::new())];
    };
    if let Some(raw) = mapper.as_raw() {
        let table = match &raw.table {
            RawTable::Fixed(table) => table.clone(),
            RawTable::LastLevel => "last level".into(),
            RawTable::Prefixed(prefix) => format!("{prefix}_ and last level"),
            RawTable::WholeTopic => "topic".into(),
        };
        return vec![first(raw.dbms.clone(), table, String::new())];
    }
    let Some(inline) = mapper.as_inline() else {
        return vec![first(String::new(), String::new(), mapper.policy_ids().join(","))];
    };
    let columns = inline.columns().iter().enumerate().map(|(at, column)| {
        let mut row = if at == 0 { first(inline.dbms(), inline.table(), String::new()) } else { Default::default() };
        row[1] = dynamic.into();
        row[5] = column.name().into();
        row[6] = column.kind().into();
        row[7] = format!("['{}']", function(column));
        row[8] = truth(column.optional()).into();
        row
    });
    columns.collect()
}

fn function(column: &Column) -> String {
    match column.value() {
        ValueSource::Now => "now".into(),
        ValueSource::Constant(text) | ValueSource::Bring(text) => text,
    }
}

fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn statistics(client: &MessageClient) -> Table {
    let mut table =
        Table::new(["Topic", "Messages", "Success", "Errors", "Last message time", "Last error time", "Last Error"])
            .indent(5);
    for subscription in &client.subscriptions {
        let counts = subscription.counters.counts();
        table.push([
            subscription.filter.clone(),
            counts.messages.to_string(),
            counts.success.to_string(),
            counts.errors.to_string(),
            seconds(counts.last_message),
            seconds(counts.last_error),
            counts.last_error_text,
        ]);
    }
    table
}

/// A client as JSON.
pub(super) fn json(client: &MessageClient) -> Value {
    let topics: Vec<Value> = client.subscriptions.iter().map(|subscription| topic_json(subscription)).collect();
    json!({
        "id": format!("{:04}", client.id),
        "user": client.user,
        "broker": client.broker.to_string(),
        "connection": client.connection(),
        "client_id": client.client_id(),
        "resubscribed": client.resubscribed(),
        "connections": client.connections(),
        "protocol": client.protocol(),
        "waiting": client.load().map(|load| {
            json!({"messages": load.messages, "bytes": load.bytes, "bound": MAX_WAITING.1, "in_flight": load.in_flight})
        }),
        "counts": counts_json(&client.counters.counts()),
        "topics": topics,
    })
}

fn topic_json(subscription: &Subscription) -> Value {
    let mut topic = json!({
        "name": subscription.filter,
        "dynamic": subscription.dynamic,
        "qos": subscription.qos,
        "counts": counts_json(&subscription.counters.counts()),
    });
    if let Treatment::Map(mapper) = &subscription.treatment {
        if let Some(inline) = mapper.as_inline() {
            topic["dbms"] = inline.dbms().into();
            topic["table"] = inline.table().into();
            let columns = inline.columns().iter().map(|column| {
                json!({
                    "name": column.name(),
                    "type": column.kind(),
                    "mapping": function(column),
                    "optional": column.optional(),
                })
            });
            topic["columns"] = columns.collect();
        }
        topic["policies"] = mapper.policy_ids().into();
    }
    topic
}

fn counts_json(counts: &Counts) -> Value {
    json!({
        "messages": counts.messages,
        "success": counts.success,
        "errors": counts.errors,
        "last_message": seconds(counts.last_message),
        "last_error": seconds(counts.last_error),
        "last_error_text": counts.last_error_text,
    })
}

/// All topics by broker.
pub(super) fn brokers(clients: &[Arc<MessageClient>]) -> Table {
    let mut table = Table::new(["Broker", "Topic", "Client ID", "Messages", "Success", "Failure"]);
    for client in clients {
        for subscription in &client.subscriptions {
            let counts = subscription.counters.counts();
            table.push([
                client.broker.to_string(),
                subscription.filter.clone(),
                format!("{:04}", client.id),
                counts.messages.to_string(),
                counts.success.to_string(),
                counts.errors.to_string(),
            ]);
        }
    }
    table
}

/// What MQTT clients did.
pub(super) fn events(rows: &[EventCount]) -> Table {
    let headings = [
        "Protocol",
        "IP",
        "Event",
        "Success",
        "Last message time",
        "Error",
        "Last error time",
        "Error Code",
        "Details",
    ];
    let mut table = Table::new(headings).title("Message Broker Stat");
    for row in rows {
        table.push([
            "MQTT".to_owned(),
            row.address.clone(),
            row.event.to_owned(),
            row.success.to_string(),
            seconds(row.last_success),
            row.errors.to_string(),
            seconds(row.last_error),
            if row.errors > 0 { format!("0x{:02x}", row.error_code) } else { String::new() },
            row.details.clone(),
        ]);
    }
    table
}

/// What the broker uses, and the bounds of it (R23).
pub(super) fn usage(usage: &BrokerUsage) -> Table {
    let mut table = Table::new(["Resource", "In use", "Bound"]).title("Message Broker Resources");
    let rows: [(&str, u128, Option<u128>); 16] = [
        ("connections", wide(usage.connections), Some(wide(MAX_CONNECTIONS))),
        ("sessions", wide(usage.sessions), Some(wide(MAX_SESSIONS))),
        ("subscriptions of MQTT clients", wide(usage.subscriptions), None),
        ("bytes of their filters", wide(usage.filter_bytes), Some(wide(MAX_FILTER_BYTES))),
        ("bytes being stored", wide(usage.held_bytes), Some(wide(BUDGET_BYTES))),
        ("bytes being stored per connection", 0, Some(wide(MAX_PENDING.1))),
        ("messages waiting for MQTT clients", wide(usage.queued), None),
        ("bytes waiting for MQTT clients", wide(usage.queued_bytes), Some(wide(MAX_QUEUES_BYTES))),
        ("bytes waiting per MQTT client", 0, Some(wide(MAX_QUEUE_BYTES))),
        ("messages not delivered to MQTT clients", usage.undelivered.into(), None),
        ("packets of QoS 2 without release", wide(usage.received), Some(wide(MAX_RECEIVED))),
        ("bytes of the file that outlives a restart", usage.book.0.into(), None),
        ("syncs of that file", usage.book.1.into(), None),
        ("bytes of retained messages", wide(usage.retained_bytes), Some(wide(MAX_RETAINED_BYTES))),
        ("messages in the quarantine", usage.quarantined.into(), None),
        ("messages with QoS 0 dropped", usage.dropped.into(), None),
    ];
    for (name, used, bound) in rows {
        let used = if name.contains(" per ") { String::new() } else { used.to_string() };
        table.push([name.to_owned(), used, bound.map(|bound| bound.to_string()).unwrap_or_default()]);
    }
    table
}

/// The broker's bounded queues, as the whole node shows them.
pub(super) fn queues(usage: &BrokerUsage) -> Vec<QueueUse> {
    let bytes = |name: &str, used: usize, bound: usize| QueueUse::bytes(name, used as u64, bound as u64);
    vec![
        bytes("messages being stored", usage.held_bytes, BUDGET_BYTES),
        bytes("messages for MQTT clients", usage.queued_bytes, MAX_QUEUES_BYTES),
        bytes("retained messages", usage.retained_bytes, MAX_RETAINED_BYTES),
    ]
}

/// What waits for the store from other brokers, as the whole node shows it (R23).
pub(super) fn client_queues(clients: &[Arc<MessageClient>]) -> Vec<QueueUse> {
    let loads = clients.iter().filter_map(|client| Some((client, client.load()?)));
    let queues = loads.map(|(client, load)| {
        let name = format!("client {:04} of {}", client.id, client.broker);
        QueueUse::bytes(name, load.bytes as u64, MAX_WAITING.1 as u64)
    });
    queues.collect()
}

fn wide(number: usize) -> u128 {
    u128::try_from(number).unwrap_or(u128::MAX)
}
