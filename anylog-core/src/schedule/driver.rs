//! The loop that runs the tasks of one scheduler.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Entry, Shared, Task};
use crate::{Caller, CommandError, Node, Session, Status};

/// The longest sleep; a clock that was moved is noticed after it.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Runs tasks as they come due until `stop` is cancelled or the node is gone.
pub(super) async fn drive(node: Weak<Node>, shared: Arc<Shared>, id: u32, stop: CancellationToken) {
    loop {
        // Listen before looking, so that a change in between is not missed.
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let sleep = {
            let Some(node) = node.upgrade() else { return };
            if stop.is_cancelled() {
                return;
            }
            let now = node.clock.now();
            for (task_id, task) in take_due(&shared, id, now) {
                tokio::spawn(run(Arc::clone(&node), Arc::clone(&shared), id, task_id, task));
            }
            time_to_next(&shared, id, now)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = &mut changed => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// Marks the tasks that are due as running, and returns them.
fn take_due(shared: &Shared, id: u32, now: Timestamp) -> Vec<(u32, Task)> {
    let mut schedulers = shared.schedulers.lock();
    let Some(scheduler) = schedulers.get_mut(&id) else { return Vec::new() };
    let mut due = Vec::new();
    for entry in &mut scheduler.entries {
        if was_moved_back(entry, now) {
            entry.start = now;
            entry.next = next_run(now, entry.task.every, now);
        }
        let by_time = !entry.stopped && entry.next <= now;
        if by_time {
            entry.next = next_run(entry.start, entry.task.every, now);
        }
        if entry.running || !(by_time || entry.run_now) {
            continue;
        }
        entry.run_now = false;
        entry.running = true;
        due.push((entry.id, entry.task.clone()));
    }
    due
}

/// True when the next run is further away than it can be: a computer without a battery may start in the wrong year, and
/// its tasks must not wait until then.
fn was_moved_back(entry: &Entry, now: Timestamp) -> bool {
    let awaits_its_start = entry.next == entry.start && entry.start_was_given;
    !awaits_its_start
        && entry.next.duration_since(now) > SignedDuration::try_from(entry.task.every).unwrap_or(SignedDuration::MAX)
}

fn time_to_next(shared: &Shared, id: u32, now: Timestamp) -> Duration {
    let schedulers = shared.schedulers.lock();
    let entries = schedulers.get(&id).map(|scheduler| scheduler.entries.as_slice()).unwrap_or_default();
    let next = entries.iter().filter(|entry| !entry.stopped).map(|entry| entry.next).min();
    let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    wait.map_or(LONGEST_SLEEP, |wait| wait.clamp(Duration::from_millis(1), LONGEST_SLEEP))
}

/// The first multiple of `every` from `start` on that lies after `now`.
pub(super) fn next_run(start: Timestamp, every: Duration, now: Timestamp) -> Timestamp {
    if start > now {
        return start;
    }
    let every = every.as_nanos().max(1);
    let passed = u128::try_from(now.as_nanosecond() - start.as_nanosecond()).unwrap_or(0);
    let ahead = every - passed % every;
    i128::try_from(ahead)
        .ok()
        .and_then(|ahead| Timestamp::from_nanosecond(now.as_nanosecond().checked_add(ahead)?).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Marks a task as ended also when its run panicked.
struct Run {
    shared: Arc<Shared>,
    scheduler: u32,
    task: u32,
    outcome: Result<(), CommandError>,
}

impl Drop for Run {
    fn drop(&mut self) {
        {
            let mut schedulers = self.shared.schedulers.lock();
            let entries = schedulers.get_mut(&self.scheduler).map(|scheduler| &mut scheduler.entries);
            let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.id == self.task));
            if let Some(entry) = entry {
                entry.running = false;
                entry.runs += 1;
                entry.outcome = Some(self.outcome.clone());
            }
        }
        self.shared.changed.notify_waiters();
    }
}

async fn run(node: Arc<Node>, shared: Arc<Shared>, scheduler: u32, id: u32, task: Task) {
    let interrupted = Err(CommandError::new(Status::PROCESS_FAILURE, "The task was interrupted"));
    let mut run = Run { shared, scheduler, task: id, outcome: interrupted };
    let mut session = Session::new(node, Caller::scheduler(task.rights));
    session.thread = format!("scheduler {scheduler}");
    if let Some(console) = task.console {
        session = session.with_console(console);
    }
    let outcome = match session.execute(&task.command).await {
        // A long answer is read to its end: a task may be a query that fills a table.
        Ok(reply) => reply.into_text().await,
        Err(error) => Err(error),
    };
    debug!(scheduler, task = id, name = task.name, ok = outcome.is_ok(), "Scheduled task ended");
    run.outcome = match outcome {
        Ok(text) => {
            if !text.is_empty() {
                session.console.print(&text);
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
}
