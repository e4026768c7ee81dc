//! The statements, each against the oracle.

use serde_json::Value;

use super::database::Rows;
use super::formats::{self, equal};
use super::harness::Answer;
use super::network::Network;
use super::statement::{Statement, read};

const FILES: [(&str, &str); 8] = [
    ("rows", include_str!("statements/rows.sql")),
    ("conditions", include_str!("statements/conditions.sql")),
    ("aggregates", include_str!("statements/aggregates.sql")),
    ("groups", include_str!("statements/groups.sql")),
    ("times", include_str!("statements/times.sql")),
    ("casts", include_str!("statements/casts.sql")),
    ("options", include_str!("statements/options.sql")),
    ("refused", include_str!("statements/refused.sql")),
];

/// Answers with more rows are asked once only.
const MANY: usize = 50_000;

/// Rows of `readings` in each cluster.
fn rows() -> u64 {
    std::env::var("ANYLOG_ORACLE_ROWS").map_or(3000, |rows| rows.parse().expect("a number of rows"))
}

#[test]
fn every_statement_has_the_answer_of_one_database() {
    // QRY-1
    let network = Network::start(rows());
    let only = std::env::var("ANYLOG_ORACLE_ONLY").unwrap_or_default();
    let mut failures = Vec::new();
    let mut asked = 0;
    for (name, text) in FILES {
        for (index, statement) in read(text).into_iter().enumerate() {
            if !statement.select.contains(&only) {
                continue;
            }
            asked += 1;
            for failure in check(&network, &statement, index) {
                eprintln!("{name} {}: {}\n  {failure}", index + 1, statement.select);
                failures.push(failure);
            }
        }
    }
    eprintln!("{asked} statements, {} differences", failures.len());
    assert!(failures.is_empty(), "{} of {asked} statements have other answers", failures.len());
    assert!(asked >= 300 || !only.is_empty(), "{asked} statements");
}

/// What is wrong with the answers to a statement.
fn check(network: &Network, statement: &Statement, index: usize) -> Vec<String> {
    let select = statement.select.as_str();
    let and = |more: &str| match statement.options.as_str() {
        "" => more.to_owned(),
        options => format!("{more} and {options}"),
    };
    let zone = if statement.options.contains("timezone") { "" } else { "timezone = utc and " };
    let stat = index.is_multiple_of(2);
    if !statement.refused.is_empty() {
        return refused(statement, &network.ask(&and("stat = true"), select, &[]));
    }
    let over_rest = network.ask(&and(&format!("{zone}format = json and stat = {stat}")), select, &[]);
    let truths: Vec<&str> = statement.truths.iter().map(String::as_str).collect();
    let expected = network.oracle.rows(&statement.oracle, &truths);
    let mut failures = Vec::new();
    let mut note =
        |way: &str, result: Result<(), String>| failures.extend(result.err().map(|error| format!("{way}: {error}")));
    note("REST", in_json(statement, "json", Some(stat), &over_rest, &expected));

    if expected.rows.len() > MANY {
        return failures;
    }
    let format = ["json:list", "table", "json:output"][index % 3];
    let options = and(&format!("{zone}format = {format} and stat = true"));
    let quote = quote(select);
    let by_command = network.query.request(
        "GET",
        &[&format!("command: run client () sql plant {options} {quote}{select}{quote}")],
        "",
    );
    match format {
        "table" => note("table", in_table(statement, &by_command, &expected)),
        _ => note(format, in_json(statement, format, Some(true), &by_command, &expected)),
    }
    if statement.is_plain() {
        let local = format!("command: sql plant {zone}format = json and stat = false {quote}{select}{quote}");
        let answer = network.operators[0].request("GET", &[&local], "");
        let expected = network.first.rows(&statement.oracle, &truths);
        note("one operator", in_json(statement, "json", None, &answer, &expected));
    }
    failures
}

/// The quotes around a statement; one that holds such itself goes without.
pub(crate) fn quote(select: &str) -> &'static str {
    if select.contains('"') { "" } else { "\"" }
}

