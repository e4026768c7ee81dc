//! The command language: from a line of text to a command that ran.

pub mod builtin;
pub mod condition;
pub mod expand;
pub mod lexer;
pub mod script;
pub mod where_list;

mod arguments;
mod assign;
mod execute;
mod flow;
mod secrets;

pub(crate) use flow::register_flow;

use crate::Session;
use crate::command::CommandResult;

/// Runs one command line.
pub(crate) async fn execute(session: &mut Session, line: &str) -> CommandResult {
    execute::execute(session, line).await
}
