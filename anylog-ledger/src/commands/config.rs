//! `config from policy`: a policy that sets up a node.
//!
//! The policy names the addresses of the servers, whose commands are run first, then a `script`: a list of commands that
//! are run in order, with the rights of who called, until one fails.

use std::sync::Arc;

use anylog_core::language::expand::value_of_text;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Reply, Session, Status, Table, command,
};
use serde_json::Value;

use crate::{Ledger, LedgerError, Policy};

/// A policy that was executed.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The error that ended it; none when all commands succeeded.
    pub error: Option<CommandError>,
    /// The command that failed.
    pub command: Option<String>,
}

/// How many executed policies are remembered.
const REMEMBERED: usize = 100;

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("config from policy", "Sets up the node as a policy says: its servers, then its script.")
                .grammar("where <conditions>")
                .returns("nothing; an error that names the line which failed")
                .example("config from policy where id = !config_id"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(config(ledger, session, call)),
        ),
        command(
            Declaration::new("get config policies", "Shows the policies that were executed.")
                .reads()
                .format_option()
                .returns("id, name, and the error that ended the policy")
                .example("get config policies"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(executed(ledger, session, call)),
        ),
    ]
}

async fn config(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let condition = call.rest_text();
    let found = ledger.select(&format!("* {condition}"))?;
    let wanted = || format!("satisfies '{condition}'");
    let policy = match found.as_slice() {
        [] => return Err(LedgerError::NotFound { wanted: wanted() }.into()),
        [policy] => Arc::clone(policy),
        several => return Err(LedgerError::Ambiguous { wanted: wanted(), count: several.len() }.into()),
    };
    let mut outcome = Executed {
        id: policy.id().to_owned(),
        name: policy.shown("name").unwrap_or_default(),
        error: None,
        command: None,
    };
    if let Err((command, error)) = execute(session, &policy).await {
        outcome.error = Some(error);
        outcome.command = command;
    }
    let result = outcome.error.clone();
    let mut executed = ledger.executed.lock();
    executed.retain(|known| known.id != outcome.id);
    if executed.len() >= REMEMBERED {
        executed.remove(0);
    }
    executed.push(outcome);
    result.map_or(Ok(Reply::Empty), Err)
}

/// Starts the servers, then runs the script. An error comes with the command that failed.
async fn execute(session: &mut Session, policy: &Policy) -> Result<(), (Option<String>, CommandError)> {
    let named = |place: String, line: &str, error: CommandError| {
        let message = format!("Script from policy {} failed {place}: '{line}': {}", policy.id(), error.message);
        let hint = error.hint.clone().unwrap_or_else(|| "get config policies shows what was executed".to_owned());
        (Some(line.to_owned()), CommandError::new(error.status, message).hint(hint))
    };
    for server in servers(session, policy).map_err(|error| (None, error))? {
        for line in server.commands(session) {
            let result = run(session, &line).await;
            result.map_err(|error| named("in the declaration of its servers".to_owned(), &line, error))?;
        }
    }
    let lines = script(policy).map_err(|error| (None, error))?;
    // A frame of its own: `end script`, `goto` and `on error` in the list do not reach the script that asked for the policy.
    let name = format!("policy {}", policy.id());
    Box::pin(session.run_commands(&name, &lines)).await.map_err(|error| {
        let message = format!("Script from policy {} failed: {}", policy.id(), error.message);
        let hint = error.hint.unwrap_or_else(|| "get config policies shows what was executed".to_owned());
        (None, CommandError::new(error.status, message).hint(hint))
    })
}

async fn run(session: &mut Session, line: &str) -> Result<(), CommandError> {
    // A policy may name another one, so the future holds itself.
    let reply = Box::pin(session.execute(line)).await?;
    let text = reply.into_text().await?;
    if !text.is_empty() {
        session.console.print(&text);
    }
    Ok(())
}

/// A server that a policy declares.
struct Server {
    /// The row of `get processes`, and the command that ends it.
    process: &'static str,
    exit: &'static str,
    start: String,
    /// The addresses that it listens on as `get processes` shows them.
    addresses: Vec<String>,
}

impl Server {
    /// What has to be run: nothing when the server runs with these addresses, else perhaps its end, then its start.
    fn commands(&self, session: &Session) -> Vec<String> {
        let states = session.node.processes.states();
        let state = states.iter().find(|(name, state)| *name == self.process && state.running);
        let Some((_, state)) = state else { return vec![self.start.clone()] };
        let shown: Vec<&str> = state.details.split([' ', ',']).collect();
        if self.addresses.iter().all(|address| shown.contains(&address.as_str())) {
            return Vec::new();
        }
        vec![self.exit.to_owned(), self.start.clone()]
    }
}

/// An attribute with references resolved; none when absent or empty.
fn attribute(session: &Session, policy: &Policy, name: &str) -> Option<String> {
    let text = policy.shown(name)?;
    let text = text.trim().trim_matches('\'');
    Some(value_of_text(&session.node, text).to_string()).filter(|value| !value.is_empty())
}

