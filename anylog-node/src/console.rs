//! Where sessions print.

use std::io::Write;

use anylog_core::session::Console;
use parking_lot::Mutex;

/// What a session that answers over a network may print; what comes after it is dropped.
const LIMIT: usize = 1024 * 1024;

/// Keeps what a session prints, for a caller who sees only the reply.
#[derive(Debug, Default)]
pub struct Collected(Mutex<String>);

impl Collected {
    /// Takes what was printed until now.
    #[must_use]
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Console for Collected {
    fn print(&self, text: &str) {
        let mut all = self.0.lock();
        if all.len() + text.len() < LIMIT {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(text);
        }
    }
}

/// Prints to the program's standard output.
#[derive(Debug, Default, Clone, Copy)]
pub struct StandardOutput;

impl Console for StandardOutput {
    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // The reader may have gone (a closed pipe); the node does not end because of it.
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            tracing::debug!(%error, "The standard output is closed");
        }
    }
}
