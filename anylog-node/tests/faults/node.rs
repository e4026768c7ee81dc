//! A node as a process: started, asked, killed, started again at the same home.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::{eventually, example, free_ports};

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

/// An answer over REST.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_anylog-node"));
    std::env::var_os("ANYLOG_NODE_BINARY").map_or_else(built, PathBuf::from)
}

/// A node at a home.
pub(crate) struct Node {
    pub(crate) home: PathBuf,
    pub(crate) tcp: u16,
    pub(crate) rest: u16,
    /// A program and its arguments in front of the node's own.
    pub(crate) wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
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
        Self { home: home.to_owned(), tcp, rest, wrapper: Vec::new(), environment, child: None }
    }

    /// A node that runs.
    pub(crate) fn running(home: &Path, environment: &[(&str, &str)]) -> Self {
        let mut node = Self::new(home, environment);
        node.launch();
        node
    }

    /// Starts the program, and does not wait.
    pub(crate) fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut words = self.wrapper.clone();
        words.push(binary().to_str().unwrap().to_owned());
        let child = Command::new(&words[0])
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
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the node starts");
        self.child = Some(child);
    }

    /// Starts the program and waits until its operator runs.
    pub(crate) fn launch(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Waits until the operator runs.
    pub(crate) fn ready(&mut self) {
        eventually("the operator runs", || {
            let child = self.child.as_mut().expect("started");
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", self.log());
            }
            let answer = self.try_get("get processes where format=json").ok()?;
            let processes: Value = serde_json::from_str(&answer.body).ok()?;
            (processes["Operator"]["Status"] == "Running").then_some(())
        });
    }

    /// Waits until the operator runs or the program has ended; says whether it runs.
    pub(crate) fn ready_or_ended(&mut self) -> bool {
        eventually("the operator runs, or the node has ended", || {
            if self.ended() {
                return Some(false);
            }
            let answer = self.try_get("get processes where format=json").ok()?;
            let processes: Value = serde_json::from_str(&answer.body).ok()?;
            (processes["Operator"]["Status"] == "Running").then_some(true)
        })
    }

    /// Waits until the operator runs, or the program has ended, or its start script has failed; says whether the operator runs.
    pub(crate) fn settles(&mut self) -> bool {
        eventually("the start comes to an end", || {
            if self.ended() || self.log().contains("anylog-node: ") {
                return Some(false);
            }
            let answer = self.try_get("get processes where format=json").ok()?;
            let processes: Value = serde_json::from_str(&answer.body).ok()?;
            (processes["Operator"]["Status"] == "Running").then_some(true)
        })
    }

    /// Whether the program has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits until the program ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running node");
        eventually("the node ends", || child.try_wait().unwrap())
    }

    /// Ends the program as SIGKILL does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().unwrap();
        child.wait().unwrap();
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
        let answer = self.get(&format!("sql test format=json and stat=false \"{select}\""));
        if answer.status != 200 {
            return Err(answer.body);
        }
        let value: Value = serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
        Ok(value["Query"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of the node's output:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A request to a REST server on loopback; an error when there is no whole answer.
pub(crate) fn request(port: u16, method: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    // Version 1.0: the answer ends where the connection ends.
    let mut text = format!("{method} / HTTP/1.0\r\nHost: 127.0.0.1\r\nUser-Agent: anylog\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("an answer that is no text"))?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("half an answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::Error::other("the answer is cut off"));
    }
    Ok(Answer { status, body: body.to_owned() })
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
