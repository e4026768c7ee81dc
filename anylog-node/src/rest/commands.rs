//! The commands of the REST server.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::{Positional, PositionalKind};
use anylog_core::node::processes::ProcessState;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Status, Table, command,
    time,
};
use anylog_net::{
    ConnectionHandler, PeerReply, PeerRequest, Protocol, RunningServer, ServerAddress, ServerKind, server_declaration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEFAULT_THREADS, RestServer, body};

/// How long a part of `test node` may take.
const TEST_DEADLINE: Duration = Duration::from_secs(5);

/// `run rest server`, `get rest server info`, `get rest calls`, `set rest timeout`, `test node`.
pub fn commands(server: &Arc<RestServer>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(server);
    let info = Declaration::new("get rest server info", "Shows the settings of the REST server.")
        .reads()
        .returns("a table with the columns Attribute and Value");
    let calls = Declaration::new("get rest calls", "Counts the calls of the REST server by caller and method.")
        .reads()
        .returns("a table with one row for each caller and method");
    let timeout = Declaration::new("set rest timeout", "Limits how long a command may take until its answer begins.")
        .rest("time", true, "seconds, or a number with a unit; 0 is unlimited")
        .returns("nothing; shown by 'get rest server info'")
        .example("set rest timeout 60 seconds");
    let test = Declaration::new("test node", "Tests the node's ledger and its own TCP and REST servers.")
        .reads()
        .returns("a table with the columns Test and Status");
    vec![
        // The server itself serves its connections, so this command holds a counted reference.
        command(run_declaration(), Arc::new(state()), |server, _, call| Box::pin(run_rest_server(server, call))),
        command(info, state(), |server, _, _| Box::pin(get_rest_server_info(server))),
        command(calls, state(), |server, _, _| Box::pin(get_rest_calls(server))),
        command(timeout, state(), |server, _, call| Box::pin(set_rest_timeout(server, call))),
        command(test, state(), |server, session, _| Box::pin(test_node(server, session))),
    ]
}

/// Adds the row `REST` to `get processes`.
pub fn register_processes(server: &Arc<RestServer>) {
    let state = Arc::clone(server);
    server.node.processes.register("REST", move || match state.listeners.details(ServerKind::Rest) {
        Some(details) => ProcessState::running(format!("{details}, Timeout: {}, SSL: False", state.timeout_seconds())),
        None => ProcessState::not_declared(),
    });
}

fn run_declaration() -> Declaration {
    let mut declaration = server_declaration("run rest server", "Starts the REST server.");
    // The positional form is `IP PORT [TIMEOUT]`, which differs from the other servers'.
    declaration.positionals.truncate(2);
    declaration
        .positional(Positional {
            name: "timeout",
            kind: PositionalKind::Word(OptionKind::Text),
            required: false,
            help: "seconds that a command may take",
        })
        .option("timeout", OptionKind::Text, "seconds that a command may take until its answer begins; 0 is unlimited")
        .default_is("20")
        .option("ssl", OptionKind::Bool, "must be false: the server has no TLS yet")
        .default_is("false")
        .example("run rest server !ip !anylog_rest_port")
        .example(
            "run rest server where external_ip=!ip and external_port=32149 and bind=false and timeout=30 and threads=6",
        )
}

async fn run_rest_server(server: &Arc<RestServer>, call: Invocation) -> CommandResult {
    if call.options.bool("ssl") == Some(true) {
        return Err(CommandError::parameter("The REST server has no TLS yet, so ssl=true cannot be granted")
            .hint("use ssl=false behind a proxy that ends TLS, or in a private network"));
    }
    let mut address = ServerAddress::from_call(&call)?;
    if call.options.int("threads").unwrap_or(0) == 0 {
        address.threads = DEFAULT_THREADS;
    }
    let given = call.positional_value("timeout").map(ToString::to_string).or_else(|| call.options.text("timeout"));
    let timeout = given.as_deref().map(seconds).transpose()?;
    let threads = address.threads;
    let handler = Arc::clone(server) as Arc<dyn ConnectionHandler>;
    server.listeners.start(ServerKind::Rest, Protocol::Http, address, handler).await?;
    server.set_threads(threads);
    if let Some(timeout) = timeout {
        server.set_timeout(timeout);
    }
    Ok(Reply::Empty)
}

