//! `run client`: commands for other nodes.

use std::sync::Arc;

use anylog_core::language::lexer::lex;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Method, Reply, Session, Status, command,
};
use futures_util::StreamExt;

use crate::Ledger;
use crate::client::{self, Answer, Call, Destination};

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![command(
        Declaration::new("run client", "Runs a command at other nodes.")
            .grammar("<ip:port | ip port | (ip:port, !reference, blockchain get ..., operator where ..., dbms = x, table = y, subset = true, timeout = seconds)> [<command>]")
            .reads()
            .method(Method::Any)
            .returns(
                "[From Node ip:port] and the answer of each node; when assigned the answer of one node as it is, of several a JSON \
                 object by node; name[] and name{} collect the answers while they arrive. A node that fails makes the command \
                 fail, unless subset = true. The caller needs the right that the command itself needs. At a terminal a destination without a command \
                 is where commands go from then on, until 'run client ()'; a command behind a dot runs here",
            )
            .example("run client 10.0.0.1:32148 get status")
            .example("run client (blockchain get operator where company = \"New Company\" bring.ip_port) get processes")
            .example("run client (operator where [country] contains US, subset = true, timeout = 10) get status")
            .example("status{} = run client (operator) get status")
            .example("run client (!ledger_conn) blockchain push !new_policy")
            .example("run client (10.0.0.1:32148)"),
        Arc::clone(ledger),
        |ledger, session, call| Box::pin(run(ledger, session, call)),
    )]
}

async fn run(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let parts = Call::of_words(&call.source, &call.words)?;
    if parts.command.is_empty() {
        return Err(CommandError::structure("Missing command after the destination of 'run client'").hint(
            "run client (10.0.0.1:32148) get status; at a terminal a destination alone is where commands go from then on",
        ));
    }
    session.require(client::forward_access(&session.node, parts.command), parts.command)?;
    let mut destination = Destination::parse(session, parts.destination).await?;
    let command = client::outgoing(&session.node, parts.command)?;
    let is_sql = lex(&command)?.first().is_some_and(|word| !word.quoted && word.text == "sql");
    if is_sql && let Some(sql) = ledger.network_sql() {
        return sql.sql(session, &destination, &command).await;
    }
    destination.add_holders(ledger)?;
    if destination.nodes.is_empty() {
        return Err(CommandError::new(Status::NO_DESTINATION, "The destination '()' names no node").hint(
            "only SQL finds its nodes by itself; name them: run client (blockchain get operator bring.ip_port) ...",
        ));
    }
    if let Some(done) = super::files::between(ledger, session, &destination, &lex(&command)?).await {
        return done;
    }
    let deadline = destination.timeout.unwrap_or(client::DEADLINE);
    let answers = ledger.ask_nodes(&destination.nodes, &command, deadline);
    match call.assign_to.as_deref() {
        Some(name) if name.ends_with("[]") || name.ends_with("{}") => {
            client::collect(session, &ledger.shared(), name, &destination.nodes, answers);
            Ok(Reply::Empty)
        }
        assigned => {
            let mut answers: Vec<Answer> = answers.collect().await;
            let place = |answer: &Answer| destination.nodes.iter().position(|node| *node == answer.node);
            answers.sort_by_key(place);
            let shape = match assigned {
                Some(_) => Shape::Assigned,
                None if session.caller.is_network() => Shape::Program,
                None => Shape::Person,
            };
            answer(session, &destination, answers, shape)
        }
    }
}

/// Nodes that an error names.
const MOST_NAMED: usize = 8;

/// For whom the answers are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A parameter: the answer of one node as it is, of several as for a program.
    Assigned,
    /// A client over the network.
    Program,
    /// A terminal or a script.
    Person,
}

/// The answers as one reply, or the failure of a node.
fn answer(session: &Session, destination: &Destination, answers: Vec<Answer>, shape: Shape) -> CommandResult {
    let asked = answers.len();
    let failed: Vec<(String, CommandError)> = answers
        .iter()
        .filter_map(|answer| answer.reply.as_ref().err().map(|error| (answer.node.clone(), error.clone())))
        .collect();
    for (_, error) in &failed {
        session.node.errors.add(session.node.clock.now(), &session.thread, "run client", error.to_string());
    }
    if let Some((_, error)) = failed.first()
        && (!destination.subset || failed.len() == asked)
    {
        let texts: Vec<String> = answers.iter().filter(|answer| answer.reply.is_ok()).map(Answer::block).collect();
        if !texts.is_empty() {
            // What did arrive is shown all the same.
            session.console.print(&texts.concat());
        }
        return Err(failure(error, &failed, asked));
    }
    Ok(Reply::Text(match (shape, answers.as_slice()) {
        (Shape::Assigned, [Answer { reply: Ok(text), .. }]) => text.clone(),
        (Shape::Assigned | Shape::Program, several) => client::joined(several),
        (Shape::Person, several) => several.iter().map(Answer::block).collect(),
    }))
}

/// The error of nodes that failed, which names each of them.
fn failure(first: &CommandError, failed: &[(String, CommandError)], asked: usize) -> CommandError {
    let mut error = first.clone();
    if asked > 1 {
        let named = failed.iter().take(MOST_NAMED).map(|(node, error)| client::named(node, error));
        let named = named.collect::<Vec<_>>().join("; ");
        let more = if failed.len() > MOST_NAMED { "; ..." } else { "" };
        error.message = format!("{} of {asked} nodes failed: {named}{more}", failed.len());
        if failed.len() < asked {
            let subset = "for the answers of the others: subset = true in the parentheses, or the header subset: true";
            error.hint = Some(error.hint.map_or_else(|| subset.to_owned(), |hint| format!("{hint}; {subset}")));
        }
    }
    error
}
