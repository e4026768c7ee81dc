//! The command language: from a line of text to a command that ran.

pub mod builtin;
pub mod condition;
pub mod expand;
mod flow;
pub mod lexer;
pub mod script;
pub mod where_list;

pub(crate) use flow::register_flow;

use crate::command::CommandResult;
use crate::{CommandError, Session, Status};

/// Runs one command line.
pub(crate) async fn execute(_session: &mut Session, line: &str) -> CommandResult {
    Err(CommandError::new(Status::UNRECOGNIZED_COMMAND, line))
}
