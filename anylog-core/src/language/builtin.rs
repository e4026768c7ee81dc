//! The commands of the language itself and of the node: printing, parameters, JSON, logs, the computer, the schedule.

mod files;
mod help;
mod json;
mod logs;
mod machine;
mod network;
mod node;
mod output;
mod parameters;
mod process;
mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::command::{Command, CommandResult, Declaration, Invocation};
use crate::{Node, Session, command};

pub(crate) use network::publish as publish_parameters;
pub(crate) use parameters::secret_reference;

/// Registers the language's own commands.
///
/// # Panics
/// When two of them claim the same words: a mistake in a declaration.
pub(crate) fn register(node: &Arc<Node>) {
    node.registry.register_all(all()).expect("invariant: the commands of the language have distinct names");
    schedule::declare_process(node);
    super::register_flow(node);
}

fn all() -> impl Iterator<Item = Arc<dyn Command>> {
    let groups = [
        files::commands(),
        help::commands(),
        json::commands(),
        logs::commands(),
        machine::commands(),
        network::commands(),
        node::commands(),
        output::commands(),
        parameters::commands(),
        process::commands(),
        schedule::commands(),
    ];
    groups.into_iter().flatten()
}

/// A command that answers at once.
fn simple(declaration: Declaration, handler: fn(&mut Session, &Invocation) -> CommandResult) -> Arc<dyn Command> {
    command(declaration, Arc::new(()), move |_, session, call| Box::pin(std::future::ready(handler(session, &call))))
}

/// A command that reads files or asks the computer: it runs on a thread where it may wait.
fn blocking(declaration: Declaration, handler: fn(&BlockingCall) -> CommandResult) -> Arc<dyn Command> {
    command(declaration, Arc::new(()), move |_, session, call| {
        let call = BlockingCall { node: Arc::clone(&session.node), caller: session.caller.clone(), call };
        Box::pin(async move {
            tokio::task::spawn_blocking(move || handler(&call)).await.unwrap_or_else(|error| {
                Err(crate::CommandError::process(format!("The command was interrupted: {error}")))
            })
        })
    })
}

/// What a command that may wait works on.
struct BlockingCall {
    node: Arc<Node>,
    caller: crate::Caller,
    call: Invocation,
}
