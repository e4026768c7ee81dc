//! Commands that a master serves: its table in the database `blockchain`.

use std::path::PathBuf;
use std::sync::Arc;

use anylog_core::command::Word;
use anylog_core::language::expand::value_of;
use anylog_core::{
    Access, Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, command,
};
use serde_json::Value;

use super::{done, host, policies_argument, policy_argument};
use crate::ledger::{PushHow, Pushed, blocking};
use crate::store::file::LedgerFile;
use crate::{Ledger, LedgerError, Policy};

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let mut commands = policies(ledger);
    commands.extend(tables(ledger));
    commands
}

fn policies(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain push", "Takes a policy into the ledger database of this node, a master.")
                .adds_data()
                .grammar("[ignore|insert|update] <policy>")
                .returns(
                    "nothing; with insert the policy as the ledger holds it; 'deleted' for a policy that is sent again (ignore) and was \
                     deleted meanwhile; an error when the policy is refused",
                )
                .example("blockchain push !new_policy")
                .example("blockchain push insert !new_policy")
                .example("blockchain push ignore !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(push(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain replace policy", "Writes new content into a policy of the ledger database.")
                .grammar("<id> with <policy>")
                .returns("nothing")
                .example("blockchain replace policy 64283dba96a4c818074d564c6be20d5c with !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(replace(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain drop policy", "Deletes policies from the ledger database.")
                .grammar("<policy> | where id = <id,...> | where id = blockchain get ... bring [*][id] separator = ,")
                .returns("nothing; an error when no policy is named")
                .example("blockchain drop policy where id = 64283dba96a4c818074d564c6be20d5c"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(drop_policy(ledger, session, call)),
        ),
        command(
            Declaration::new(
                "blockchain drop by host",
                "Deletes the policies that a host sent from the ledger database.",
            )
            .word("ip", "the address of the host")
            .returns("how many were deleted")
            .example("blockchain drop by host 10.0.0.7"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(drop_by_host(ledger, session, call)),
        ),
    ]
}

