//! One thread of commands: its caller, its if-flag, where it prints.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::CommandResult;
use crate::{Access, Caller, CommandError, Node};

/// Where `print` and the replies of scripts go.
pub trait Console: Send + Sync {
    /// Shows one piece of text; the console adds the line end.
    fn print(&self, text: &str);
}

/// Prints to nowhere; for callers whose reply is all they see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Console for Silent {
    fn print(&self, _: &str) {}
}

/// The state of one thread of commands.
///
/// A terminal has one session; each REST request, each `thread`, each scheduled task has its own. All share the
/// [`Node`].
pub struct Session {
    /// What all sessions share.
    pub node: Arc<Node>,
    /// Who asks.
    pub caller: Caller,
    /// Where output goes that is not the reply.
    pub console: Arc<dyn Console>,
    /// Set by every `if` that ran; `do` and `else` look at it.
    pub if_flag: Option<bool>,
    /// A name for logs: `main`, `rest`, the script's file.
    pub thread: String,
    pub(crate) scripts: Vec<crate::language::script::Frame>,
    /// How many commands contain the one that runs.
    pub(crate) depth: usize,
    /// What `then`, `do` or `else` of the running command hands over to.
    pub(crate) then: Option<crate::language::Then>,
}

impl Session {
    /// A session that prints nowhere.
    #[must_use]
    pub fn new(node: Arc<Node>, caller: Caller) -> Self {
        Self {
            node,
            caller,
            console: Arc::new(Silent),
            if_flag: None,
            thread: "main".to_owned(),
            scripts: Vec::new(),
            depth: 0,
            then: None,
        }
    }

    /// The same session with another console.
    #[must_use]
    pub fn with_console(mut self, console: Arc<dyn Console>) -> Self {
        self.console = console;
        self
    }

    /// A session of the same node, caller and console with a thread of its own.
    #[must_use]
    pub fn fork(&self, thread: impl Into<String>) -> Self {
        Self {
            node: Arc::clone(&self.node),
            caller: self.caller.clone(),
            console: Arc::clone(&self.console),
            if_flag: None,
            thread: thread.into(),
            scripts: Vec::new(),
            depth: 0,
            then: None,
        }
    }

    /// Runs one command line: lexes it, finds the command, checks rights and shape, runs it, performs an assignment.
    ///
    /// Success and failure are written to the event log, failures to the error log as well. A caller who is no
    /// administrator may not refer to parameters that hold passwords.
    pub async fn execute(&mut self, line: &str) -> CommandResult {
        if self.caller.rights < Access::Admin
            && let Some(secret) = crate::language::builtin::secret_reference(line)
        {
            let error = CommandError::new(
                crate::Status::UNAUTHORIZED,
                format!("Unauthorized command: '{secret}' may be used by administrators only"),
            );
            return Err(error.hint("run it at the node itself"));
        }
        let result = crate::language::execute(self, line).await;
        if let Err(error) = &result
            && self.node.traceback()
        {
            tracing::warn!(thread = self.thread, caller = ?self.caller, status = error.status.0, %error, "Command failed");
        }
        result
    }

    /// Runs a script file to its end, as `process <path>` does.
    pub async fn run_script(&mut self, path: &Path) -> Result<(), CommandError> {
        crate::language::script::run_file(self, path, &[]).await
    }

    /// Fails unless the caller has this right; the error names the setting that grants it.
    pub fn require(&self, access: Access, what: &str) -> Result<(), CommandError> {
        if self.caller.rights >= access {
            return Ok(());
        }
        Err(CommandError::new(
            crate::Status::UNAUTHORIZED,
            format!("Unauthorized command: '{what}' administers the node and is refused from this address"),
        )
        .hint("run it at the node itself, or allow it there with: set remote admin on"))
    }

    /// The path that this caller may use; see [`WorkDirectories::permit`](crate::node::work_directories::WorkDirectories::permit).
    pub fn permit_path(&self, path: &str) -> Result<PathBuf, CommandError> {
        self.node.directories.permit(&self.caller, path)
    }

    /// A work directory by its dictionary name.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.node.directories.directory(&self.node.dictionary, name)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("thread", &self.thread)
            .field("caller", &self.caller)
            .field("if_flag", &self.if_flag)
            .finish_non_exhaustive()
    }
}
