//! The commands of this crate.

use std::sync::Arc;

use anylog_core::node::processes::ProcessState;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Node, Reply, Session, Table, command,
};
use serde_json::json;

use crate::listener::{ConnectionHandler, Listeners, Protocol, ServerAddress, ServerKind, server_declaration};

/// What the commands work on.
struct Servers {
    listeners: Arc<Listeners>,
    tcp: Arc<dyn ConnectionHandler>,
}

/// `run tcp server`, `exit tcp|rest|broker`, `get connections`. `tcp_handler` serves the TCP server's connections; see
/// [`node_service`](crate::grpc::node_service).
pub fn commands(listeners: Arc<Listeners>, tcp_handler: Arc<dyn ConnectionHandler>) -> Vec<Arc<dyn Command>> {
    let servers = Arc::new(Servers { listeners, tcp: tcp_handler });
    let run = server_declaration("run tcp server", "Starts the server for messages from other nodes.")
        .example("run tcp server !external_ip !anylog_server_port !ip !anylog_server_port")
        .example("run tcp server where external_ip=10.0.0.25 and external_port=32148 and bind=false and threads=6");
    let exit = |words, aliases: [&'static str; 2], summary| {
        let declaration =
            Declaration::new(words, summary).returns("nothing; the port is free when the command returns");
        aliases.into_iter().fold(declaration, Declaration::alias)
    };
    let connections = Declaration::new("get connections", "Shows the addresses of the node's servers.")
        .reads()
        .format_option()
        .returns("a table with the columns Type, External Address, Internal Address, Bind Address, or JSON")
        .example("get connections where format=json");
    vec![
        command(run, Arc::clone(&servers), |servers, session, call| Box::pin(run_tcp_server(servers, session, call))),
        command(
            exit("exit tcp", ["exit TCP", "exit Tcp"], "Stops the server for messages from other nodes."),
            Arc::clone(&servers),
            |servers, session, _| Box::pin(exit_server(servers, session, ServerKind::Tcp)),
        ),
        command(
            exit("exit rest", ["exit REST", "exit Rest"], "Stops the REST server."),
            Arc::clone(&servers),
            |servers, session, _| Box::pin(exit_server(servers, session, ServerKind::Rest)),
        ),
        command(
            exit("exit broker", ["exit BROKER", "exit Broker"], "Stops the message broker."),
            Arc::clone(&servers),
            |servers, session, _| Box::pin(exit_server(servers, session, ServerKind::Broker)),
        ),
        command(connections, servers, |servers, _, call| Box::pin(get_connections(servers, call))),
    ]
}

/// Adds the row `TCP` to `get processes`.
pub fn register_processes(node: &Node, listeners: &Arc<Listeners>) {
    let listeners = Arc::clone(listeners);
    node.processes.register("TCP", move || {
        listeners.details(ServerKind::Tcp).map_or_else(ProcessState::not_declared, ProcessState::running)
    });
}

async fn run_tcp_server(servers: &Servers, session: &mut Session, call: Invocation) -> CommandResult {
    let address = ServerAddress::from_call(&call)?;
    servers.listeners.start(ServerKind::Tcp, Protocol::Grpc, address, Arc::clone(&servers.tcp)).await?;
    if let Some(running) = servers.listeners.address(ServerKind::Tcp) {
        session.node.set_address(Some(running.address.external));
        session.node.set_local_address(running.address.internal);
    }
    Ok(Reply::Empty)
}

async fn exit_server(servers: &Servers, session: &mut Session, kind: ServerKind) -> CommandResult {
    // A server that stops waits for its connections to end, and this command may have come through one of them: the
    // port is freed here, the waiting is done behind the answer.
    let stopped = if session.caller.is_network() {
        let running = servers.listeners.address(kind).is_some();
        let listeners = Arc::clone(&servers.listeners);
        tokio::spawn(async move { listeners.stop(kind).await });
        running
    } else {
        servers.listeners.stop(kind).await
    };
    if !stopped {
        let (run, _) = kind.commands();
        return Err(CommandError::process(format!("The {} server is not running", kind.label()))
            .hint(format!("it is started with: {run}")));
    }
    if kind == ServerKind::Tcp {
        session.node.set_address(None);
    }
    Ok(Reply::Empty)
}

async fn get_connections(servers: &Servers, call: Invocation) -> CommandResult {
    if call.options.wants_json() {
        let rows = ServerKind::ALL.iter().map(|kind| {
            let state = match servers.listeners.address(*kind).map(|running| running.address) {
                Some(address) => json!({
                    "external": address.external,
                    "local": address.internal,
                    "bind": address.listening_on(),
                }),
                None => json!({"external": NOT_DECLARED, "local": NOT_DECLARED, "bind": NOT_DECLARED}),
            };
            (kind.label().to_owned(), state)
        });
        return Ok(Reply::Json(serde_json::Value::Object(rows.collect())));
    }
    let mut table = Table::new(["Type", "External Address", "Internal Address", "Bind Address"]);
    for kind in ServerKind::ALL {
        match servers.listeners.address(kind).map(|running| running.address) {
            Some(address) => {
                let bound = address.listening_on();
                table.push([kind.label().to_owned(), address.external, address.internal, bound]);
            }
            None => table.push([kind.label(), NOT_DECLARED, NOT_DECLARED, NOT_DECLARED]),
        }
    }
    Ok(Reply::Table(table))
}

const NOT_DECLARED: &str = "Not declared";
