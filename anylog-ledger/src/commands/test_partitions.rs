//! `test cluster partitions`: whether the members of this node's cluster split their tables alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Reply, Session, Status, Table, command,
};
use anylog_dbms::Partitioning;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::{Ledger, OperatorNode};

/// How long a member may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// What a member is asked.
const QUESTION: &str = "get partitions where format=json";

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let declaration = Declaration::new(
        "test cluster partitions",
        "Compares how the members of this node's cluster split their tables.",
    )
    .reads()
    .format_option()
    .returns(
        "a row per declaration with a + for each member that splits the table so, and the members that did not answer; a table that has \
         several rows is split in several ways",
    )
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
    let mut members = vec![Member { number: own.member, address: own.address(), declared: Ok(ours(ledger)) }];
    for member in others {
        let address = member.address();
        let answer = answers.iter().find(|answer| answer.node == address);
        let declared = match answer.map(|answer| &answer.reply) {
            Some(Ok(text)) => declared(text),
            Some(Err(error)) => Err(error.message.clone()),
            None => Err("not asked".to_owned()),
        };
        members.push(Member { number: member.member, address, declared });
    }
    let shown = compared(&members);
    let silent: Vec<String> = members
        .iter()
        .filter_map(|member| {
            Some(format!("Node_{} ({}): {}", member.number, member.address, member.declared.as_ref().err()?))
        })
        .collect();
    if call.options.wants_json() {
        return Ok(Reply::Json(json!({"partitions": rows(&members), "no_answer": silent})));
    }
    if silent.is_empty() {
        return Ok(Reply::Table(shown));
    }
    Ok(Reply::Text(format!("{shown}\r\nNo answer:\r\n{}\r\n", silent.join("\r\n"))))
}

/// A member of the cluster and what it declared; this node is the first.
struct Member {
    number: i64,
    address: String,
    declared: Declared,
}

impl Member {
    /// Whether it declared this; none when it did not answer.
    fn has(&self, table: &str, partition: &str) -> Option<bool> {
        Some(self.declared.as_ref().ok()?.get(table).is_some_and(|declared| declared == partition))
    }
}

/// All declarations.
fn declarations(members: &[Member]) -> BTreeSet<(&String, &String)> {
    members.iter().filter_map(|member| member.declared.as_ref().ok()).flatten().collect()
}

fn compared(members: &[Member]) -> Table {
    let mut headings = vec!["Table".to_owned(), "Partition".to_owned()];
    headings.extend(members.iter().map(|member| format!("Node_{}\n{}", member.number, member.address)));
    let mut shown = Table::new(headings);
    for (table, partition) in declarations(members) {
        let mut cells = vec![table.clone(), partition.clone()];
        cells.extend(members.iter().map(|member| match member.has(table, partition) {
            Some(true) => "+".to_owned(),
            Some(false) => String::new(),
            None => "?".to_owned(),
        }));
        shown.push(cells);
    }
    shown
}

fn rows(members: &[Member]) -> Value {
    let row = |(table, partition): (&String, &String)| {
        let has: Vec<i64> = members
            .iter()
            .filter(|member| member.has(table, partition) == Some(true))
            .map(|member| member.number)
            .collect();
        let same = members.iter().all(|member| member.has(table, partition) != Some(false));
        json!({"table": table, "partition": partition, "members": has, "same": same})
    };
    declarations(members).into_iter().map(row).collect()
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
        let member = |number: i64, declared| Member { number, address: format!("10.0.0.{number}:32148"), declared };
        let members = [
            member(1, Ok(ours)),
            member(2, declared(answer)),
            member(3, declared("no JSON")),
            member(4, declared("{}")),
        ];
        let shown = compared(&members).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("Table  Partition"), "{shown}");
        assert!(lines[1].contains("Node_4") && lines[2].contains("10.0.0.4:32148"), "{shown}");
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(lines[4]), ["test.*", "14 days of insert_timestamp", "+", "+", "?", "", ""]);
        assert_eq!(cells(lines[5]), ["test.t", "1 month of timestamp", "+", "", "?", "", ""]);
        assert_eq!(
            rows(&members).to_string(),
            r#"[{"table":"test.*","partition":"14 days of insert_timestamp","members":[1,2],"same":false},{"table":"test.t","partition":"1 month of timestamp","members":[1],"same":false}]"#
        );
        assert!(rows(&members[..3])[0]["same"].as_bool().is_some_and(|same| same));
    }

    #[test]
    fn a_unit_reads_as_it_is_declared() {
        let value = Partitioning { column: "ts".into(), count: 1, unit: anylog_dbms::PartitionUnit::Day };
        let answer = r#"{"d.t": {"count": 1, "unit": "day", "column": "ts"}}"#;
        let read = declared(answer).ok().and_then(|mut declared| declared.remove("d.t"));
        assert_eq!(read, Some(format!("{} of {}", value.interval(), value.column)));
    }
}
