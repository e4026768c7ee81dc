//! Queries over the network: `run client (..) sql ..`, and what nodes ask of each other for them.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::language::{expand, lexer};
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Method, Options, Reply, Session, Status, command,
};

use crate::network::PartRequest;
use crate::{Destination, Network, QueryService};

/// The most nodes that one query may name.
const MOST_NODES: usize = 256;

/// `query network`, `query part`.
pub(super) fn commands(service: Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    let service = Arc::new(service);
    let part = Declaration::new("query part", "Answers a part of another node's query; sent by nodes.")
        .reads()
        .word("request", "what is asked, in hexadecimal digits")
        .returns("rows in frames, which nodes understand")
        .example("query part 7b7d");
    vec![
        command(network("query network"), Arc::clone(&service), |service, session, call| {
            Box::pin(run_network(service, session, call))
        }),
        command(part, service, |service, _, call| Box::pin(async move { run_part(service, &call) })),
    ]
}

/// `run client (..) sql ..`, for a node without another `run client`.
#[must_use]
pub fn run_client(service: Arc<QueryService>) -> Arc<dyn Command> {
    command(network("run client"), Arc::new(service), |service, session, call| {
        Box::pin(run_network(service, session, call))
    })
}

fn network(words: &'static str) -> Declaration {
    Declaration::new(words, "Runs a SELECT over the nodes that hold a table.")
        .grammar("(<nodes>) sql <dbms> [<option> = <value> and ...] \"<select>\"")
        .reads()
        .method(Method::Any)
        .returns("the rows in the format asked for, with statistics that name the nodes that are missing")
        .example(if words == "run client" {
            "run client () sql mydb \"select device, avg(value) from readings group by device\""
        } else {
            "query network (10.0.0.25:32148, subset = true) sql mydb \"select count(*) from readings\""
        })
}

fn run_part(service: &Arc<QueryService>, call: &Invocation) -> CommandResult {
    let request = PartRequest::parse(&call.expect_positional("request")?)?;
    Ok(Reply::Stream { json: false, chunks: service.part(request) })
}

async fn run_network(service: &Arc<QueryService>, session: &mut Session, call: Invocation) -> CommandResult {
    let text = call.rest_text().to_owned();
    let (nodes, command) = split(&text)?;
    let network = targets(session, nodes).await?;
    network_sql(service, session, network, command).await
}

/// Runs `sql <dbms> [options] <select>` over the nodes of `network`: what `run client (..) sql ..` does.
///
/// # Errors
/// Those of the command `sql`, and of nodes that gave no answer.
pub async fn network_sql(
    service: &Arc<QueryService>,
    session: &mut Session,
    network: Network,
    command: &str,
) -> CommandResult {
    let words = lexer::lex(command)?;
    if words.first().is_none_or(|word| word.text != "sql") {
        let first = words.first().map_or("", |word| word.text.as_str());
        return Err(CommandError::new(Status::COMMAND_STRUCTURE, format!("'{first}' is not a query"))
            .hint("write: run client (<nodes>) sql <dbms> \"<select>\""));
    }
    let call = Invocation {
        source: command.to_owned(),
        words,
        key_words: 1,
        assign_to: None,
        positionals: Vec::new(),
        options: Options::default(),
    };
    super::sql_over(service, session, call, Some(network)).await
}

/// The text between the parentheses, and the command behind them.
fn split(text: &str) -> Result<(&str, &str), CommandError> {
    let wrong = || {
        CommandError::new(Status::MISSING_BRACKETS, "The nodes stand in parentheses before the command")
            .hint("write: run client (ip:port, ip:port) sql .., or run client () sql .. for all that hold the table")
    };
    let inner = text.strip_prefix('(').ok_or_else(wrong)?;
    let mut depth = 1usize;
    for (at, c) in inner.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((inner[..at].trim(), inner[at + 1..].trim_start()));
        }
    }
    Err(wrong())
}

/// Reads what stands between the parentheses.
async fn targets(session: &mut Session, text: &str) -> Result<Network, CommandError> {
    let mut network = Network::default();
    let mut nodes = String::new();
    for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (key, value) = term.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
        match key.to_lowercase().as_str() {
            "subset" => network.subset = boolean(value)?,
            "timeout" => network.timeout = seconds(value)?,
            _ => {
                nodes.push_str(if nodes.is_empty() { "" } else { "," });
                nodes.push_str(term);
            }
        }
    }
    if !nodes.is_empty() {
        network.destination = destination(session, &nodes).await?;
    }
    Ok(network)
}

