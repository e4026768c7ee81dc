//! Script files: commands in lines, with labels, blocks and error policies.
//!
//! | line | meaning |
//! |---|---|
//! | `# ...`, blank | skipped |
//! | `:name:` | a label for `goto` and `call` |
//! | `< ...` to a line that ends `>` | one command over several lines; comments inside are dropped |
//! | a command with an open `{` or `[` | goes on in the next lines until all are closed |
//! | `variables (a, b)` | the arguments of the script; it starts after this line |
//!
//! `on error` decides what follows a failing command: the script ends with the error (`end script`, and without any `on
//! error` with status 56), goes on (`ignore`), or continues at a label (`goto`, `call`). A syntax error or a missing script
//! ends it in any case but `ignore`. The policy is the script's own; a script that it calls starts without one.
//!
//! A script runs with the rights of who started it.

pub mod running;

mod debug;
mod load;
mod run;

use std::path::Path;

pub use load::Script;
pub use running::{RunningScript, Scripts};

pub(crate) use debug::{Mode, Release};
pub(crate) use load::unfold;
pub(crate) use run::{run_file, start_thread};

use crate::{CommandError, Session};

/// Scripts may call scripts so deep.
pub(crate) const MAX_SCRIPT_DEPTH: usize = 16;

/// What a script does after a failing command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum OnError {
    /// No policy: the script ends with status 56.
    #[default]
    Undeclared,
    /// The next line runs.
    Ignore,
    /// The script goes on at a label.
    Goto(String),
    /// The script goes on at a label; `return` comes back.
    Call(String),
    /// The script ends with the error.
    EndScript,
}

/// What a flow command asks the running script to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    Goto(String),
    Call(String),
    Return,
    EndScript,
}

/// Where a running script stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) on_error: OnError,
    /// How often scripts were ended when this one began: once more ends it.
    pub(crate) generation: u64,
    /// Set by a command of the current line, taken after it.
    pub(crate) flow: Option<Flow>,
    /// Lines to which `return` comes back.
    calls: Vec<usize>,
    /// The label of the last `goto` or `call` in the script's own words.
    last_target: Option<String>,
}

impl Session {
    /// Runs a script file to its end with arguments for its `variables` line, as `process <path> <arguments>` does.
    ///
    /// # Errors
    /// [`Status::NO_SCRIPT`](crate::Status::NO_SCRIPT) when the file cannot be read; an error of the script itself names the
    /// script, the line, the command and the cause.
    pub async fn run_script_with(&mut self, path: &Path, arguments: &[String]) -> Result<(), CommandError> {
        run_file(self, path, arguments).await
    }

    /// Runs a script that was parsed before.
    ///
    /// # Errors
    /// As [`Session::run_script_with`].
    pub async fn run_parsed(&mut self, script: &Script, arguments: &[String]) -> Result<(), CommandError> {
        run::run(self, script, arguments).await
    }

    /// Runs a list of commands, such as the `script` of a policy, until one fails. Labels have no meaning in it.
    ///
    /// # Errors
    /// That of the first command that fails, with its number in the list.
    pub async fn run_commands(&mut self, name: &str, commands: &[String]) -> Result<(), CommandError> {
        run::run(self, &Script::from_commands(name, commands), &[]).await
    }
}
