//! `test network`: who answers, and with which version of the ledger.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::{Positional, PositionalKind};
use anylog_core::{Command, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Table, command};
use futures_util::StreamExt;
use serde_json::json;

use crate::Ledger;
use crate::client::Answer;

/// How long a node may take to answer.
const DEADLINE: Duration = Duration::from_secs(4);

/// The types of policies that are nodes.
const NODES: [&str; 4] = ["master", "operator", "query", "publisher"];

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let optional = |name, kind, help| Positional { name, kind, required: false, help };
    let network = Declaration::new("test network", "Asks the nodes of the ledger whether they are there.")
        .reads()
        .positional(optional("with", PositionalKind::Keyword("with"), ""))
        .positional(optional(
            "nodes",
            PositionalKind::Word(OptionKind::Text),
            "only nodes of this type, or the one at this ip:port",
        ))
        .format_option()
        .returns("each node: address, type, name, and a + when it answers within 4 seconds, or why it does not")
        .example("test network")
        .example("test network with operator");
    let version = Declaration::new(
        "test network metadata version",
        "Asks all nodes of the ledger for the version of their copy.",
    )
    .reads()
    .format_option()
    .returns("each node: address, type, name, its version, and whether that is this node's")
    .example("test network metadata version");
    vec![
        command(network, Arc::clone(ledger), |ledger, session, call| Box::pin(network_status(ledger, session, call))),
        command(version, Arc::clone(ledger), |ledger, session, call| Box::pin(versions(ledger, session, call))),
    ]
}

/// A node of the ledger, and what it answered.
struct Asked {
    address: String,
    kind: String,
    name: String,
    answer: Result<String, String>,
}

/// Asks the nodes of the ledger, or some of them.
async fn ask(ledger: &Ledger, question: &str, only: Option<&str>) -> Vec<Asked> {
    let own = ledger.own_addresses();
    let mut nodes: Vec<(String, String, String)> = Vec::new();
    for policy in NODES.iter().flat_map(|kind| ledger.policies(kind)) {
        if let Some(address) = own.reach(&policy)
            && only.is_none_or(|only| only == address || only.eq_ignore_ascii_case(policy.kind()))
            && !nodes.iter().any(|(known, ..)| *known == address)
        {
            nodes.push((address, policy.kind().to_owned(), policy.shown("name").unwrap_or_default()));
        }
    }
    let addresses: Vec<String> = nodes.iter().map(|(address, ..)| address.clone()).collect();
    let answers: Vec<Answer> = ledger.ask_nodes(&addresses, question, DEADLINE).collect().await;
    let answer_of = |address: &str| {
        let answer = answers.iter().find(|answer| answer.node == address).map(|answer| &answer.reply);
        match answer {
            Some(Ok(text)) => Ok(text.trim().trim_matches('"').to_owned()),
            Some(Err(error)) => Err(error.message.clone()),
            None => Err("not asked".to_owned()),
        }
    };
    let asked = nodes.into_iter().map(|(address, kind, name)| {
        let answer = answer_of(&address);
        Asked { address, kind, name, answer }
    });
    asked.collect()
}

async fn network_status(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let asked = ask(ledger, "get status", call.positional("nodes")).await;
    if call.options.wants_json() {
        let rows = asked.iter().map(|node| {
            let (status, reason) = match &node.answer {
                Ok(_) => ("+", ""),
                Err(reason) => ("", reason.as_str()),
            };
            json!({"address": node.address, "type": node.kind, "name": node.name, "status": status, "reason": reason})
        });
        return Ok(Reply::Json(rows.collect()));
    }
    let mut headings = vec!["Address", "Node Type", "Node Name", "Status"];
    // A column of its own only when there is something to say.
    headings.extend(asked.iter().any(|node| node.answer.is_err()).then_some("Reason"));
    let mut table = Table::new(headings);
    for node in asked {
        let (status, reason) = match node.answer {
            Ok(_) => ("  +", String::new()),
            Err(reason) => ("", reason),
        };
        table.push([node.address, node.kind, node.name, status.to_owned(), reason]);
    }
    Ok(Reply::Table(table.max_width(session.node.output_width())))
}

async fn versions(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let mine = ledger.version();
    let mut table = Table::new(["Address", "Node Type", "Node Name", "Version", "Same"]);
    for node in ask(ledger, "get metadata version", None).await {
        let shown = node.answer.unwrap_or_else(|reason| format!("Failed: {reason}"));
        let same = (shown == mine).to_string();
        table.push([node.address, node.kind, node.name, shown, same]);
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}
