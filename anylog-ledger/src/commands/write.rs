//! Commands that change the local copy.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Status, command,
};
use anylog_net::PeerRequest;
use serde_json::{Map, Value};

use super::{done, policies_argument, policy_argument};
use crate::ledger::blocking;
use crate::snapshot::Contents;
use crate::store::file::LedgerFile;
use crate::validate::{Members, validate};
use crate::{Destinations, Ledger, LedgerError, Policy};

/// The ports of `create policy <type> with defaults`: type, TCP port, REST port.
const DEFAULT_PORTS: &[(&str, u16, u16)] = &[
    ("master", 32_048, 32_049),
    ("operator", 32_148, 32_149),
    ("publisher", 32_248, 32_249),
    ("query", 32_348, 32_349),
];

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let mut commands = policies(ledger);
    commands.extend(copies(ledger));
    commands
}

fn policies(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain prepare policy", "Adds id and date to a policy that lacks them.")
                .adds_data()
                .grammar("<policy>")
                .returns("nothing when the policy is a parameter, which is changed; else the policy")
                .example("blockchain prepare policy !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(prepare(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain insert", "Writes a policy to the local copy and to masters.")
                .adds_data()
                .required("policy", OptionKind::Json, "the policy")
                .option("local", OptionKind::Bool, "write it to the local copy")
                .default_is("true")
                .repeated("master", OptionKind::Address, "a master node")
                .key_alias(&["master_node"])
                .repeated("blockchain", OptionKind::Text, "a blockchain platform")
                .returns("nothing, or what to know about a master that did not answer")
                .example("blockchain insert where policy = !new_policy and local = true and master = !ledger_conn"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(insert(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain add", "Adds policies to the local copy only.")
                .grammar("<policy | list of policies>")
                .returns("true when assigned")
                .example("blockchain add !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(add(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain delete policy", "Deletes a policy from the local copy and from masters.")
                .required("id", OptionKind::Text, "the id of the policy")
                .option("local", OptionKind::Bool, "delete it from the local copy")
                .default_is("true")
                .repeated("master", OptionKind::Address, "a master node")
                .key_alias(&["master_node"])
                .repeated("blockchain", OptionKind::Text, "a blockchain platform")
                .returns("nothing, or what to know about a master that did not answer")
                .example(
                    "blockchain delete policy where id = 64283dba96a4c818074d564c6be20d5c and master = !ledger_conn",
                ),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(delete(ledger, session, call)),
        ),
        command(
            Declaration::new("create policy", "Makes a policy from names and values.")
                .grammar("<type> [with defaults] where <name> = <value> and ...")
                .returns("the policy")
                .example("new_policy = create policy cluster where name = c1 and company = \"New Company\""),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(create_policy(ledger, session, call)),
        ),
    ]
}

fn copies(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain update file", "Takes a file of policies as the local copy.")
                .optional_word("file", "the file; blockchain.new beside the local copy when absent")
                .returns("nothing; an error names the policy that is not valid")
                .example("blockchain update file"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(update_file(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain delete local file", "Empties the local copy; synchronisation fills it again.")
                .returns("nothing")
                .example("blockchain delete local file"),
            Arc::clone(ledger),
            |ledger, _, _| Box::pin(replace_copy(ledger, Contents::default())),
        ),
        command(
            Declaration::new("blockchain seed from", "Takes the ledger of another node as the local copy.")
                .word("address", "ip:port of the other node's TCP server")
                .returns("the number of policies")
                .example("blockchain seed from 10.0.0.1:32048"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(seed_from(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain reload metadata", "Reads the local copy again.")
                .alias("blockchain load metadata")
                .returns("nothing; an error names what cannot be read")
                .example("blockchain reload metadata"),
            Arc::clone(ledger),
            |ledger, _, _| {
                Box::pin(async move {
                    ledger.reload().await?;
                    Ok(Reply::Empty)
                })
            },
        ),
    ]
}

async fn prepare(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let text = call.rest_text().trim();
    let policy = policy_argument(session, text)?.prepare(ledger.node().clock.as_ref());
    match text.strip_prefix('!').filter(|name| !name.is_empty() && call.assign_to.is_none()) {
        Some(name) => {
            session.node.dictionary.set(name, policy.to_json_text());
            Ok(Reply::Empty)
        }
        None => Ok(Reply::Json(policy.value().clone())),
    }
}

/// Where a write goes: locally unless `local = false`, and to every master named.
fn destinations(call: &Invocation) -> Result<Destinations, CommandError> {
    if let Some(platform) = call.options.text("blockchain") {
        let message = format!("No blockchain platform '{platform}' is connected");
        return Err(CommandError::new(Status::BLOCKCHAIN_OPERATION, message).hint("name a master: master = ip:port"));
    }
    let local = call.options.bool("local");
    let masters = call.options.texts("master");
    if local.is_none() && masters.is_empty() {
        return Err(LedgerError::NoDestination.into());
    }
    Ok(Destinations { local: local.unwrap_or(true), masters })
}

async fn insert(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let policy = policy_argument(session, &call.options.expect_text("policy")?)?;
    let written = ledger.write(policy, &destinations(&call)?).await?;
    Ok(done(call.assign_to.is_some(), &written.warnings))
}

async fn add(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    for policy in policies_argument(session, call.rest_text())? {
        ledger.add(policy).await?;
    }
    Ok(done(call.assign_to.is_some(), &[]))
}

async fn delete(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let warnings = ledger.delete(&call.options.expect_text("id")?, &destinations(&call)?).await?;
    Ok(done(call.assign_to.is_some(), &warnings))
}

async fn create_policy(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let words = call.rest();
    let wrong = || {
        CommandError::structure("A policy needs a type, names and values")
            .hint("create policy cluster where name = c1 and company = \"New Company\"")
    };
    let (kind, rest) = words.split_first().ok_or_else(wrong)?;
    let (defaults, rest) = match rest {
        [with, word, rest @ ..] if with.text == "with" && word.text == "defaults" => (true, rest),
        rest => (false, rest),
    };
    let [introducer, rest @ ..] = rest else { return Err(wrong()) };
    if introducer.text != "where" {
        return Err(wrong());
    }
    let mut inner = Map::new();
    for (name, value) in anylog_core::language::where_list::parse_any(&session.node, rest)?.iter() {
        if let anylog_core::command::OptionValue::Value(value) = value {
            inner.insert(name.to_owned(), typed(value));
        }
    }
    let kind = anylog_core::language::expand::value_of(&session.node, kind).to_string();
    if defaults {
        add_defaults(ledger, &kind, &mut inner);
    }
    let policy = validate(&Policy::new(kind, inner), ledger.snapshot().policies(), &Members::random())?;
    Ok(Reply::Json(policy.value().clone()))
}

fn typed(value: &anylog_core::command::Value) -> Value {
    use anylog_core::command::Value as Typed;
    match value {
        Typed::Int(value) => Value::from(*value),
        Typed::Float(value) => Value::from(*value),
        Typed::Bool(value) => Value::from(*value),
        Typed::Text(text) if text.starts_with(['[', '{']) => {
            anylog_core::json_text::parse(text).unwrap_or_else(|_| Value::from(text.as_str()))
        }
        Typed::Text(text) => Value::from(text.as_str()),
    }
}

/// Addresses and ports of the four node types; a port given as text becomes a number.
fn add_defaults(ledger: &Ledger, kind: &str, inner: &mut Map<String, Value>) {
    let Some((_, tcp, rest)) = DEFAULT_PORTS.iter().find(|(name, _, _)| *name == kind) else { return };
    let own = ledger.own_addresses();
    let defaults = [
        ("ip", own.external_ip.map(Value::from)),
        ("internal_ip", own.ip.map(Value::from)),
        ("port", Some(Value::from(*tcp))),
        ("rest_port", Some(Value::from(*rest))),
    ];
    for (name, value) in defaults {
        if let Some(value) = value {
            inner.entry(name).or_insert(value);
        }
    }
    for name in ["port", "rest_port", "member"] {
        if let Some(number) = inner.get(name).and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok()) {
            inner.insert(name.to_owned(), Value::from(number));
        }
    }
}

async fn update_file(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let path = match call.positional("file") {
        Some(path) => session.permit_path(path)?,
        None => LedgerFile::new(ledger.path()).sibling("new"),
    };
    let contents = blocking(move || LedgerFile::import(&path)).await?;
    replace_copy(ledger, contents).await
}

async fn replace_copy(ledger: &Ledger, contents: Contents) -> CommandResult {
    ledger.change(move |copy| copy.rewrite(contents)).await?;
    Ok(Reply::Empty)
}

async fn seed_from(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let address = call.expect_positional("address")?;
    let request = PeerRequest::Ledger { known_version: String::new() };
    let reply = ledger.peers.call(&address, request, Duration::from_secs(30)).await?;
    let anylog_net::PeerReply::Ledger { policies: Some(lines), .. } = reply else {
        return Err(CommandError::new(Status::NETWORK, format!("The node {address} did not send its ledger")));
    };
    let incoming = crate::sync::source::read_lines(&lines);
    let count = incoming.policies.len();
    if count == 0 {
        return Err(CommandError::new(Status::EMPTY_LEDGER_FILE, format!("The ledger of node {address} is empty")));
    }
    ledger
        .change(move |copy| {
            // What only this node knows stays until a master has it.
            let merged = crate::sync::merge::merge(&copy.contents, &incoming, crate::sync::merge::Trust::New);
            copy.rewrite(merged.contents)
        })
        .await?;
    session.console.print(&format!("{count} policies from {address}"));
    Ok(Reply::Empty)
}
