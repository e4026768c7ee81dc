//! The command of a person that is at work: Ctrl-C ends it, and not the node.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What a terminal of the node does at the moment.
#[derive(Debug, Default)]
pub(crate) struct Foreground(Mutex<Option<CancellationToken>>);

impl Foreground {
    /// Notes that a command begins; it is at work until what is returned goes.
    pub(super) fn begin(&self) -> AtWork<'_> {
        let asked = CancellationToken::new();
        *self.0.lock() = Some(asked.clone());
        AtWork { foreground: self, asked }
    }

    /// Asks the command at work to end. False when there is none, or when it was asked before and goes on all the same.
    pub(crate) fn interrupt(&self) -> bool {
        match &*self.0.lock() {
            Some(asked) if !asked.is_cancelled() => {
                asked.cancel();
                true
            }
            _ => false,
        }
    }
}

/// A command at work.
pub(super) struct AtWork<'a> {
    foreground: &'a Foreground,
    asked: CancellationToken,
}

impl AtWork<'_> {
    /// Returns when somebody asks the command to end.
    pub(super) async fn interrupted(&self) {
        self.asked.cancelled().await;
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        *self.foreground.0.lock() = None;
    }
}
