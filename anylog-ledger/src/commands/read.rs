//! Commands that look at policies.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::language::expand::value_of_text;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Method, OptionKind, Reply, Session, Status, command,
};
use serde_json::{Map, Value, json};

use super::{json_argument, policy_argument};
use crate::policy::id::md5_hex;
use crate::policy::python_text::python_text;
use crate::policy::shown;
use crate::query::Look;
use crate::{Ledger, LedgerError};

/// How often `blockchain wait` looks.
const WAIT_STEP: Duration = Duration::from_millis(500);
/// How much longer than a synchronisation period `blockchain wait` waits.
const WAIT_GRACE: Duration = Duration::from_secs(15);

const QUERY: &str = "<types> [where <conditions>] [join|merge (blockchain get ...)] [bring ...]";

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let mut commands = queries(ledger);
    commands.extend(checks(ledger));
    commands
}

fn queries(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain get", "Finds policies in the local copy of the ledger.")
                .reads()
                .grammar(QUERY)
                .method(Method::Any)
                .returns("a JSON list of policies, or what bring asks for; nothing when no policy matches")
                .example(
                    "blockchain get operator where company = \"New Company\" bring.table [*][name] [*][ip] [*][port]",
                )
                .example("blockchain get (operator, query) bring.ip_port"),
            Arc::clone(ledger),
            |ledger, _, call| Box::pin(async move { ledger.look(call.rest_text(), Look::Overlaid) }),
        ),
        command(
            Declaration::new("blockchain read", "Finds policies as they are stored, without the anmp overlay.")
                .reads()
                .grammar(QUERY)
                .method(Method::Any)
                .returns("as blockchain get")
                .example("blockchain read *"),
            Arc::clone(ledger),
            |ledger, _, call| Box::pin(async move { ledger.look(call.rest_text(), Look::Stored) }),
        ),
        command(
            Declaration::new("blockchain get id", "Tells the id of a policy.")
                .reads()
                .grammar("<policy>")
                .returns("the policy's id, or the hash that stands for its text")
                .example("id = blockchain get id !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(get_id(ledger, session, call)),
        ),
        command(
            Declaration::new("get policies diff", "Compares the attributes of two policies.")
                .reads()
                .grammar("<policy> <policy>")
                .returns("a JSON object: attribute, and both values")
                .example("get policies diff !old_policy !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(diff(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain query metadata", "Shows which operators hold which tables, as a tree.")
                .reads()
                .option("company", OptionKind::Text, "only this company")
                .option("dbms", OptionKind::Text, "only this database")
                .option("table", OptionKind::Text, "only this table")
                .returns("company ==> dbms ==> table ==> cluster, with its members")
                .example("blockchain query metadata where dbms = test"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(super::show::metadata(ledger, session, call)),
        ),
    ]
}