fn refused(statement: &Statement, answer: &Answer) -> Vec<String> {
    let says = |text: &&String| !answer.body.contains(text.as_str());
    let missing: Vec<&String> = statement.refused.iter().filter(says).collect();
    if answer.status >= 400 && missing.is_empty() {
        return Vec::new();
    }
    vec![format!("must be refused with {missing:?}, is {} {}", answer.status, answer.body)]
}

fn in_json(
    statement: &Statement,
    format: &str,
    with_statistics: Option<bool>,
    answer: &Answer,
    expected: &Rows,
) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.body));
    }
    let read = formats::json(format, &answer.body)?;
    if with_statistics == Some(true) {
        let count = read.statistics.as_ref().map(|statistics| statistics[0]["Count"].clone());
        if count != Some(expected.rows.len().into()) {
            return Err(format!("statistics {:?} for {} rows", read.statistics, expected.rows.len()));
        }
    } else if read.statistics.is_some() {
        return Err(format!("statistics {:?}", read.statistics));
    }
    same(statement, read.rows, expected.clone())
}

fn same(statement: &Statement, mut found: Rows, mut expected: Rows) -> Result<(), String> {
    if found.rows.len() != expected.rows.len() {
        return Err(format!("{} rows instead of {}: {:?}", found.rows.len(), expected.rows.len(), found.rows.first()));
    }
    if !found.rows.is_empty() && found.names != expected.names {
        return Err(format!("columns {:?} instead of {:?}", found.names, expected.names));
    }
    if !statement.ordered() {
        sort(&mut found.rows);
        sort(&mut expected.rows);
    }
    for (at, (found, expected)) in found.rows.iter().zip(&expected.rows).enumerate() {
        if !found.iter().zip(expected).all(|(found, expected)| equal(found, expected)) {
            return Err(format!("row {at} is {found:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// Rows without an order of their own: by what is exact first, then by floats to some digits.
fn sort(rows: &mut [Vec<Value>]) {
    rows.sort_by_cached_key(|row| {
        let exact: Vec<String> = row.iter().filter(|value| !value.is_f64()).map(Value::to_string).collect();
        let floats = row.iter().filter(|value| value.is_f64()).filter_map(Value::as_f64);
        let floats: Vec<String> = floats.map(|float| format!("{float:.10e}")).collect();
        (exact, floats)
    });
}

fn in_table(statement: &Statement, answer: &Answer, expected: &Rows) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.body));
    }
    if expected.rows.is_empty() {
        return if answer.body.contains("\"Count\": 0") { Ok(()) } else { Err(answer.body.clone()) };
    }
    let (names, mut found) = formats::text_table(&answer.body);
    // Floats may differ in their last digits: only the other values are compared as texts.
    let float = |row: &[Value], at: usize| row.get(at).is_some_and(Value::is_f64);
    let mut wanted: Vec<Vec<String>> =
        expected.rows.iter().map(|row| row.iter().map(formats::shown).collect()).collect();
    let shown = names.len() - expected.names.len();
    if names[shown..] != expected.names[..] {
        return Err(format!("titles {names:?} instead of {:?}", expected.names));
    }
    if found.len() != wanted.len() {
        return Err(format!("{} lines instead of {}", found.len(), wanted.len()));
    }
    found.iter_mut().for_each(|row| drop(row.drain(..shown)));
    if statement.ordered() {
        for ((row, found), wanted) in expected.rows.iter().zip(&found).zip(&wanted) {
            let differs = (0..wanted.len()).find(|at| !float(row, *at) && found[*at] != wanted[*at]);
            if let Some(at) = differs {
                return Err(format!("'{}' instead of '{}' in {found:?}", found[at], wanted[at]));
            }
        }
    } else {
        let exact = |rows: &mut Vec<Vec<String>>| {
            rows.iter_mut().flatten().for_each(|cell| {
                if cell.contains('.') && cell.parse::<f64>().is_ok() {
                    *cell = format!("{:.6e}", cell.parse::<f64>().unwrap());
                }
            });
            rows.sort();
        };
        exact(&mut found);
        exact(&mut wanted);
        if let Some((found, wanted)) = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted) {
            return Err(format!("{found:?} instead of {wanted:?}"));
        }
    }
    Ok(())
}
