//! `test cluster partitions`: whether the members of this node's cluster split their tables alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Reply, Session, Status, Table, command,
};
use anylog_dbms::Partitioning;
use futures_util::StreamExt;
use serde_json::Value;

use crate::client::Answer;
use crate::{Ledger, OperatorNode};

/// How long a member may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a member is asked.
const QUESTION: &str = "get partitions where format=json";

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let declaration = Declaration::new(
        "test cluster partitions",
        "Compares how the members of this node's cluster split their tables.",
    )
    .reads()
    .format_option()
    .returns("a row per declaration and member: how it splits the table, and whether this node does the same")
    .example("test cluster partitions");
    vec![command(declaration, Arc::clone(ledger), |ledger, session, call| Box::pin(test(ledger, session, call)))]
}

/// Declarations of a member by `dbms.table`, or why they are not known.
type Declared = Result<BTreeMap<String, String>, String>;

async fn test(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let own = own(ledger)?;
    let view = ledger.view();
    let others: Vec<OperatorNode> =
        view.operators_of(&own.cluster).filter(|member| member.id != own.id).cloned().collect();
    let addresses: Vec<String> = others.iter().map(OperatorNode::address).collect();
    let answers: Vec<Answer> = ledger.ask_nodes(&addresses, QUESTION, DEADLINE).collect().await;
    let mut members = vec![Member { name: own.name.clone(), address: own.address(), declared: Ok(ours(ledger)) }];
    for member in others {
        let address = member.address();
        let answer = answers.iter().find(|answer| answer.node == address);
        let declared = match answer.map(|answer| &answer.reply) {
            Some(Ok(text)) => declared(text),
            Some(Err(error)) => Err(error.message.clone()),
            None => Err("not asked".to_owned()),
        };
        members.push(Member { name: member.name, address, declared });
    }
    let shown = compared(&members);
    Ok(if call.options.wants_json() { Reply::Json(shown.to_json()) } else { Reply::Table(shown) })
}

/// A member of the cluster and what it declared; this node is the first.
struct Member {
    name: String,
    address: String,
    declared: Declared,
}

fn compared(members: &[Member]) -> Table {
    let mut shown = Table::new(["Table", "Node", "Address", "Partition", "Same"]);
    let known: Vec<&BTreeMap<String, String>> =
        members.iter().filter_map(|member| member.declared.as_ref().ok()).collect();
    let tables: BTreeSet<&String> = known.iter().flat_map(|declared| declared.keys()).collect();
    let of = |declared: &BTreeMap<String, String>, table: &String| {
        declared.get(table).cloned().unwrap_or_else(|| "not declared".to_owned())
    };
    for table in tables {
        let ours = known.first().map(|declared| of(declared, table));
        for member in members {
            let Ok(declared) = &member.declared else { continue };
            let partition = of(declared, table);
            let same = ours.as_ref() == Some(&partition);
            shown.push([table.clone(), member.name.clone(), member.address.clone(), partition, same.to_string()]);
        }
    }
    for member in members {
        if let Err(reason) = &member.declared {
            let failed = format!("Failed: {reason}");
            shown.push([String::new(), member.name.clone(), member.address.clone(), failed, false.to_string()]);
        }
    }
    shown
}

fn ours(ledger: &Ledger) -> BTreeMap<String, String> {
    let declared = ledger.catalog().partitionings();
    let shown = |value: &Partitioning| format!("{} of {}", value.interval(), value.column);
    declared.iter().map(|(dbms, table, value)| (format!("{dbms}.{table}"), shown(value))).collect()
}

/// The operator that this node is: the one that runs, else the one at its address.
fn own(ledger: &Ledger) -> Result<OperatorNode, CommandError> {
    let at_address = || ledger.view().operator_at(&ledger.node().address()).cloned();
    ledger.own_operator().or_else(at_address).ok_or_else(|| {
        CommandError::new(Status::NO_TABLE_METADATA, "This node is no member of a cluster")
            .hint("declare its operator policy: blockchain insert where policy = ...")
    })
}

/// What a member answers to [`QUESTION`].
fn declared(answer: &str) -> Declared {
    let answer: Value = serde_json::from_str(answer.trim()).map_err(|error| format!("it answered no JSON: {error}"))?;
    let object = answer.as_object().ok_or("it answered no JSON object")?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let shown =
        |value: &Value| format!("{} {} of {}", text(&value["count"]), text(&value["unit"]), text(&value["column"]));
    Ok(object.iter().map(|(table, value)| (table.clone(), shown(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ_are_shown() {
        let answer = r#"{"test.*": {"count": 14, "unit": "days", "column": "insert_timestamp"}}"#;
        let ours: BTreeMap<String, String> = [
            ("test.*".to_owned(), "14 days of insert_timestamp".to_owned()),
            ("test.t".to_owned(), "1 month of timestamp".to_owned()),
        ]
        .into();
        let member = |name: &str, declared| Member { name: name.into(), address: format!("{name}:1"), declared };
        let members = [
            member("a", Ok(ours)),
            member("b", declared(answer)),
            member("c", declared("no JSON")),
            member("d", declared("{}")),
        ];
        let shown = compared(&members).to_json();
        let rows: Vec<String> = shown
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| {
                format!("{} {} {} {}", row["Table"], row["Node"], row["Partition"], row["Same"]).replace('"', "")
            })
            .collect();
        assert_eq!(
            rows[..6],
            [
                "test.* a 14 days of insert_timestamp true",
                "test.* b 14 days of insert_timestamp true",
                "test.* d not declared false",
                "test.t a 1 month of timestamp true",
                "test.t b not declared false",
                "test.t d not declared false",
            ]
        );
        assert!(rows[6].starts_with(" c Failed: it answered no JSON"), "{rows:?}");
    }

    #[test]
    fn a_unit_reads_as_it_is_declared() {
        let value = Partitioning { column: "ts".into(), count: 1, unit: anylog_dbms::PartitionUnit::Day };
        let answer = r#"{"d.t": {"count": 1, "unit": "day", "column": "ts"}}"#;
        let read = declared(answer).ok().and_then(|mut declared| declared.remove("d.t"));
        assert_eq!(read, Some(format!("{} of {}", value.interval(), value.column)));
    }
}
