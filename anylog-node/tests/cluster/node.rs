//! A node of the cluster as a process: started, asked, killed, emptied, started again.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::chance::setting;
use super::http::{Answer, request};
use super::process::{Process, binary, eventually_within, free_ports, last_words};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a condition may take to come true before a test fails.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(setting("ANYLOG_TEST_PATIENCE").unwrap_or(120))
}

/// Waits until `probe` gives a value.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_or(|| what.to_owned(), probe)
}

/// The same, with more to say when it fails.
pub(crate) fn eventually_or<T>(what: impl FnOnce() -> String, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(patience(), what, probe)
}

/// Where a node is. Who sends to it follows it to other ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// Of the TCP server and the broker.
    pub(crate) tcp: u16,
    pub(crate) rest: u16,
}

impl Ports {
    fn new() -> Self {
        let [tcp, rest] = free_ports();
        Self { tcp, rest }
    }
}

/// Copies a directory while somebody works in it: what goes meanwhile is passed over.
fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.map(Result::unwrap) {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_directory(&path, &copy);
        } else if let Err(error) = fs::copy(&path, &copy) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}: {error}", path.display());
        }
    }
}

/// A node at a home.
pub(crate) struct Node {
    pub(crate) name: String,
    /// What its disk holds; [`Node::wipe`] removes all of it.
    pub(crate) home: PathBuf,
    ports: Arc<Mutex<Ports>>,
    script: PathBuf,
    log: PathBuf,
    settings: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// A node that is not started yet. Its home and its log lie in `directory`.
    pub(crate) fn new(directory: &Path, name: &str, script: PathBuf, settings: &[(&str, String)]) -> Self {
        Self {
            name: name.to_owned(),
            home: directory.join(name),
            ports: Arc::new(Mutex::new(Ports::new())),
            script,
            log: directory.join(format!("{name}.log")),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            process: None,
        }
    }

    /// A node of the same name and settings, at other ports, with what this one's disk holds now. It lies in another directory.
    pub(crate) fn copied(&self, directory: &Path) -> Self {
        let home = directory.join(&self.name);
        copy_directory(&self.home, &home);
        Self {
            name: self.name.clone(),
            home,
            ports: Arc::new(Mutex::new(Ports::new())),
            script: self.script.clone(),
            log: directory.join(format!("{}.log", self.name)),
            settings: self.settings.clone(),
            process: None,
        }
    }

    /// Where it is, now and after it moved.
    pub(crate) fn address(&self) -> Arc<Mutex<Ports>> {
        Arc::clone(&self.ports)
    }

    /// Where it is now.
    pub(crate) fn ports(&self) -> Ports {
        *self.ports.lock()
    }

    /// Gives it other ports. It must not run.
    pub(crate) fn moves(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        *self.ports.lock() = Ports::new();
    }

    /// Sets an environment variable of later starts.
    pub(crate) fn set(&mut self, key: &str, value: String) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value));
    }

    /// Starts the program, and does not wait. Returns the process.
    pub(crate) fn spawn(&mut self) -> u32 {
        assert!(self.process.is_none(), "{} runs already", self.name);
        fs::create_dir_all(&self.home).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("--home")
            .arg(&self.home)
            .args(["process", "--until-eof"])
            .arg(&self.script)
            .args(["and", "set", "script_ended", "=", "true"])
            .env("NODE_NAME", &self.name)
            .env("ANYLOG_SERVER_PORT", self.ports().tcp.to_string())
            .env("ANYLOG_REST_PORT", self.ports().rest.to_string())
            .envs(self.settings.iter().cloned())
            .process_group(0)
            // The process ends when its standard input does: with this program, however that ends.
            .stdin(Stdio::piped());
        self.process.insert(Process::start(&mut command, &self.log)).id()
    }

    /// Waits until its script came to its end.
    pub(crate) fn ready(&mut self) {
        let (name, log) = (self.name.clone(), self.log.clone());
        let what = || format!("{name} gets ready: {}", last_words(&log));
        eventually_or(what, || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "{} ended with {ended:?}: {}", self.name, self.last_words());
            let answer = self.try_get("get !script_ended").ok()?;
            (answer.body.trim() == "true").then_some(())
        });
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the process as SIGKILL does.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("a running node").kill();
    }

    /// Asks the process to end, and waits until it did.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let process = self.process.take().expect("a running node");
        process.signal("-TERM");
        process.wait(patience(), &self.log)
    }

    /// Destroys its disk.
    pub(crate) fn wipe(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        fs::remove_dir_all(&self.home).unwrap();
    }

    /// What the program printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log)
    }

    /// The directory of the node's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("AnyLog-Network/data")
    }

    pub(crate) fn try_get(&self, command: &str) -> io::Result<Answer> {
        request(self.ports().rest, "GET", &[("command", command)], "", ANSWER)
    }

    /// `GET` with a command.
    pub(crate) fn get(&self, command: &str) -> Answer {
        self.try_get(command)
            .unwrap_or_else(|error| panic!("{}: no answer to '{command}': {error}: {}", self.name, self.last_words()))
    }

    /// The text of a command that must succeed.
    pub(crate) fn text(&self, command: &str) -> String {
        let answer = self.get(command);
        assert_eq!(answer.status, 200, "{}: {command}: {}", self.name, answer.body);
        answer.body
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, command: &str) -> Value {
        let text = self.text(command);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {command}: {error}: {text}", self.name))
    }

    /// `POST` with a command, which must succeed.
    pub(crate) fn post(&self, command: &str) {
        let answer = request(self.ports().rest, "POST", &[("command", command)], "", ANSWER).unwrap();
        assert_eq!(answer.status, 200, "{}: {command}: {}", self.name, answer.body);
    }

    /// Rows of a SELECT over what this node holds itself, or what was answered instead.
    pub(crate) fn rows(&self, dbms: &str, select: &str) -> Result<Vec<Value>, String> {
        self.select(dbms, select, &[])
    }

    /// Rows of a SELECT over the network.
    pub(crate) fn network_rows(&self, dbms: &str, select: &str) -> Result<Vec<Value>, String> {
        self.select(dbms, select, &[("destination", "network")])
    }

    fn select(&self, dbms: &str, select: &str, headers: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let command = format!("sql {dbms} format=json and stat=false and timezone=utc \"{select}\"");
        let mut all = vec![("command", command.as_str())];
        all.extend(headers);
        request(self.ports().rest, "GET", &all, "", ANSWER).map_err(|error| error.to_string())?.rows()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            eprintln!("--- the end of the output of {}:\n{}", self.name, self.last_words());
        }
    }
}
