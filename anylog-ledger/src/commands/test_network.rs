//! `test network`: who answers, and with which version of the ledger.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Command, CommandResult, Declaration, Invocation, Reply, Session, Table, command};
use futures_util::StreamExt;

use crate::Ledger;
use crate::client::Answer;

/// How long a node may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The types of policies that are nodes.
const NODES: [&str; 4] = ["master", "operator", "query", "publisher"];

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let network = Declaration::new("test network", "Asks all nodes of the ledger whether they are there.")
        .reads()
        .format_option()
        .returns("each node: address, type, name, and its status or why there is none")
        .example("test network");
    let version = Declaration::new(
        "test network metadata version",
        "Asks all nodes of the ledger for the version of their copy.",
    )
    .reads()
    .format_option()
    .returns("each node: address, type, name, its version, and whether that is this node's")
    .example("test network metadata version");
    vec![
        command(network, Arc::clone(ledger), |ledger, session, call| {
            Box::pin(test(ledger, session, call, "get status", false))
        }),
        command(version, Arc::clone(ledger), |ledger, session, call| {
            Box::pin(test(ledger, session, call, "get metadata version", true))
        }),
    ]
}

async fn test(ledger: &Ledger, _: &mut Session, call: Invocation, question: &str, versions: bool) -> CommandResult {
    let own = ledger.own_addresses();
    let mut nodes: Vec<(String, String, String)> = Vec::new();
    for policy in NODES.iter().flat_map(|kind| ledger.policies(kind)) {
        if let Some(address) = own.reach(&policy)
            && !nodes.iter().any(|(known, ..)| *known == address)
        {
            nodes.push((address, policy.kind().to_owned(), policy.shown("name").unwrap_or_default()));
        }
    }
    let addresses: Vec<String> = nodes.iter().map(|(address, ..)| address.clone()).collect();
    let answers: Vec<Answer> = ledger.ask_nodes(&addresses, question, DEADLINE).collect().await;
    let mine = ledger.version();
    let mut table = match versions {
        true => Table::new(["Address", "Node Type", "Node Name", "Version", "Same"]),
        false => Table::new(["Address", "Node Type", "Node Name", "Status"]),
    };
    for (address, kind, name) in nodes {
        let answer = answers.iter().find(|answer| answer.node == address).map(|answer| &answer.reply);
        let shown = match answer {
            Some(Ok(text)) => text.trim().trim_matches('"').to_owned(),
            Some(Err(error)) => format!("Failed: {}", error.message),
            None => "Failed: not asked".to_owned(),
        };
        let same = shown == mine;
        let mut row = vec![address, kind, name, shown];
        if versions {
            row.push(same.to_string());
        }
        table.push(row);
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}
