//! `test cluster data`: the members' data side by side.

use std::collections::{BTreeMap, BTreeSet};

use anylog_core::time::policy_date;
use anylog_core::{CommandError, CommandResult, Invocation, Session, Table};
use anylog_dbms::TsdFilter;
use serde_json::{Value, json};

use super::setup::{ask_all, with_silent};
use super::{heading, member, own};
use crate::OperatorService;
use crate::replica::repair::{Agreement, mates};
use crate::tables::blocking;

/// Files and rows by table.
type Sums = BTreeMap<String, (i64, i64)>;

pub(super) async fn data(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let own = own(service)?;
    let mates = mates(service.ledger(), &own);
    let mut question = "get tsd summary where table = * and complete = true and format = json".to_owned();
    for key in ["start_date", "end_date"] {
        if let Some(date) = call.options.date(key) {
            question.push_str(&format!(" and {key} = \"{}\"", policy_date(date)));
        }
    }
    let ours = ours(service, &call).await?;
    let (answers, silent) = ask_all(service, &mates, &question).await;
    let mut members: BTreeMap<i64, Sums> = [(own.member, ours)].into();
    members.extend(answers.iter().map(|(member, answer)| (*member, sums(answer))));
    let digests = match call.options.text("detail") {
        Some(_) => Some(member(service)?.agreement().await?),
        None => None,
    };
    let mut headings = vec!["Table".to_owned(), heading(own.member, &own.address())];
    headings.extend(mates.iter().map(|mate| heading(mate.member, &mate.address)));
    headings.push("Same".to_owned());
    headings.extend(digests.is_some().then(|| "Digest".to_owned()));
    let mut shown = Table::new(headings).title("Files/Rows");
    let mut values = Vec::new();
    let tables: BTreeSet<&String> = members.values().flat_map(BTreeMap::keys).collect();
    for table in tables {
        let of = |member: i64| members.get(&member).map(|sums| sums.get(table).copied().unwrap_or_default());
        let same = members
            .values()
            .all(|sums| sums.get(table).copied().unwrap_or_default() == of(own.member).unwrap_or_default());
        let numbers = std::iter::once(own.member).chain(mates.iter().map(|mate| mate.member));
        let cell = |member: i64| of(member).map_or_else(|| "?".to_owned(), |(files, rows)| format!("{files}/{rows}"));
        let mut cells: Vec<String> = std::iter::once(table.clone()).chain(numbers.map(cell)).collect();
        cells.push(if same { "+" } else { "-" }.to_owned());
        let digest = digests.as_ref().map(|digests| digest_of(digests, table));
        cells.extend(digest.clone());
        shown.push(cells);
        let held = members.iter().map(|(member, sums)| {
            let (files, rows) = sums.get(table).copied().unwrap_or_default();
            (member.to_string(), json!({"files": files, "rows": rows}))
        });
        let held: serde_json::Map<String, Value> = held.collect();
        values.push(json!({"table": table, "members": held, "same": same, "digest": digest}));
    }
    Ok(with_silent(session, &call, shown, "tables", Value::Array(values), &silent))
}

fn digest_of(digests: &BTreeMap<String, Agreement>, table: &str) -> String {
    match digests.get(table) {
        None => "not compared".to_owned(),
        Some(Agreement { differs, unknown }) if differs.is_empty() && unknown.is_empty() => "equal".to_owned(),
        Some(Agreement { differs, unknown }) => {
            let named = |members: &[i64]| members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let mut texts = Vec::new();
            if !differs.is_empty() {
                texts.push(format!("differs: {}", named(differs)));
            }
            if !unknown.is_empty() {
                texts.push(format!("no answer: {}", named(unknown)));
            }
            texts.join("; ")
        }
    }
}

/// What this node has.
async fn ours(service: &OperatorService, call: &Invocation) -> Result<Sums, CommandError> {
    let catalog = std::sync::Arc::clone(service.ledger().catalog());
    let filter = TsdFilter {
        start: call.options.date("start_date"),
        end: call.options.date("end_date"),
        complete: true,
        ..TsdFilter::default()
    };
    let sums = blocking(move || {
        let mut sums = Sums::new();
        let Some(store) = catalog.tsd().filter(|store| store.exists()) else {
            return Ok::<_, crate::OperatorError>(sums);
        };
        for table in store.tables()? {
            for sum in store.summary(&table, &filter)? {
                let known = sums.entry(format!("{}.{}", sum.dbms, sum.table)).or_default();
                *known = (known.0 + sum.files, known.1 + sum.rows);
            }
        }
        Ok(sums)
    });
    Ok(sums.await?)
}

/// What a mate answered.
fn sums(answer: &Value) -> Sums {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let tables = answer.as_object().into_iter().flatten();
    tables.map(|(table, sum)| (table.clone(), (number(&sum["files"]), number(&sum["rows"])))).collect()
}
