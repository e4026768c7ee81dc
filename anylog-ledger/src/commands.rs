//! The commands of the ledger: thin adapters over the Rust API.
//!
//! | module | commands |
//! |---|---|
//! | [`mod@read`] | `blockchain get`, `read`, `get id`, `test`, `wait`, `query metadata`, `get policies diff` |
//! | [`mod@write`] | `blockchain prepare`, `insert`, `add`, `delete`, `update file`, `delete local file`, ...; `create policy` |
//! | [`mod@table`] | what a master does with its table: `blockchain push`, `replace`, `drop`, `pull`, `update dbms` |
//! | [`mod@sync`] | `run blockchain sync`, `exit synchronizer`, `get synchronizer`, `get metadata version` |
//! | [`mod@show`] | `get data nodes`, `get cluster info`, `get members status`, `get virtual tables`, `get network databases` |
//! | [`mod@client`] | `run client` |
//! | [`mod@files`] | `file get`, `file copy` between nodes |
//! | [`mod@config`] | `config from policy`, `get config policies` |

pub mod client;
pub mod config;
pub mod files;
pub mod read;
pub mod show;
pub mod sync;
pub mod table;
mod test_network;
mod test_partitions;
pub mod write;

use std::sync::Arc;

use anylog_core::language::expand::value_of_text;
use anylog_core::{Command, CommandError, Declaration, Session, command, json_text};
use serde_json::Value;

use crate::{Ledger, LedgerError, Policy};

/// All commands of the ledger.
#[must_use]
pub fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let mut all = read::commands(ledger);
    all.extend(write::commands(ledger));
    all.extend(table::commands(ledger));
    all.extend(sync::commands(ledger));
    all.extend(show::commands(ledger));
    all.extend(config::commands(ledger));
    all.extend(client::commands(ledger));
    all.extend(files::commands(ledger));
    all.extend(test_network::commands(ledger));
    all.extend(test_partitions::commands(ledger));
    all.extend(platforms(ledger));
    all
}

/// The JSON that an argument of a command stands for: a text, or a reference to one. References inside are expanded.
fn json_argument(session: &Session, text: &str) -> Result<Value, CommandError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(CommandError::structure("Missing policy in the command").hint("name it: !new_policy"));
    }
    let value = value_of_text(&session.node, text).to_string();
    if value.is_empty() {
        return Err(CommandError::structure(format!("Missing dictionary definition for: '{text}'")));
    }
    json_text::read(&session.node, &value)
}

/// The policy that an argument stands for.
fn policy_argument(session: &Session, text: &str) -> Result<Policy, CommandError> {
    Ok(Policy::from_value(json_argument(session, text)?)?)
}

/// All policies that an argument stands for: one, or a list of them.
fn policies_argument(session: &Session, text: &str) -> Result<Vec<Policy>, CommandError> {
    let policies: Result<Vec<Policy>, LedgerError> = match json_argument(session, text)? {
        Value::Array(list) => list.into_iter().map(Policy::from_value).collect(),
        one => Policy::from_value(one).map(|policy| vec![policy]),
    };
    Ok(policies?)
}

/// The address of who sent a command, as the master notes it.
fn host(session: &Session) -> String {
    match session.caller.address {
        Some(address) => address.ip().to_string(),
        None => session.node.address().rsplit_once(':').map(|(ip, _)| ip.to_owned()).unwrap_or_default(),
    }
}

/// `true` or nothing for `x = blockchain add ...`, whose caller tests it; else the warnings.
fn done(assigned: bool, warnings: &[String]) -> anylog_core::Reply {
    if assigned {
        return anylog_core::Reply::Text("true".to_owned());
    }
    if warnings.is_empty() { anylog_core::Reply::Empty } else { anylog_core::Reply::Text(warnings.join("\n")) }
}

/// Blockchain platforms are not part of this node; their commands say so and what there is instead.
fn platforms(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let declare = |words, summary| {
        command(
            Declaration::new(words, summary).grammar("...").returns("an error: this node's ledger is held by a master"),
            Arc::clone(ledger),
            |_: &Ledger, _, call| {
                Box::pin(async move {
                    Err(CommandError::new(
                        anylog_core::Status::BLOCKCHAIN_OPERATION,
                        format!("No blockchain platform is connected for '{}'", call.source),
                    )
                    .hint(
                        "use a master node: blockchain insert where policy = !p and local = true and master = ip:port",
                    ))
                })
            },
        )
    };
    vec![
        declare("blockchain commit", "Writes a policy to a blockchain platform."),
        declare("blockchain update to", "Updates a policy on a blockchain platform."),
        declare("blockchain connect to", "Connects to a blockchain platform."),
        declare("blockchain set account info", "Sets the account on a blockchain platform."),
        declare("blockchain deploy contract", "Deploys the contract on a blockchain platform."),
    ]
}
