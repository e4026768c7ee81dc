//! A node as a process: started, asked, killed, started again at the same home.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::process::{Process, binary, eventually_within, last_words};
use super::harness::{eventually, example, free_ports, patience};
use super::http::{self, Answer};

/// The topic whose messages name their table.
pub(crate) const TOPIC: &str = "faults";

/// What the operator script lacks: a mapping that takes the table from the message, and columns by which rows are recognised.
const MAPPING: &str = r#"
<run mqtt client where broker=local and port=!port and log=false and topic=(
   name=faults and dbms=test and table="bring [table]" and
   column.timestamp.timestamp="bring [timestamp]" and column.n=(value="bring [n]" and type=int) and
   column.r=(value="bring [r]" and type=int)
)>
"#;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A node at a home.
pub(crate) struct Node {
    pub(crate) home: PathBuf,
    pub(crate) tcp: u16,
    pub(crate) rest: u16,
    /// A program and its arguments in front of the node's own.
    pub(crate) wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// A node that is not started yet. Its script is the operator script of the examples, with [`TOPIC`] mapped.
    pub(crate) fn new(home: &Path, environment: &[(&str, &str)]) -> Self {
        let [tcp, rest] = free_ports();
        let script = std::fs::read_to_string(example("operator.al")).unwrap();
        let (before, after) = script.split_once("# ---- 11.").expect("step 11 of the script");
        std::fs::create_dir_all(home).unwrap();
        std::fs::write(home.join("operator.al"), format!("{before}{MAPPING}\n# ---- 11.{after}")).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { home: home.to_owned(), tcp, rest, wrapper: Vec::new(), environment, process: None }
    }

    /// A node that runs.
    pub(crate) fn running(home: &Path, environment: &[(&str, &str)]) -> Self {
        let mut node = Self::new(home, environment);
        node.launch();
        node
    }

    /// Starts the program, and does not wait.
    pub(crate) fn spawn(&mut self) {
        let mut words = self.wrapper.clone();
        words.push(binary().to_str().unwrap().to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--home")
            .arg(&self.home)
            .arg("process")
            .arg(self.home.join("operator.al"))
            .env("ANYLOG_SERVER_PORT", self.tcp.to_string())
            .env("ANYLOG_REST_PORT", self.rest.to_string())
            // Rows from long ago are part of the tests; nothing may drop their partitions.
            .env("PARTITION_KEEP", "100000")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        self.process = Some(Process::start(&mut command, &self.log_file()));
    }

    /// Starts the program and waits until its operator runs.
    pub(crate) fn launch(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Waits until the operator runs.
    pub(crate) fn ready(&mut self) {
        let log = self.log_file();
        eventually_within(
            patience(),
            || format!("the operator runs: {}", last_words(&log)),
            || {
                if let Some(status) = self.process.as_mut().expect("started").ended() {
                    panic!("the node ended with {status}: {}", self.log());
                }
                self.operator_runs().then_some(())
            },
        );
    }

    fn operator_runs(&self) -> bool {
        let answer = self.try_get("get processes where format=json").ok();
        let processes: Option<Value> = answer.and_then(|answer| serde_json::from_str(&answer.body).ok());
        processes.is_some_and(|processes| processes["Operator"]["Status"] == "Running")
    }

    /// Waits until the operator runs or the program has ended; says whether it runs.
    pub(crate) fn ready_or_ended(&mut self) -> bool {
        eventually("the operator runs, or the node has ended", || {
            if self.ended() {
                return Some(false);
            }
            self.operator_runs().then_some(true)
        })
    }

    /// Waits until the operator runs, or the program has ended, or its start script has failed; says whether the operator runs.
    pub(crate) fn settles(&mut self) -> bool {
        eventually("the start comes to an end", || {
            if self.ended() || self.log().contains("anylog-node: ") {
                return Some(false);
            }
            self.operator_runs().then_some(true)
        })
    }

    /// Whether the program has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(|process| process.ended().is_some());
        if ended {
            self.process = None;
        }
        ended
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("node.log")
    }

    /// What the program printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn running_process(&self) -> &Process {
        self.process.as_ref().expect("a running node")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running_process().id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.running_process().signal(signal);
    }

    /// Waits until the program ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.take().expect("a running node").wait(patience(), &self.log_file())
    }

    /// Ends the program as SIGKILL does.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("a running node").kill();
    }

    /// The directory of the node's files.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.join("AnyLog-Network")
    }

    fn try_get(&self, command: &str) -> io::Result<Answer> {
        self.request("GET", &[("command", command)], "")
    }

    /// `GET` with a command.
    pub(crate) fn get(&self, command: &str) -> Answer {
        self.try_get(command).unwrap_or_else(|error| panic!("no answer to '{command}': {error}: {}", self.log()))
    }

    /// `POST` with a command, which must succeed.
    pub(crate) fn post(&self, command: &str) {
        let answer = self.request("POST", &[("command", command)], "").unwrap();
        assert_eq!(answer.status, 200, "{command}: {}", answer.body);
    }

    /// A request; an error when there is no whole answer.
    pub(crate) fn request(&self, method: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
        request(self.rest, method, headers, body)
    }

    /// Rows of a SELECT.
    pub(crate) fn rows(&self, select: &str) -> Result<Vec<Value>, String> {
        self.get(&format!("sql test format=json and stat=false \"{select}\"")).rows()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            eprintln!("--- the end of the node's output:\n{}", last_words(&self.log_file()));
        }
    }
}

/// A request to a REST server on loopback; an error when there is no whole answer.
pub(crate) fn request(port: u16, method: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
    http::request(port, method, headers, body, ANSWER)
}

/// `PUT` of rows to a table of `test`.
pub(crate) fn put(port: u16, table: &str, mode: &str, body: &str) -> io::Result<Answer> {
    let headers =
        [("type", "json"), ("dbms", "test"), ("table", table), ("mode", mode), ("Content-Type", "text/plain")];
    request(port, "PUT", &headers, body)
}

/// How long something took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}
