//! The logs of the node.

use std::sync::Arc;

use super::simple;
use crate::command::{Command, CommandResult, Declaration, Invocation, OptionKind};
use crate::node::messages::{Message, MessageLog};
use crate::{Reply, Session, Table, time};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            log("get event log", "Shows the commands that ran.").example("get event log where format = json"),
            |session, call| show(session, call, &session.node.events),
        ),
        simple(
            log("get error log", "Shows failures with their causes.")
                .example("get error log where keys = script partition"),
            |session, call| show(session, call, &session.node.errors),
        ),
        simple(
            Declaration::new("reset event log", "Empties the event log.").returns("nothing").example("reset event log"),
            |session, _| clear(&session.node.events),
        ),
        simple(
            Declaration::new("reset error log", "Empties the error log.").returns("nothing").example("reset error log"),
            |session, _| clear(&session.node.errors),
        ),
    ]
}

fn log(words: &'static str, summary: &'static str) -> Declaration {
    Declaration::new(words, summary)
        .reads()
        .format_option()
        .option("keys", OptionKind::Text, "only entries that contain one of these words")
        .returns(
            "a table with the columns ID, Count, Thread, Time, Type, Text; or a JSON list of objects with these keys",
        )
}

fn show(session: &Session, call: &Invocation, log: &MessageLog) -> CommandResult {
    let keys = call.options.text("keys").unwrap_or_default().to_lowercase();
    let keys: Vec<&str> = keys.split_whitespace().collect();
    let wanted = |message: &Message| {
        let text = format!("{} {} {}", message.thread, message.kind, message.text).to_lowercase();
        keys.is_empty() || keys.iter().any(|key| text.contains(key))
    };
    let messages = log.messages().into_iter().filter(wanted);
    if call.options.wants_json() {
        let object = |message: Message| {
            serde_json::json!({
                "ID": message.id,
                "Count": message.count,
                "Thread": message.thread,
                "Time": time::stored(message.time),
                "Type": message.kind,
                "Text": message.text,
            })
        };
        return Ok(Reply::Json(messages.map(object).collect()));
    }
    let mut table =
        Table::new(["ID", "Count", "Thread", "Time", "Type", "Text"]).max_width(session.node.output_width());
    for message in messages {
        let time = time::stored(message.time);
        table.push([
            message.id.to_string(),
            message.count.to_string(),
            message.thread,
            time,
            message.kind,
            message.text,
        ]);
    }
    Ok(table.into())
}

fn clear(log: &MessageLog) -> CommandResult {
    log.clear();
    Ok(Reply::Empty)
}