fn tables(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain create table", "Creates the ledger table in the database 'blockchain'.")
                .returns("nothing; the table is there, also when it was")
                .example("blockchain create table"),
            Arc::clone(ledger),
            |ledger, _, _| {
                Box::pin(async move {
                    let ledger = ledger.shared();
                    blocking(move || ledger.create_table()).await?;
                    Ok(Reply::Empty)
                })
            },
        ),
        command(
            Declaration::new("blockchain drop table", "Drops the ledger table of the database 'blockchain'.")
                .returns("nothing")
                .example("blockchain drop table"),
            Arc::clone(ledger),
            |ledger, _, _| {
                Box::pin(async move {
                    let ledger = ledger.shared();
                    blocking(move || ledger.drop_table()).await?;
                    Ok(Reply::Empty)
                })
            },
        ),
        command(
            Declaration::new("blockchain update dbms", "Takes the policies of a file into the ledger database.")
                .optional_word("file", "the file; the local copy when absent")
                .returns("how many were added")
                .example("blockchain update dbms"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(update_dbms(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain pull to", "Writes the ledger database to a file or shows it.")
                .positional(anylog_core::command::Positional {
                    name: "format",
                    kind: anylog_core::command::PositionalKind::Word(OptionKind::Choice(&["json", "sql", "stdout"])),
                    required: true,
                    help: "policies, SQL statements, or policies on the screen",
                })
                .optional_word("file", "the file; blockchain.new or blockchain.sql beside the local copy when absent")
                .returns("the policies for stdout, else how many were written")
                .example("blockchain pull to json"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(pull(ledger, session, call)),
        ),
    ]
}

async fn push(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let how = match call.rest().first().filter(|word| !word.quoted).map(|word| word.text.as_str()) {
        Some("ignore") => Some(How::Push(PushHow::Again)),
        Some("insert") => Some(How::Push(PushHow::Insert)),
        Some("update") => Some(How::Update),
        _ => None,
    };
    let text = if how.is_some() { call.text_from(call.key_words + 1) } else { call.rest_text() };
    let policies = policies_argument(session, text)?;
    let how = how.unwrap_or(How::Push(PushHow::New));
    // Nodes widen the tables that they share, and operators say where they are; any other change is an administrator's.
    let is_shared = |policy: &Policy| match policy.kind() {
        "table" => true,
        "operator" => ledger.policy(policy.id()).is_some_and(|known| only_moved(&known, policy)),
        _ => false,
    };
    if how == How::Update && !policies.iter().all(is_shared) {
        session.require(Access::Admin, "blockchain push update")?;
    }
    let (ledger, host) = (ledger.shared(), host(session));
    let pushed = blocking(move || {
        let mut pushed = Vec::new();
        for policy in &policies {
            match how {
                How::Update => drop(ledger.replace_at_master(policy, &host)?),
                How::Push(how) => pushed.push(ledger.push(policy, &host, how)?),
            }
        }
        Ok(pushed)
    })
    .await?;
    if call.assign_to.is_some() {
        return Ok(done(true, &[]));
    }
    if pushed.contains(&Pushed::Deleted) {
        return Ok(Reply::Text(crate::sync::source::DELETED.to_owned()));
    }
    match (how, pushed.as_slice()) {
        (How::Push(PushHow::Insert), [Pushed::Added(policy) | Pushed::Known(policy)]) => {
            Ok(Reply::Text(policy.to_json_text()))
        }
        _ => Ok(Reply::Empty),
    }
}

/// What an operator says of itself when it is at another address.
const WHERE: &[&str] =
    &["ip", "port", "local_ip", "internal_ip", "local_port", "rest_port", "hostname", "date", "ledger"];

/// Whether an operator policy says the same as before, but for the place where the operator is.
fn only_moved(known: &Policy, policy: &Policy) -> bool {
    let rest = |policy: &Policy| WHERE.iter().fold(policy.clone(), |policy, name| policy.without(name));
    rest(known) == rest(policy)
}

/// What `blockchain push` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Push(PushHow),
    Update,
}

async fn replace(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let [id, with, ..] = call.rest() else {
        return Err(
            CommandError::structure("An id and a policy are needed").hint("blockchain replace policy <id> with !p")
        );
    };
    if with.text != "with" {
        return Err(CommandError::structure(format!("Expected 'with' and found '{}'", with.text)));
    }
    let id = value_of(&session.node, id).to_string();
    let policy = policy_argument(session, call.text_from(call.key_words + 2))?;
    let policy = match policy.id() {
        "" => policy.with("id", id),
        own if own == id => policy,
        own => return Err(CommandError::parameter(format!("The policy has the id {own}, not {id}"))),
    };
    let (master, host) = (ledger.shared(), host(session));
    let sent = policy.prepare(session.node.clock.as_ref());
    let is_master = ledger.is_master();
    if is_master {
        blocking(move || master.replace_at_master(&sent, &host)).await?;
    } else {
        ledger.replace(policy, &crate::Destinations::local()).await?;
    }
    Ok(Reply::Empty)
}

async fn drop_policy(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let ids = dropped_ids(ledger, session, &call).await?;
    if ids.is_empty() {
        return Err(LedgerError::NotFound { wanted: "is named".to_owned() }.into());
    }
    let ledger = ledger.shared();
    blocking(move || ledger.drop_at_master(&ids)).await?;
    Ok(Reply::Empty)
}

/// The ids that `blockchain drop policy` names.
async fn dropped_ids(ledger: &Ledger, session: &Session, call: &Invocation) -> Result<Vec<String>, CommandError> {
    let split = |text: &str| -> Vec<String> {
        let text = text.trim_matches(['[', ']', '(', ')']);
        text.split(',').map(|id| id.trim().trim_matches(['"', '\'']).to_owned()).filter(|id| !id.is_empty()).collect()
    };
    match call.rest() {
        [first, key, equals, value @ ..] if is(first, "where") && key.text == "id" && is(equals, "=") => match value {
            [blockchain, get, ..] if is(blockchain, "blockchain") && is(get, "get") => {
                let text = ledger.query(call.text_from(call.key_words + 5))?.into_text().await?;
                Ok(split(&text))
            }
            value => Ok(value.iter().flat_map(|word| split(&value_of(&session.node, word).to_string())).collect()),
        },
        [first, ..] if is(first, "from") => {
            Err(CommandError::new(anylog_core::Status::BLOCKCHAIN_OPERATION, "No blockchain platform is connected")
                .hint("blockchain drop policy where id = X deletes from this node's ledger database"))
        }
        [_, ..] => {
            let policies: Vec<Policy> = policies_argument(session, call.rest_text())?;
            if policies.len() > 1 {
                return Err(CommandError::structure("Several policies are dropped by their ids only")
                    .hint("blockchain drop policy where id = a, b"));
            }
            let id = |policy: &Policy| match policy.id() {
                "" => policy.computed_id(),
                id => id.to_owned(),
            };
            Ok(policies.iter().map(id).collect())
        }
        [] => Err(CommandError::structure("Missing policy or id").hint("blockchain drop policy where id = X")),
    }
}

fn is(word: &Word, text: &str) -> bool {
    !word.quoted && word.text == text
}

async fn drop_by_host(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let (ledger, ip) = (ledger.shared(), call.expect_positional("ip")?);
    let count = blocking(move || ledger.drop_by_host(&ip)).await?;
    Ok(Reply::Text(format!("{count} policies dropped")))
}

async fn update_dbms(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let path = match call.positional("file") {
        Some(path) => session.permit_path(path)?,
        None => {
            // The file as the copy is now.
            ledger.flush().await?;
            ledger.path()
        }
    };
    let (ledger, host) = (ledger.shared(), host(session));
    let (added, all) = blocking(move || {
        let contents = LedgerFile::import(&path)?;
        Ok((ledger.import_to_table(&contents.policies, &host)?, contents.policies.len()))
    })
    .await?;
    Ok(Reply::Text(format!("added {added} from {all}")))
}

async fn pull(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let format = call.expect_positional("format")?;
    let shared = ledger.shared();
    let (policies, statements) = blocking(move || shared.pull()).await?;
    let lines: Vec<String> = match format.as_str() {
        "stdout" => {
            return Ok(Reply::Json(Value::Array(policies.iter().map(|policy| policy.value().clone()).collect())));
        }
        "sql" => statements,
        _ => policies.iter().map(|policy| policy.to_json_text()).collect(),
    };
    let path: PathBuf = match call.positional("file") {
        Some(path) => session.permit_path(path)?,
        None => LedgerFile::new(ledger.path()).sibling(if format == "sql" { "sql" } else { "new" }),
    };
    let shown = path.display().to_string();
    let count = blocking(move || LedgerFile::export(&path, lines)).await?;
    Ok(Reply::Text(format!("{count} policies written to {shown}")))
}
