//! Commands: what a crate declares, how a call reaches it, and the registry that finds it.
//!
//! A command is declared once, and everything else derives from the [`Declaration`]: parsing of its words and options, error
//! messages, `help`, completion, the generated reference, the HTTP method, and who may call it.

mod declaration;
mod invocation;
mod options;
mod registry;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{CommandError, Reply, Session};
pub use declaration::{Declaration, Method, OptionKind, OptionSpec, Positional, PositionalKind};
pub use invocation::{Invocation, Word};
pub use options::{OptionValue, Options, Value};
pub(crate) use registry::MAX_KEY_WORDS;
pub use registry::{DuplicateCommand, Registry};

/// What a command comes back with.
pub type CommandResult = Result<Reply, CommandError>;

/// A command of the language. Third parties add their own by implementing this trait, or with [`command`].
#[async_trait]
pub trait Command: Send + Sync {
    /// What the command is called, what it takes, who may call it.
    fn declaration(&self) -> &Declaration;

    /// Runs the command. The caller's rights and the declared shape of the call were checked before.
    async fn run(&self, session: &mut Session, call: Invocation) -> CommandResult;
}

impl std::fmt::Debug for dyn Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Command").field(&self.declaration().words).finish()
    }
}

type Handler<S> = dyn for<'a> Fn(&'a S, &'a mut Session, Invocation) -> Pin<Box<dyn Future<Output = CommandResult> + Send + 'a>>
    + Send
    + Sync;

struct Handled<S> {
    declaration: Declaration,
    state: Arc<S>,
    handler: Box<Handler<S>>,
}

#[async_trait]
impl<S: Send + Sync> Command for Handled<S> {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    async fn run(&self, session: &mut Session, call: Invocation) -> CommandResult {
        (self.handler)(&self.state, session, call).await
    }
}

/// A command from its declaration, the state that it works on, and an async function over that state.
pub fn command<S, F>(declaration: Declaration, state: Arc<S>, handler: F) -> Arc<dyn Command>
where
    S: Send + Sync + 'static,
    F: for<'a> Fn(&'a S, &'a mut Session, Invocation) -> Pin<Box<dyn Future<Output = CommandResult> + Send + 'a>>
        + Send
        + Sync
        + 'static,
{
    Arc::new(Handled { declaration, state, handler: Box::new(handler) })
}
