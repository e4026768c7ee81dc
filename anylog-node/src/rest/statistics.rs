//! Who called the REST server how often: `get rest calls`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use anylog_core::{Table, time};
use jiff::Timestamp;
use parking_lot::Mutex;

/// Agents that are counted by name; those after them are counted together.
const MOST_AGENTS: usize = 64;

/// The name under which further agents are counted.
const OTHERS: &str = "(others)";

/// The longest error and the longest agent name that are kept.
const LONGEST_TEXT: usize = 80;

#[derive(Debug, Clone)]
struct Calls {
    processed: u64,
    errors: u64,
    last_error: String,
    first: Timestamp,
    last: Timestamp,
    last_caller: SocketAddr,
}

/// Counters by agent and method, in the order of their first calls.
#[derive(Debug, Default)]
pub(super) struct CallStatistics(Mutex<Vec<((String, String), Calls)>>);

impl CallStatistics {
    /// Counts one call.
    pub(super) fn note(&self, agent: &str, method: &str, caller: SocketAddr, now: Timestamp, error: Option<String>) {
        let mut calls = self.0.lock();
        let (agent, method) = (cut(agent), cut(method));
        let place = |calls: &[((String, String), Calls)], agent: &str, method: &str| {
            calls.iter().position(|((known, way), _)| known == agent && way == method)
        };
        let known = place(&calls, &agent, &method);
        let known = known.or_else(|| (calls.len() >= MOST_AGENTS).then(|| place(&calls, OTHERS, "*")).flatten());
        let place = known.unwrap_or_else(|| {
            let key = match calls.len() >= MOST_AGENTS {
                true => (OTHERS.to_owned(), "*".to_owned()),
                false => (agent.into_owned(), method.into_owned()),
            };
            let (errors, last_error) = (0, String::new());
            calls.push((key, Calls { processed: 0, errors, last_error, first: now, last: now, last_caller: caller }));
            calls.len() - 1
        });
        let entry = &mut calls[place].1;
        entry.processed += 1;
        entry.last = now;
        entry.last_caller = caller;
        if let Some(error) = error {
            entry.errors += 1;
            entry.last_error = cut(&error).into_owned();
        }
    }

    /// The documented table.
    pub(super) fn table(&self, title: String) -> Table {
        let headings =
            ["Caller", "Call", "Processed", "Errors", "Last Error", "First Call", "Last Call", "Last Caller"];
        let mut table = Table::new(headings).title(title);
        let mut shown = String::new();
        let calls = self.0.lock();
        let sorted: BTreeMap<&(String, String), &Calls> = calls.iter().map(|(key, calls)| (key, calls)).collect();
        for ((agent, method), calls) in sorted {
            let caller = if *agent == shown { "" } else { agent.as_str() };
            table.push([
                caller.to_owned(),
                method.clone(),
                calls.processed.to_string(),
                calls.errors.to_string(),
                calls.last_error.clone(),
                to_seconds(calls.first),
                to_seconds(calls.last),
                calls.last_caller.to_string(),
            ]);
            shown.clone_from(agent);
        }
        table
    }
}

fn to_seconds(time: Timestamp) -> String {
    time::stored(time).chars().take("YYYY-MM-DD HH:MM:SS".len()).collect()
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_TEXT {
        return Cow::Borrowed(text);
    }
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => Cow::Owned(text[..end].to_owned()),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_agent_and_method_within_a_bound() {
        let statistics = CallStatistics::default();
        let caller = SocketAddr::from(([127, 0, 0, 1], 9));
        let now = Timestamp::UNIX_EPOCH;
        statistics.note("anylog", "GET", caller, now, None);
        statistics.note("anylog", "GET", caller, now, Some("broken".into()));
        for n in 0..1000 {
            statistics.note(&format!("agent{n}"), "GET", caller, now, None);
        }
        let table = statistics.table("title".into());
        assert_eq!(table.len(), MOST_AGENTS + 1); // R23
        let text = table.to_string();
        assert!(text.contains("broken") && text.contains("1970-01-01 00:00:00|") && text.contains(OTHERS), "{text}");
    }
}
