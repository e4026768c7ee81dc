//! Whether the node is still starting: its start script runs, and what is to be done with data may not be said yet.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A script that runs longer than this is taken for one that serves, not for one that starts.
const LONGEST: Duration = Duration::from_secs(60);

/// The start of a node. A node without a start script is never starting.
#[derive(Debug)]
pub struct Startup(watch::Sender<Option<Instant>>);

impl Default for Startup {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

/// The start script runs for as long as this lives.
#[derive(Debug)]
#[must_use = "the start is over when this is dropped"]
pub struct Starting<'s>(&'s Startup);

impl Startup {
    /// The start script begins.
    pub fn begin(&self) -> Starting<'_> {
        self.begin_for(LONGEST)
    }

    fn begin_for(&self, longest: Duration) -> Starting<'_> {
        self.0.send_replace(Some(Instant::now() + longest));
        Starting(self)
    }

    /// Whether the start script runs, and has not run for longer than a minute.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.0.borrow().is_some_and(|end| Instant::now() < end)
    }

    /// Returns when the start script has come to its end, whether it succeeded or not, or has run for longer than a minute.
    pub async fn over(&self) {
        let Some(end) = *self.0.borrow() else { return };
        // The sender lives as long as this does, so the wait ends only with the start.
        drop(tokio::time::timeout_at(end, self.0.subscribe().wait_for(Option::is_none)).await);
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_when_the_script_is_over() {
        let startup = Startup::default();
        startup.over().await;
        let starting = startup.begin();
        assert!(startup.runs());
        let waiting = startup.over();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(starting);
        waiting.await;
        assert!(!startup.runs());
    }

    #[tokio::test]
    async fn a_script_that_does_not_end_is_not_waited_for() {
        let startup = Startup::default();
        let _starting = startup.begin_for(Duration::from_millis(5));
        startup.over().await;
        assert!(!startup.runs());
    }
}
