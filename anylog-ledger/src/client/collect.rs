//! Answers that are collected in a parameter while they arrive: `name[] = run client ...`, `name{} = run client ...`.

use std::collections::HashMap;

use anylog_core::reply::json;
use anylog_core::{Dictionary, Session};
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::Answer;

/// Which call fills which parameter: the latest, so that late answers of an earlier one change nothing.
#[derive(Debug, Default)]
pub(crate) struct Collections {
    latest: Mutex<HashMap<String, u64>>,
}

/// The most parameters that are remembered to be collections.
const MOST: usize = 10_000;

impl Collections {
    /// Begins a collection; the number tells it from later ones of the same name.
    fn begin(&self, name: &str) -> u64 {
        let mut latest = self.latest.lock();
        if latest.len() >= MOST {
            latest.clear();
        }
        let number = latest.values().max().map_or(0, |number| number + 1);
        latest.insert(name.to_owned(), number);
        number
    }

    /// Writes a collection unless a later one of the same name began.
    fn write(&self, dictionary: &Dictionary, name: &str, number: u64, text: String) -> bool {
        let latest = self.latest.lock();
        let is_latest = latest.get(name) == Some(&number);
        if is_latest {
            dictionary.set(name, text);
        }
        is_latest
    }
}

/// Answers by node, in the order of the destination; `null` for a node that did not answer yet.
struct Collection {
    object: bool,
    answers: Vec<(String, Value)>,
}

impl Collection {
    fn text(&self) -> String {
        let value = if self.object {
            Value::Object(self.answers.iter().cloned().collect::<Map<String, Value>>())
        } else {
            let pair = |(node, reply): &(String, Value)| Value::Array(vec![Value::from(node.as_str()), reply.clone()]);
            Value::Array(self.answers.iter().map(pair).collect())
        };
        json::text(&value)
    }
}

/// Collects answers in the parameter `name`, which ends in `[]` or `{}`, in the background. The parameter names all nodes at once,
/// each with its answer when that has arrived; the answer of a node that fails stays `null`.
pub(crate) fn collect(
    session: &Session,
    ledger: &std::sync::Arc<crate::Ledger>,
    name: &str,
    nodes: &[String],
    answers: impl Stream<Item = Answer> + Send + 'static,
) {
    let (node, ledger, thread) =
        (std::sync::Arc::clone(&session.node), std::sync::Arc::clone(ledger), session.thread.clone());
    let object = name.ends_with("{}");
    let name = name.trim_end_matches("[]").trim_end_matches("{}").to_owned();
    let mut collection = Collection { object, answers: nodes.iter().map(|node| (node.clone(), Value::Null)).collect() };
    let number = ledger.collections.begin(&name);
    ledger.collections.write(&node.dictionary, &name, number, collection.text());
    let collecting = async move {
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            match answer.reply {
                Ok(text) => {
                    let reply = match serde_json::from_str(&text) {
                        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
                        _ => Value::from(text),
                    };
                    if let Some(slot) = collection.answers.iter_mut().find(|(node, _)| *node == answer.node) {
                        slot.1 = reply;
                    }
                    if !ledger.collections.write(&node.dictionary, &name, number, collection.text()) {
                        return;
                    }
                }
                Err(error) => node.errors.add(node.clock.now(), &thread, "run client", error.to_string()),
            }
        }
    };
    tokio::spawn(collecting);
}
