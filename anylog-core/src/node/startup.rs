//! Whether the node has started: until its start script has come to a good end, what is to be done with data may not be said yet.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{CommandError, Status};

/// A script that runs longer than this is taken for one that serves, not for one that starts.
const LONGEST: Duration = Duration::from_secs(60);

/// How far the start of a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The start script runs.
    Begins,
    /// The start script did not come to a good end, or has run for longer than a minute: parts of what it is to declare may be
    /// there, others not.
    Incomplete,
    /// The start script has succeeded, or there is none.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Over,
    Runs { until: Instant },
    Failed,
}

/// The start of a node. A node without a start script has started.
#[derive(Debug)]
pub struct Startup(watch::Sender<State>);

impl Default for Startup {
    fn default() -> Self {
        Self(watch::Sender::new(State::Over))
    }
}

/// The start script runs for as long as this lives.
#[derive(Debug)]
#[must_use = "a start that is dropped has failed"]
pub struct Starting<'s>(&'s Startup);

impl Startup {
    /// The start script begins.
    pub fn begin(&self) -> Starting<'_> {
        self.begin_for(LONGEST)
    }

    fn begin_for(&self, longest: Duration) -> Starting<'_> {
        self.0.send_replace(State::Runs { until: Instant::now() + longest });
        Starting(self)
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match *self.0.borrow() {
            State::Over => Phase::Over,
            State::Runs { until } if Instant::now() < until => Phase::Begins,
            State::Runs { .. } | State::Failed => Phase::Incomplete,
        }
    }

    /// Whether the start script failed, and nobody has mended it.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        *self.0.borrow() == State::Failed
    }

    /// What somebody is told who named something that is not there: until the start is over, it may yet be declared, so the same is
    /// to come again.
    #[must_use]
    pub fn explain(&self, missing: CommandError) -> CommandError {
        if self.phase() == Phase::Over {
            return missing;
        }
        let message = format!("{}, and the start script of the node did not come to its end", missing.message);
        CommandError::new(Status::STARTING, message)
            .hint("send the same again later; see with 'get status' whether the script failed")
    }

    /// Returns when the start does not begin any more: the script has come to an end, good or not, or has run for a minute.
    pub async fn begun(&self) {
        let State::Runs { until } = *self.0.borrow() else { return };
        let ended = |state: &State| !matches!(state, State::Runs { .. });
        // The sender lives as long as this does, so the wait ends only with the start.
        drop(tokio::time::timeout_at(until, self.0.subscribe().wait_for(ended)).await);
    }

    /// A script that somebody ran after the start script had failed has succeeded: what was missing is declared.
    pub(crate) fn mend(&self) {
        self.0.send_if_modified(|state| {
            let failed = *state == State::Failed;
            if failed {
                *state = State::Over;
            }
            failed
        });
    }
}

impl Starting<'_> {
    /// The start script has succeeded.
    pub fn succeeds(self) {
        self.0.0.send_replace(State::Over);
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|state| {
            let fails = matches!(state, State::Runs { .. });
            if fails {
                *state = State::Failed;
            }
            fails
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_when_the_script_is_over() {
        let startup = Startup::default();
        startup.begun().await;
        let starting = startup.begin();
        assert_eq!(startup.phase(), Phase::Begins);
        let waiting = startup.begun();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        starting.succeeds();
        waiting.await;
        assert_eq!(startup.phase(), Phase::Over);
    }

    #[tokio::test]
    async fn a_script_that_fails_leaves_the_start_incomplete_until_it_is_mended() {
        let startup = Startup::default();
        let starting = startup.begin();
        // A script inside the start script does not end the start.
        startup.mend();
        assert_eq!(startup.phase(), Phase::Begins);
        drop(starting);
        startup.begun().await;
        assert_eq!((startup.phase(), startup.has_failed()), (Phase::Incomplete, true));
        let missing = || CommandError::new(Status::NOT_SUBSCRIBED, "nobody takes it");
        assert_eq!(startup.explain(missing()).status, Status::STARTING);
        startup.mend();
        assert_eq!((startup.phase(), startup.has_failed()), (Phase::Over, false));
        assert_eq!(startup.explain(missing()), missing());
    }

    #[tokio::test]
    async fn a_script_that_does_not_end_is_not_waited_for() {
        let startup = Startup::default();
        let starting = startup.begin_for(Duration::from_millis(5));
        startup.begun().await;
        assert_eq!((startup.phase(), startup.has_failed()), (Phase::Incomplete, false));
        starting.succeeds();
        assert_eq!(startup.phase(), Phase::Over);
    }
}