fn checks(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("blockchain test", "Tests the local copy of the ledger, or whether it holds an id.")
                .reads()
                .optional_word("id", "the id of a policy")
                .returns("true or false when assigned, else a sentence")
                .example("blockchain test"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(test(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain test cluster", "Lists what is wrong with cluster and operator policies.")
                .reads()
                .returns("one sentence for each policy that the view leaves out")
                .example("blockchain test cluster"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(test_cluster(ledger, session, call)),
        ),
        command(
            Declaration::new("blockchain wait", "Waits until a policy is in the local copy.")
                .reads()
                .grammar(
                    "where policy = <policy> | where id = <id> | where command = \"blockchain get ...\" | for <policy>",
                )
                .returns("true or false when assigned")
                .example("is_updated = blockchain wait where policy = !new_policy"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(wait(ledger, session, call)),
        ),
    ]
}

async fn get_id(_: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let value = json_argument(session, call.rest_text())?;
    let policy = crate::Policy::from_value(value.clone())?;
    let id = if policy.id().is_empty() { md5_hex(&python_text(&value)) } else { policy.id().to_owned() };
    Ok(Reply::Text(id))
}

async fn diff(_: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let [first, second] = call.rest() else {
        return Err(CommandError::structure("Two policies are needed").hint("get policies diff !a !b"));
    };
    let (first, second) = (policy_argument(session, &first.text)?, policy_argument(session, &second.text)?);
    let mut differences = Map::new();
    for name in first.inner().keys().chain(second.inner().keys()) {
        let (a, b) = (first.get(name), second.get(name));
        if a != b {
            differences.insert(name.clone(), json!([a, b]));
        }
    }
    Ok(if differences.is_empty() { Reply::Empty } else { Reply::Json(Value::Object(differences)) })
}

async fn test(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let snapshot = ledger.snapshot();
    if let Some(id) = call.positional("id") {
        let there = snapshot.policy(id).is_some();
        return Ok(Reply::Text(there.to_string()));
    }
    if !ledger.path().exists() {
        let path = ledger.path().display().to_string();
        return Err(CommandError::new(Status::NO_LEDGER_FILE, format!("No local blockchain file '{path}'"))
            .hint("get one with: run blockchain sync where source = master and ..."));
    }
    let problems = crate::validate::problems(snapshot.policies());
    if call.assign_to.is_some() {
        return Ok(Reply::Text(problems.is_empty().to_string()));
    }
    Ok(Reply::Text(match problems.len() {
        0 => format!("Blockchain file validated: {} policies", snapshot.policies().len()),
        count => format!("Blockchain file with {count} problems:\n{}", problems.join("\n")),
    }))
}

async fn test_cluster(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let view = ledger.view();
    if call.assign_to.is_some() {
        return Ok(Reply::Text(view.problems().is_empty().to_string()));
    }
    Ok(match view.problems() {
        [] => Reply::Text(format!(
            "{} clusters, {} operators: no problems",
            view.clusters().len(),
            view.operators().len()
        )),
        problems => Reply::Text(problems.join("\n")),
    })
}

async fn wait(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let what = Awaited::parse(session, &call)?;
    let period = ledger.sync_state().map_or(Duration::ZERO, |state| state.period);
    // None when no clock can count it.
    let limit = tokio::time::Instant::now().checked_add(period.saturating_add(WAIT_GRACE));
    let found = loop {
        if what.is_there(ledger)? {
            break true;
        }
        let late = limit.is_some_and(|limit| tokio::time::Instant::now() >= limit);
        if late || session.node.shutdown.is_cancelled() {
            break false;
        }
        // The exchange that this wakes ends the wait as soon as it can end.
        if !ledger.synchronized(WAIT_STEP).await {
            tokio::time::sleep(WAIT_STEP).await;
        }
    };
    if call.assign_to.is_some() {
        return Ok(Reply::Text(found.to_string()));
    }
    match found {
        true => Ok(Reply::Empty),
        false => Err(LedgerError::NotFound { wanted: what.describe() }.into()),
    }
}

enum Awaited {
    Id(String),
    Query(String),
}

impl Awaited {
    fn parse(session: &Session, call: &Invocation) -> Result<Self, CommandError> {
        let rest = call.rest();
        let index = call.key_words;
        match rest {
            [first, ..] if first.text == "for" && rest.len() > 1 => Self::of_policy(session, call.text_from(index + 1)),
            [first, key, equals, value, ..] if first.text == "where" && equals.text == "=" => match key.text.as_str() {
                "policy" => Self::of_policy(session, call.text_from(index + 3)),
                "id" => Ok(Self::Id(value_of_text(&session.node, &value.text).to_string())),
                "command" => {
                    let command = value_of_text(&session.node, &value.text).to_string();
                    let query = command.trim().strip_prefix("blockchain get").map(str::to_owned);
                    query.map(Self::Query).ok_or_else(|| {
                        CommandError::structure(format!("'{command}' does not start with 'blockchain get'"))
                    })
                }
                other => Err(CommandError::structure(format!("Unknown key in AnyLog command: {other}"))
                    .hint("the keys are: policy, id, command")),
            },
            _ => Err(CommandError::structure("What to wait for is missing")
                .hint("blockchain wait where policy = !new_policy")),
        }
    }

    fn of_policy(session: &Session, text: &str) -> Result<Self, CommandError> {
        let policy = policy_argument(session, text)?;
        let id = if policy.id().is_empty() { policy.computed_id() } else { policy.id().to_owned() };
        Ok(Self::Id(id))
    }

    fn is_there(&self, ledger: &Ledger) -> Result<bool, CommandError> {
        match self {
            Self::Id(id) => Ok(ledger.policy(id).is_some()),
            Self::Query(query) => Ok(!ledger.select(query)?.is_empty()),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Id(id) => format!("with id {id}"),
            Self::Query(query) => format!("satisfying '{}'", shown(&Value::from(query.trim()))),
        }
    }
}
