//! `test cluster setup`, `test cluster databases`.

use std::collections::{BTreeMap, BTreeSet};

use anylog_core::{CommandResult, Invocation, Reply, Session, Table};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{heading, own};
use crate::OperatorService;
use crate::replica::repair::{Mate, PATIENCE, mates};

pub(super) async fn setup(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let own = own(service).ok();
    let status = service.replication().status();
    let state = service.state();
    let operator = match &state {
        Some(state) => {
            let flag = if state.config.distributor { "enabled" } else { "disabled" };
            format!("Running: distributor flag {flag}")
        }
        None => "Disabled".to_owned(),
    };
    let running = |runs: bool| if runs { "Running" } else { "Disabled" }.to_owned();
    let consumer = match status.consumer {
        Some(consumer) if !consumer.active => "Suspended".to_owned(),
        consumer => running(consumer.is_some()),
    };
    let catalog = std::sync::Arc::clone(service.ledger().catalog());
    let registry =
        crate::tables::blocking(move || Ok::<_, crate::OperatorError>(catalog.tsd().is_some_and(|tsd| tsd.exists())));
    let registry = if registry.await? { "Defined" } else { "Not Defined" }.to_owned();
    let of = |value: fn(&anylog_ledger::OperatorNode) -> String| {
        own.as_ref().map_or_else(|| "Not Defined".to_owned(), value)
    };
    let mut rows = vec![
        ("Operator", operator),
        ("Distributor", running(status.distributor)),
        ("Consumer", consumer),
        ("Operator Name", of(|own| own.name.clone())),
        ("Member ID", of(|own| own.member.to_string())),
        ("Cluster ID", of(|own| own.cluster.clone())),
        ("almgm.tsd_info", registry),
    ];
    if let Some(conflict) = &status.conflict {
        rows.push(("Conflict", conflict.clone()));
    }
    if call.options.wants_json() {
        let object: serde_json::Map<String, Value> =
            rows.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        return Ok(Reply::Json(Value::Object(object)));
    }
    let mut shown = Table::new(["Functionality", "Details"]);
    for (name, value) in rows {
        shown.push([name.to_owned(), value]);
    }
    Ok(Reply::Table(shown))
}

pub(super) async fn databases(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let own = own(service)?;
    let catalog = service.ledger().catalog();
    let ours: BTreeSet<String> = catalog.list().iter().map(|database| database.name().to_owned()).collect();
    let mates = mates(service.ledger(), &own);
    let (answers, silent) = ask_all(service, &mates, "get databases where format = json").await;
    let mut members: BTreeMap<i64, BTreeSet<String>> = [(own.member, ours)].into();
    for (member, answer) in answers {
        members.insert(member, answer.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default());
    }
    let all: BTreeSet<&String> = members.values().flatten().collect();
    let mut headings = vec!["DBMS".to_owned(), heading(own.member, &own.address())];
    headings.extend(mates.iter().map(|mate| heading(mate.member, &mate.address)));
    let mut shown = Table::new(headings);
    let mut values = Vec::new();
    for name in &all {
        let cell = |member: i64| match members.get(&member) {
            Some(has) if has.contains(*name) => "+",
            Some(_) => "",
            None => "?",
        };
        let numbers = std::iter::once(own.member).chain(mates.iter().map(|mate| mate.member));
        let cells: Vec<String> =
            std::iter::once((*name).clone()).chain(numbers.map(|member| cell(member).to_owned())).collect();
        shown.push(cells);
        let has: Vec<i64> = members.iter().filter(|(_, has)| has.contains(*name)).map(|(member, _)| *member).collect();
        values.push(json!({"dbms": name, "members": has, "same": has.len() == members.len()}));
    }
    Ok(with_silent(session, &call, shown, "databases", Value::Array(values), &silent))
}

/// Asks all mates the same. Their answers, which are JSON, and what the others failed with.
pub(super) async fn ask_all(
    service: &OperatorService,
    mates: &[Mate],
    question: &str,
) -> (Vec<(i64, Value)>, Vec<String>) {
    let addresses: Vec<String> = mates.iter().map(|mate| mate.address.clone()).collect();
    let answers: Vec<_> = service.ledger().ask_nodes(&addresses, question, PATIENCE).collect().await;
    let (mut given, mut silent) = (Vec::new(), Vec::new());
    for mate in mates {
        let answer = answers.iter().find(|answer| answer.node == mate.address).map(|answer| &answer.reply);
        let read = match answer {
            Some(Ok(text)) => {
                serde_json::from_str(text.trim()).map_err(|error| format!("it answered no JSON: {error}"))
            }
            Some(Err(error)) => Err(error.message.clone()),
            None => Err("it was not asked".to_owned()),
        };
        match read {
            Ok(value) => given.push((mate.member, value)),
            Err(reason) => silent.push(format!("Node_{} ({}): {reason}", mate.member, mate.address)),
        }
    }
    (given, silent)
}

/// A table with the members that gave no answer below it.
pub(super) fn with_silent(
    session: &Session,
    call: &Invocation,
    shown: Table,
    name: &str,
    values: Value,
    silent: &[String],
) -> Reply {
    if call.options.wants_json() {
        return Reply::Json(json!({name: values, "no_answer": silent}));
    }
    let table = shown.max_width(session.node.output_width());
    if silent.is_empty() {
        return Reply::Table(table);
    }
    Reply::Text(format!("{table}\r\nNo answer:\r\n{}\r\n", silent.join("\r\n")))
}
