//! Commands on a timetable.
//!
//! A node has numbered schedulers; each holds tasks, and a task is a command kept as text with the rights of who scheduled
//! it. References in the text are resolved at each run. Tasks may be added before their scheduler runs.
//!
//! # Guarantees
//!
//! * A task runs first at once, or at the start that it was given; then at every multiple of its interval from there on. A
//!   start that has passed only sets these times. Runs that were missed (the scheduler was stopped, the clock was moved
//!   forward) are not made up for. When the clock is moved back, the interval counts anew from then.
//! * A task never overlaps itself: a run that comes due while the last one still goes on is left out.
//! * Everything ends with the node's shutdown.
//!
//! Time is that of the node's [`Clock`](crate::time::Clock); a moved clock is noticed within a second.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use anylog_core::{Access, Node, schedule::Task};
//! let node = Node::builder().build();
//! node.schedulers.add(&node, 1, Task::new("flush", Duration::from_secs(60), "flush buffers", Access::Admin)).unwrap();
//! node.schedulers.run(&node, 1).unwrap();
//! assert_eq!(node.schedulers.views()[0].tasks[0].name, "flush");
//! # });
//! ```

mod driver;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::session::Console;
use crate::{Access, CommandError, Node, Status};

/// The number of the scheduler that the node's own tasks are on.
pub const SYSTEM: u32 = 0;

/// Tasks that one scheduler takes.
pub const MAX_TASKS: usize = 1000;

/// Why a scheduler or a task could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The scheduler runs already.
    #[error("Process already active: scheduler {id}")]
    Running {
        /// Its number.
        id: u32,
    },
    /// The scheduler does not run.
    #[error("Scheduler {id} is not active")]
    NotRunning {
        /// Its number.
        id: u32,
    },
    /// Another task of the scheduler has the name.
    #[error("Duplicate task name '{name}' with scheduler {scheduler}")]
    DuplicateName {
        /// The scheduler.
        scheduler: u32,
        /// The name.
        name: String,
    },
    /// The scheduler has no such task.
    #[error("Scheduler {scheduler} has no task {task}")]
    NoTask {
        /// The scheduler.
        scheduler: u32,
        /// The task as it was asked for.
        task: String,
    },
    /// The interval is zero.
    #[error("A task cannot be repeated every 0 seconds")]
    NoInterval,
    /// The scheduler is full.
    #[error("Scheduler {scheduler} has {MAX_TASKS} tasks already")]
    Full {
        /// The scheduler.
        scheduler: u32,
    },
}

impl From<ScheduleError> for CommandError {
    fn from(error: ScheduleError) -> Self {
        let message = error.to_string();
        match error {
            ScheduleError::Running { id } => {
                CommandError::new(Status::PROCESS_RUNNING, message).hint(format!("end it first: exit scheduler {id}"))
            }
            ScheduleError::NotRunning { id } => {
                CommandError::new(Status::SCHEDULER_NOT_ACTIVE, message).hint(format!("start it: run scheduler {id}"))
            }
            ScheduleError::DuplicateName { scheduler, name } => CommandError::structure(message).hint(format!(
                "use another name, or first: task remove where scheduler = {scheduler} and name = {name}"
            )),
            ScheduleError::NoTask { scheduler, .. } => {
                CommandError::parameter(message).hint(format!("list its tasks: get scheduler {scheduler}"))
            }
            ScheduleError::NoInterval => CommandError::structure(message).hint("write for example: time = 30 seconds"),
            ScheduleError::Full { .. } => {
                CommandError::new(Status::OVERLOADED, message).hint("remove tasks that are done: task remove where ...")
            }
        }
    }
}

/// A command to be repeated.
#[derive(Clone)]
pub struct Task {
    /// A name, unique in its scheduler; may be empty.
    pub name: String,
    /// Time between the beginnings of two runs.
    pub every: Duration,
    /// The first run; at once without it. One that has passed sets the time of the day only.
    pub start: Option<Timestamp>,
    /// The command as text; references in it are resolved at each run.
    pub command: String,
    /// What the command may do.
    pub rights: Access,
    /// Where it prints.
    pub console: Option<Arc<dyn Console>>,
}