fn port(session: &Session, policy: &Policy, name: &str) -> Result<Option<String>, CommandError> {
    match attribute(session, policy, name) {
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(Some(port)),
        Some(port) => Err(CommandError::new(
            Status::PORT_VALUE,
            format!("'{name}' of policy {} is '{port}', which is no port", policy.id()),
        )),
        None => Ok(None),
    }
}

/// The servers that a policy declares.
fn servers(session: &Session, policy: &Policy) -> Result<Vec<Server>, CommandError> {
    let text = |name: &str| attribute(session, policy, name);
    let threads =
        |name: &str, default: &str| text(name).filter(|value| value != "0").unwrap_or_else(|| default.to_owned());
    let flag = |name: &str, default: bool| text(name).map_or(default, |value| value.eq_ignore_ascii_case("true"));
    let (ip, local_ip) = (text("ip"), text("local_ip"));
    let (tcp_port, local_port) = (port(session, policy, "port")?, port(session, policy, "local_port")?);
    let mut servers = Vec::new();
    if (ip.is_some() && tcp_port.is_some()) || (local_ip.is_some() && local_port.is_some()) {
        let external = (ip.clone().or_else(|| local_ip.clone()), tcp_port.clone().or_else(|| local_port.clone()));
        let internal = (local_ip.clone().or_else(|| ip.clone()), local_port.or(tcp_port));
        let bind = flag("tcp_bind", ip.is_some() != local_ip.is_some());
        servers.push(server(
            ("TCP", "run tcp server", "exit tcp"),
            external,
            internal,
            bind,
            &threads("tcp_threads", "6"),
        ));
    }
    for (words, prefix, thread_key, default) in [
        (("REST", "run rest server", "exit rest"), "rest", "rest_threads", "8"),
        (("MSG Broker", "run message broker", "exit broker"), "broker", "msg_threads", "6"),
    ] {
        let Some(own_port) = port(session, policy, &format!("{prefix}_port"))? else { continue };
        let own_ip = text(&format!("{prefix}_ip"));
        let bind = flag(&format!("{prefix}_bind"), own_ip.is_some());
        let external = own_ip.clone().or_else(|| ip.clone()).or_else(|| local_ip.clone());
        let internal = own_ip.or_else(|| local_ip.clone()).or_else(|| ip.clone());
        let address = |ip: Option<String>| (ip, Some(own_port.clone()));
        servers.push(server(words, address(external), address(internal), bind, &threads(thread_key, default)));
    }
    Ok(servers)
}

/// An address of which a part may be missing: ip, port.
type Address = (Option<String>, Option<String>);

fn server(
    (process, run, exit): (&'static str, &str, &'static str),
    external: Address,
    internal: Address,
    bind: bool,
    threads: &str,
) -> Server {
    let shown = |(ip, port): &Address| Some(format!("{}:{}", ip.as_ref()?, port.as_ref()?));
    let addresses = [shown(&external), shown(&internal)].into_iter().flatten().collect();
    let named = [
        ("external_ip", external.0),
        ("external_port", external.1),
        ("internal_ip", internal.0),
        ("internal_port", internal.1),
    ];
    let terms: Vec<String> =
        named.into_iter().filter_map(|(name, value)| Some(format!("{name} = {}", value?))).collect();
    let start = format!("{run} where {} and bind = {bind} and threads = {threads}", terms.join(" and "));
    Server { process, exit, start, addresses }
}

/// The lines of a policy's `script`: a list of texts, or one text in brackets.
fn script(policy: &Policy) -> Result<Vec<String>, CommandError> {
    let unquoted = |line: &str| {
        let line = line.trim();
        line.strip_prefix('\'').and_then(|line| line.strip_suffix('\'')).unwrap_or(line).to_owned()
    };
    let list = match policy.get("script") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.clone(),
        Some(Value::String(text)) if text.trim_start().starts_with('[') => match anylog_core::json_text::parse(text)? {
            Value::Array(list) => list,
            other => vec![other],
        },
        Some(Value::String(text)) => vec![Value::from(text.as_str())],
        Some(other) => {
            let problem = format!("'script' must be a list of commands, and is {other}");
            return Err(LedgerError::Attribute { kind: policy.kind().to_owned(), problem }.into());
        }
    };
    Ok(list.iter().map(crate::policy::shown).map(|line| unquoted(&line)).filter(|line| !line.is_empty()).collect())
}

async fn executed(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let mut table = Table::new(["Policy ID", "Policy_name", "Error", "Message"]);
    for policy in ledger.executed.lock().iter() {
        let (error, message) = match &policy.error {
            None => (String::new(), String::new()),
            Some(error) => (error.status.0.to_string(), error.message.clone()),
        };
        table.push([policy.id.clone(), policy.name.clone(), error, message]);
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}