/// `ip:port[,ip:port]`, `!name`, `dbms = x and table = y`, or a command that gives addresses.
async fn destination(session: &mut Session, text: &str) -> Result<Destination, CommandError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let command = match words.as_slice() {
        ["blockchain", ..] => Some(text.to_owned()),
        [kind, "where", ..] if matches!(*kind, "operator" | "publisher" | "query" | "master") => {
            Some(format!("blockchain get {text}"))
        }
        [term, ..] if term.starts_with("dbms") && text.contains('=') => return Ok(Destination::Tables),
        _ => None,
    };
    let listed = match command {
        Some(command) if command.contains("bring") => run(session, &command).await?,
        Some(command) => run(session, &format!("{command} bring.ip_port")).await?,
        None => {
            let expanded = text.split(',').map(|term| expand::value_of_text(&session.node, term.trim()).to_string());
            expanded.collect::<Vec<_>>().join(",")
        }
    };
    let separators = |c: char| c == ',' || c.is_whitespace() || matches!(c, '[' | ']' | '"' | '\'' | '(' | ')');
    let mut nodes: Vec<String> = Vec::new();
    for node in listed.split(separators).filter(|node| !node.is_empty()) {
        let fits = node.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !fits || nodes.len() == MOST_NODES {
            return Err(wrong_nodes(node));
        }
        if !nodes.iter().any(|known| known == node) {
            nodes.push(node.to_owned());
        }
    }
    if nodes.is_empty() { Err(wrong_nodes(text)) } else { Ok(Destination::Nodes(nodes)) }
}

async fn run(session: &mut Session, command: &str) -> Result<String, CommandError> {
    // A session of its own: what the command leaves behind is not the caller's.
    let mut own = session.fork("destination");
    Box::pin(own.execute(command)).await?.into_text().await
}

fn wrong_nodes(text: &str) -> CommandError {
    CommandError::new(Status::DESTINATION, format!("Wrong destination: '{text}'"))
        .hint("give ip:port of TCP servers, or nothing for all nodes that hold the table")
}

fn boolean(text: &str) -> Result<bool, CommandError> {
    match text.to_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(CommandError::structure(format!("subset = {text}")).hint("use true or false")),
    }
}

/// Seconds, or a number with a unit; 0 is no limit.
pub(super) fn seconds(text: &str) -> Result<Option<Duration>, CommandError> {
    let limit = text.parse().ok().map(Duration::from_secs).or_else(|| anylog_core::time::interval(text));
    let limit = limit.ok_or_else(|| {
        CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong time: '{text}'"))
            .hint("give seconds, or a number with a unit: 2 minutes")
    })?;
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_in_parentheses() {
        assert_eq!(split("() sql d \"select 1\"").unwrap(), ("", "sql d \"select 1\""));
        assert_eq!(split("( a:1, b:2 )sql d x").unwrap(), ("a:1, b:2", "sql d x"));
        assert_eq!(split("(blockchain get (operator) bring.ip_port) x").unwrap().1, "x");
        assert!(split("sql d").is_err() && split("(a:1 sql d").is_err());
    }

    #[tokio::test]
    async fn terms_are_read_anywhere() {
        let home = tempfile::tempdir().unwrap();
        let node = anylog_core::Node::builder().home(home.path()).build();
        node.dictionary.set("nodes", "10.0.0.3:3,10.0.0.4:4");
        let mut session = Session::new(node, anylog_core::Caller::embedded());
        let mut read = async |text: &str| targets(&mut session, text).await;
        assert_eq!(read("").await.unwrap(), Network::default());
        let network = read("subset = true, 10.0.0.1:1, timeout = 2 minutes, !nodes").await.unwrap();
        assert!(network.subset);
        assert_eq!(network.timeout, Some(Duration::from_secs(120)));
        let nodes = ["10.0.0.1:1", "10.0.0.3:3", "10.0.0.4:4"].map(str::to_owned).to_vec();
        assert_eq!(network.destination, Destination::Nodes(nodes));
        assert_eq!(read("dbms = d and table = t").await.unwrap().destination, Destination::Tables);
        for wrong in ["nowhere", "a:b", "subset = maybe", "timeout = soon"] {
            assert!(read(wrong).await.is_err(), "{wrong}"); // R25
        }
    }
}