impl Task {
    /// A task that runs at once and then every `every`, and prints nowhere.
    pub fn new(name: impl Into<String>, every: Duration, command: impl Into<String>, rights: Access) -> Self {
        Self { name: name.into(), every, start: None, command: command.into(), rights, console: None }
    }

    /// Runs first at `start`.
    #[must_use]
    pub fn starting(mut self, start: Option<Timestamp>) -> Self {
        self.start = start;
        self
    }

    /// Prints on this console.
    #[must_use]
    pub fn printing_on(mut self, console: Arc<dyn Console>) -> Self {
        self.console = Some(console);
        self
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .field("every", &self.every)
            .field("start", &self.start)
            .field("command", &self.command)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// A task by its number or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Its number, counted from 1.
    Id(u32),
    /// Its name.
    Name(String),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Id(id) => write!(f, "with id {id}"),
            Which::Name(name) => write!(f, "named '{name}'"),
        }
    }
}

/// What to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Lets it rest.
    Stop,
    /// Ends its rest.
    Resume,
    /// Runs it once now, also when it rests.
    Run,
    /// Takes it off the scheduler.
    Remove,
    /// Counts its repetitions from another start; from now when none is given.
    Init(Option<Timestamp>),
}

/// A scheduler as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerView {
    /// Its number.
    pub id: u32,
    /// Whether it runs.
    pub running: bool,
    /// Its tasks by number.
    pub tasks: Vec<TaskView>,
}

/// A task as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its number.
    pub id: u32,
    /// Whether it rests.
    pub stopped: bool,
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// Whether a run goes on.
    pub running: bool,
    /// How the last run ended; nothing before the first has ended.
    pub outcome: Option<Result<(), CommandError>>,
    /// From when on its repetitions count.
    pub start: Timestamp,
    /// When it runs next.
    pub next: Timestamp,
    /// Time between the beginnings of two runs.
    pub every: Duration,
    /// The command.
    pub command: String,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    task: Task,
    start: Timestamp,
    // False when `start` is only the time when the task was added.
    start_was_given: bool,
    next: Timestamp,
    stopped: bool,
    running: bool,
    run_now: bool,
    runs: u64,
    outcome: Option<Result<(), CommandError>>,
}

#[derive(Debug, Default)]
struct Scheduler {
    // Present while it runs; cancelled by `exit scheduler`.
    driver: Option<CancellationToken>,
    last_id: u32,
    entries: Vec<Entry>,
}

impl Scheduler {
    fn position(&self, scheduler: u32, which: &Which) -> Result<usize, ScheduleError> {
        let is_meant = |entry: &Entry| match which {
            Which::Id(id) => entry.id == *id,
            Which::Name(name) => !name.is_empty() && entry.task.name == *name,
        };
        self.entries
            .iter()
            .position(is_meant)
            .ok_or_else(|| ScheduleError::NoTask { scheduler, task: which.to_string() })
    }
}

#[derive(Debug, Default)]
struct Shared {
    schedulers: Mutex<BTreeMap<u32, Scheduler>>,
    changed: Notify,
}

/// All schedulers of a node.
#[derive(Debug, Default)]
pub struct Schedulers {
    shared: Arc<Shared>,
}

impl Schedulers {
    /// Starts a scheduler. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ScheduleError::Running`].
    pub fn run(&self, node: &Arc<Node>, id: u32) -> Result<(), ScheduleError> {
        let stop = node.shutdown.child_token();
        {
            let mut schedulers = self.shared.schedulers.lock();
            let scheduler = schedulers.entry(id).or_default();
            if scheduler.driver.as_ref().is_some_and(|driver| !driver.is_cancelled()) {
                return Err(ScheduleError::Running { id });
            }
            scheduler.driver = Some(stop.clone());
        }
        tokio::spawn(driver::drive(Arc::downgrade(node), Arc::clone(&self.shared), id, stop));
        Ok(())
    }

