//! Debugging: each command is shown, and in interactive mode waits for `next`.

use super::running::Scripts;
use crate::Session;

/// How the commands of a thread are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each command is shown with its outcome.
    On,
    /// Each command waits for `next`.
    Interactive,
}

/// What a debugged thread may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Run one command.
    Next,
    /// Run all; commands are still shown.
    Continue,
    /// End the script.
    Stop,
}

/// A thread that is debugged.
#[derive(Debug)]
pub(super) struct Debugged {
    mode: Mode,
    steps: usize,
    stop: bool,
}

impl Scripts {
    /// Changes how a thread is debugged; `None` ends it.
    pub(crate) fn set_debug(&self, thread: &str, mode: Option<Mode>) {
        let mut debugged = self.debugged.lock();
        match mode {
            Some(mode) => drop(debugged.insert(thread.to_owned(), Debugged { mode, steps: 0, stop: false })),
            None => drop(debugged.remove(thread)),
        }
        drop(debugged);
        self.released.notify_waiters();
    }

    /// The threads in interactive mode, sorted.
    pub(crate) fn interactive(&self) -> Vec<String> {
        let debugged = self.debugged.lock();
        let mut threads: Vec<String> = debugged
            .iter()
            .filter(|(_, state)| state.mode == Mode::Interactive)
            .map(|(thread, _)| thread.clone())
            .collect();
        threads.sort();
        threads
    }

    /// Lets an interactive thread go on.
    pub(crate) fn release(&self, thread: &str, release: Release) {
        if let Some(state) = self.debugged.lock().get_mut(thread) {
            match release {
                Release::Next => state.steps += 1,
                Release::Continue => state.mode = Mode::On,
                Release::Stop => state.stop = true,
            }
        }
        self.released.notify_waiters();
    }

    fn mode(&self, thread: &str) -> Option<Mode> {
        self.debugged.lock().get(thread).map(|state| state.mode)
    }

    /// Whether the thread may run its next command now; nothing when it has to wait.
    fn step(&self, thread: &str) -> Option<bool> {
        let mut debugged = self.debugged.lock();
        let Some(state) = debugged.get_mut(thread) else { return Some(true) };
        if std::mem::take(&mut state.stop) {
            return Some(false);
        }
        match state.mode {
            Mode::On => Some(true),
            Mode::Interactive if state.steps > 0 => {
                state.steps -= 1;
                Some(true)
            }
            Mode::Interactive => None,
        }
    }
}

/// Waits until the session's thread may run the command; false when its script is to end.
pub(super) async fn pause(session: &Session, line: usize, command: &str, ended: impl Fn() -> bool) -> bool {
    let scripts = &session.node.scripts;
    if scripts.mode(&session.thread) == Some(Mode::Interactive) {
        session.console.print(&format!("[{}] [{line:04}] {command}", session.thread));
    }
    loop {
        // registered before the check, so that no release between check and wait is lost
        let released = scripts.released.notified();
        tokio::pin!(released);
        released.as_mut().enable();
        if ended() {
            return false;
        }
        if let Some(run) = scripts.step(&session.thread) {
            return run;
        }
        tokio::select! {
            () = released => {}
            () = session.node.shutdown.cancelled() => return false,
        }
    }
}

/// Shows the outcome of a command when the thread is debugged.
pub(super) fn show(session: &Session, line: usize, command: &str, outcome: &str) {
    if session.node.scripts.mode(&session.thread).is_some() {
        session.console.print(&format!("[{}] [{line:04}] {command} --> {outcome}", session.thread));
    }
}
