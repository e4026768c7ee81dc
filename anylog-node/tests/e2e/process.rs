//! The program under test as a process: started, signalled, killed, waited for.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The program: the one that cargo built, or another one, such as an optimised one for a long run.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_anylog-node"));
    std::env::var_os("ANYLOG_NODE_BINARY").map_or_else(built, PathBuf::from)
}

/// Ports of loopback that nobody listens at, all different, and below those that the system gives to connections: a node that comes
/// back later finds its own free.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock();
    // Programs of tests that run side by side begin apart.
    let start = || 12_000 + u16::try_from(std::process::id() % 600).expect("a small number") * 30;
    std::array::from_fn(|_| {
        loop {
            let port = next.unwrap_or_else(start);
            *next = Some(if port >= 31_900 { 12_000 } else { port + 1 });
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// Waits until `probe` gives a value; fails with `what` was waited for when that takes longer than `patience`.
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: impl FnOnce() -> String,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {}", what());
        // A condition is polled; the pause only spares the processor.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The end of what a program printed.
pub(crate) fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A process that ends with this value, by force when it has to.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command whose output is added to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Self(command.spawn().expect("the program starts"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child to ask")
    }

    /// Sends a signal by name, as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self, patience: Duration, log: &Path) -> ExitStatus {
        eventually_within(patience, || format!("the program ends: {}", last_words(log)), || self.ended())
    }

    /// Ends it as SIGKILL does.
    pub(crate) fn kill(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both are without effect on a process that has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