    /// Stops a scheduler and keeps its tasks. A run that goes on is finished.
    ///
    /// # Errors
    /// [`ScheduleError::NotRunning`].
    pub fn stop(&self, id: u32) -> Result<(), ScheduleError> {
        let mut schedulers = self.shared.schedulers.lock();
        let driver = schedulers.get_mut(&id).and_then(|scheduler| scheduler.driver.take());
        match driver.filter(|driver| !driver.is_cancelled()) {
            Some(driver) => {
                driver.cancel();
                Ok(())
            }
            None => Err(ScheduleError::NotRunning { id }),
        }
    }

    /// Adds a task to a scheduler, which need not run yet, and returns the task's number.
    ///
    /// # Errors
    /// [`ScheduleError::DuplicateName`], [`ScheduleError::NoInterval`], [`ScheduleError::Full`].
    pub fn add(&self, node: &Node, scheduler: u32, task: Task) -> Result<u32, ScheduleError> {
        if task.every < Duration::from_millis(1) {
            return Err(ScheduleError::NoInterval);
        }
        let now = node.clock.now();
        let start = task.start.unwrap_or(now);
        let next = if start < now { driver::next_run(start, task.every, now) } else { start };
        let id = {
            let mut schedulers = self.shared.schedulers.lock();
            let holder = schedulers.entry(scheduler).or_default();
            if holder.position(scheduler, &Which::Name(task.name.clone())).is_ok() {
                return Err(ScheduleError::DuplicateName { scheduler, name: task.name });
            }
            if holder.entries.len() >= MAX_TASKS {
                return Err(ScheduleError::Full { scheduler });
            }
            holder.last_id += 1;
            let id = holder.last_id;
            holder.entries.push(Entry {
                id,
                start_was_given: task.start.is_some(),
                task,
                start,
                next,
                stopped: false,
                running: false,
                run_now: false,
                runs: 0,
                outcome: None,
            });
            id
        };
        self.shared.changed.notify_waiters();
        Ok(id)
    }

    /// Changes a task.
    ///
    /// # Errors
    /// [`ScheduleError::NoTask`]; [`ScheduleError::NotRunning`] for [`Change::Run`] on a scheduler that does not run.
    pub fn change(&self, node: &Node, id: u32, which: &Which, change: Change) -> Result<(), ScheduleError> {
        {
            let mut schedulers = self.shared.schedulers.lock();
            let no_task = || ScheduleError::NoTask { scheduler: id, task: which.to_string() };
            let scheduler = schedulers.get_mut(&id).ok_or_else(no_task)?;
            let position = scheduler.position(id, which)?;
            let runs = scheduler.driver.as_ref().is_some_and(|driver| !driver.is_cancelled());
            let now = node.clock.now();
            match change {
                Change::Stop => scheduler.entries[position].stopped = true,
                Change::Resume => {
                    let entry = &mut scheduler.entries[position];
                    entry.stopped = false;
                    entry.next = driver::next_run(entry.start, entry.task.every, now);
                }
                Change::Run if !runs => return Err(ScheduleError::NotRunning { id }),
                Change::Run => scheduler.entries[position].run_now = true,
                Change::Remove => drop(scheduler.entries.remove(position)),
                Change::Init(start) => {
                    let entry = &mut scheduler.entries[position];
                    entry.start = start.unwrap_or(now);
                    entry.start_was_given = start.is_some();
                    entry.next = if entry.start < now {
                        driver::next_run(entry.start, entry.task.every, now)
                    } else {
                        entry.start
                    };
                }
            }
        }
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// All schedulers by number.
    #[must_use]
    pub fn views(&self) -> Vec<SchedulerView> {
        let schedulers = self.shared.schedulers.lock();
        let view = |(id, scheduler): (&u32, &Scheduler)| SchedulerView {
            id: *id,
            running: scheduler.driver.as_ref().is_some_and(|driver| !driver.is_cancelled()),
            tasks: scheduler.entries.iter().map(Entry::view).collect(),
        };
        schedulers.iter().map(view).collect()
    }
}

impl Entry {
    fn view(&self) -> TaskView {
        TaskView {
            id: self.id,
            stopped: self.stopped,
            name: self.task.name.clone(),
            runs: self.runs,
            running: self.running,
            outcome: self.outcome.clone(),
            start: self.start,
            next: self.next,
            every: self.task.every,
            command: self.task.command.clone(),
        }
    }
}