/// `30`, `30 seconds`, `2 minutes`.
fn seconds(text: &str) -> Result<Duration, CommandError> {
    let text = text.trim();
    text.parse().ok().map(Duration::from_secs).or_else(|| time::interval(text)).ok_or_else(|| {
        CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong timeout: '{text}'"))
            .hint("give seconds, or a number with a unit: 2 minutes; 0 is unlimited")
    })
}

async fn set_rest_timeout(server: &RestServer, call: Invocation) -> CommandResult {
    server.set_timeout(seconds(&call.expect_positional("time")?)?);
    Ok(Reply::Empty)
}

impl RestServer {
    fn timeout_seconds(&self) -> u64 {
        self.timeout().map_or(0, |timeout| timeout.as_secs())
    }

    fn running(&self) -> Option<RunningServer> {
        self.listeners.address(ServerKind::Rest)
    }

    fn url(&self) -> Option<String> {
        self.running().map(|running| format!("http://{}", running.address.external))
    }
}

async fn get_rest_server_info(server: &RestServer) -> CommandResult {
    let running = server.running();
    let of_running = |value: fn(&RunningServer) -> String| running.as_ref().map_or_else(|| "None".to_owned(), value);
    let mut table = Table::new(["Attribute", "Value"]);
    table.push(["connection".to_owned(), server.url().unwrap_or_else(|| "Not declared".to_owned())]);
    table.push(["connections_accepted".to_owned(), of_running(|running| running.accepted.to_string())]);
    table.push(["connections_open".to_owned(), of_running(|running| running.connections.to_string())]);
    table
        .push(["is_bind".to_owned(), of_running(|running| if running.address.bind { "True" } else { "False" }.into())]);
    table.push(["is_ssl", "False"]);
    table.push(["largest_body".to_owned(), body::LIMIT.to_string()]);
    table.push(["timeout".to_owned(), server.timeout_seconds().to_string()]);
    table.push(["workers_count".to_owned(), server.settings.read().threads.to_string()]);
    Ok(Reply::Table(table))
}

async fn get_rest_calls(server: &RestServer) -> CommandResult {
    let at = server.url().map(|url| format!(" using {url}")).unwrap_or_default();
    Ok(Reply::Table(server.calls.table(format!("Statistics for REST calls{at}"))))
}

async fn test_node(server: &RestServer, session: &mut Session) -> CommandResult {
    let mut table = Table::new(["Test", "Status"]);
    let version = match session.execute("get metadata version").await {
        Ok(reply) => reply.into_text().await,
        Err(error) => Err(error),
    };
    let passed = version.as_ref().is_ok_and(|version| !version.trim().is_empty());
    table.push(["Metadata Version".to_owned(), version.unwrap_or_else(|error| error.to_string())]);
    table.push(["Metadata Test", if passed { "Pass" } else { "Failed" }]);
    match server.listeners.address(ServerKind::Tcp) {
        None => table.push(["TCP test", "Not declared"]),
        Some(running) => {
            let node = running.address.external;
            let request = PeerRequest::Command { text: "get status".to_owned() };
            let status = match server.peers.call(&node, request, TEST_DEADLINE).await {
                Ok(PeerReply::Text(text)) => format!("[From Node {node}] {text}"),
                Ok(_) => "Failed: another answer".to_owned(),
                Err(error) => format!("Failed: {error}"),
            };
            table.push([format!("TCP test using {node}"), status]);
        }
    }
    match server.running() {
        None => table.push(["REST test", "Not declared"]),
        Some(running) => {
            let host = running.address.external;
            let asked = tokio::time::timeout(TEST_DEADLINE, ask_by_http(&host));
            let status = match asked.await {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => format!("Failed: {error}"),
                Err(_) => format!("Failed: no answer within {} seconds", TEST_DEADLINE.as_secs()),
            };
            table.push([format!("REST test using http://{host}"), status]);
        }
    }
    Ok(Reply::Table(table))
}

/// `get status` at a REST server, as a client would ask it.
async fn ask_by_http(host: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(host).await?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: AnyLog/1.23\r\ncommand: get status\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or("no answer");
    if status.starts_with("HTTP/1.1 200") { Ok(text.to_owned()) } else { Err(std::io::Error::other(status.to_owned())) }
}
