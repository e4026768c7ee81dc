//! A running node and the clients that talk to it.
//!
//! With `ANYLOG_TEST_DBMS=psql` in the environment every logical database of every node lies in PostgreSQL, in a server of the
//! node's own; with `mixed` those of every second operator of a network do, the others' in SQLite.

/// The PostgreSQL server of the database tests.
#[path = "../../../anylog-dbms/tests/dbms/server.rs"]
#[allow(dead_code, reason = "the database tests use more of it")]
pub(crate) mod server;

#[path = "process.rs"]
pub(crate) mod process;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use process::free_ports;
use process::{Process, binary, eventually_within};
use server::Server;

/// How long a condition may take to come true before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// [`DEADLINE`], or so many seconds as `ANYLOG_TEST_PATIENCE` says: long runs need more.
pub(crate) fn patience() -> Duration {
    let seconds = std::env::var("ANYLOG_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(DEADLINE, Duration::from_secs)
}

/// The database and table that the operator script maps its topic to.
pub(crate) const DBMS: &str = "test";
pub(crate) const TOPIC: &str = "anylog-demo";

/// Waits until `probe` gives a value.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(patience(), || what.to_owned(), probe)
}

/// A node's answer over REST.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The body of an answer that must be 200.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

/// A server for the databases of a node that runs a script, when this run of the tests asks for one.
pub(crate) fn server_for(script: &str) -> Option<Server> {
    static OPERATORS: AtomicUsize = AtomicUsize::new(0);
    let wanted = match std::env::var("ANYLOG_TEST_DBMS").as_deref() {
        Ok("psql") => true,
        Ok("mixed") => script == "network/operator.al" && OPERATORS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2),
        Ok("sqlite" | "") | Err(_) => false,
        Ok(other) => panic!("ANYLOG_TEST_DBMS is psql, mixed or sqlite, not '{other}'"),
    };
    wanted.then(Server::start)
}

/// The engine of a node's databases, as the language calls it.
pub(crate) fn engine() -> String {
    std::env::var("ANYLOG_TEST_DBMS").ok().filter(|engine| engine == "psql").unwrap_or_else(|| "sqlite".to_owned())
}

/// A node at home in a directory of its own, run by the operator script of the examples or by another of them.
pub(crate) struct Operator {
    pub(crate) home: TempDir,
    pub(crate) tcp: u16,
    pub(crate) rest: u16,
    script: PathBuf,
    extra: Vec<(String, String)>,
    process: Option<Process>,
    // After the process, which is to end first.
    _server: Option<Server>,
}

impl Operator {
    /// Starts the operator script in an empty home and waits until it came to its end.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(extra: &[(&str, &str)]) -> Self {
        Self::start_script("operator.al", extra)
    }

    /// Starts a script of the examples with environment variables and waits until it came to its end.
    pub(crate) fn start_script(script: &str, extra: &[(&str, &str)]) -> Self {
        let [tcp, rest] = free_ports();
        let mut extra: Vec<_> = extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let server = if extra.iter().any(|(key, _)| key == "DB_TYPE") { None } else { server_for(script) };
        if let Some(server) = &server {
            let port = server.port.to_string();
            let settings = [("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", port.as_str())];
            extra.extend(settings.map(|(k, v)| (k.to_owned(), v.to_owned())));
        }
        let home = tempfile::tempdir().expect("a temporary home");
        let mut node = Self { home, tcp, rest, script: example(script), extra, process: None, _server: server };
        node.launch();
        node
    }

    /// Starts the program again in the same home, on the same ports.
    pub(crate) fn launch(&mut self) {
        let mut command = Command::new(binary());
        command
            .arg("--home")
            .arg(self.home.path())
            .arg("process")
            .arg(&self.script)
            .args(["and", "set", "script_ended", "=", "true"])
            .env("ANYLOG_SERVER_PORT", self.tcp.to_string())
            .env("ANYLOG_REST_PORT", self.rest.to_string())
            .envs(self.extra.iter().cloned())
            .stdin(Stdio::null());
        self.process = Some(Process::start(&mut command, &self.log_file()));
        eventually("the script came to its end", || {
            if let Some(status) = self.process.as_mut().expect("started").ended() {
                panic!("the node ended with {status}: {}", self.log());
            }
            let answer = self.try_get("get !script_ended")?;
            (answer.body.trim() == "true").then_some(())
        });
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("AnyLog-Network")
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("node.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().expect("a running node").signal(signal);
    }

    /// Waits until the program ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.take().expect("a running node").wait(patience(), &self.log_file())
    }

    /// Ends the program at once, as a power failure of the process would.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("a running node").kill();
    }

    fn try_get(&self, command: &str) -> Option<Answer> {
        let answer = self.curl(&["-H", &format!("command: {command}")], None);
        (answer.status != 0).then_some(answer)
    }

    /// `GET` with a command.
    pub(crate) fn get(&self, command: &str) -> Answer {
        self.try_get(command).unwrap_or_else(|| panic!("no answer to '{command}': {}", self.log()))
    }

    /// `POST` with a command.
    pub(crate) fn post(&self, command: &str) -> Answer {
        self.curl(&["-X", "POST", "-H", &format!("command: {command}")], None)
    }

    /// A request with these headers and a body, by curl.
    pub(crate) fn request(&self, method: &str, headers: &[&str], body: &str) -> Answer {
        let mut arguments = vec!["-X", method];
        for header in headers {
            arguments.extend(["-H", header]);
        }
        self.curl(&arguments, Some(body))
    }

    /// `PUT` of rows.
    pub(crate) fn put(&self, table: &str, mode: &str, body: &str) -> Answer {
        let (table, mode) = (format!("table: {table}"), format!("mode: {mode}"));
        self.request("PUT", &["type: json", "dbms: test", &table, &mode, "Content-Type: text/plain"], body)
    }

    fn curl(&self, arguments: &[&str], body: Option<&str>) -> Answer {
        let mut curl = Command::new("curl");
        let most = patience().as_secs().to_string();
        curl.args(["-s", "--max-time", &most, "-w", "\n%{http_code}"]).args(arguments);
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        let mut child = curl
            .arg(format!("http://127.0.0.1:{}", self.rest))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl is installed");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(body.unwrap_or_default().as_bytes()).ok();
        drop(input);
        let output = child.wait_with_output().expect("curl ends");
        let text = String::from_utf8(output.stdout).expect("an answer in UTF-8");
        let (body, status) = text.rsplit_once('\n').expect("a status line");
        Answer { status: status.parse().expect("a status code"), body: body.to_owned() }
    }

    /// The rows of a SELECT.
    pub(crate) fn rows(&self, select: &str) -> Vec<Value> {
        let answer = self.get(&format!("sql {DBMS} format=json and stat=false and timezone=utc \"{select}\""));
        assert_eq!(answer.status, 200, "{select}: {}", answer.body);
        match &answer.json()["Query"] {
            Value::Array(rows) => rows.clone(),
            _ => Vec::new(),
        }
    }

    /// `select count(*)`.
    pub(crate) fn count(&self, table: &str) -> u64 {
        self.rows(&format!("select count(*) as n from {table}"))[0]["n"].as_u64().expect("a count")
    }

    /// Policies of a type.
    pub(crate) fn policies(&self, kind: &str) -> Vec<Value> {
        let answer = self.get(&format!("blockchain get {kind}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    /// Entries of the error log.
    pub(crate) fn errors(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("get error log where format=json").ok()).unwrap_or_default()
    }

    /// Publishes lines with `mosquitto_pub -l`; fails unless the client says that all were acknowledged.
    pub(crate) fn publish(&self, topic: &str, qos: u8, version: &str, lines: &str) {
        publish(self.tcp, topic, qos, version, lines);
    }

    /// Source files in the archive.
    pub(crate) fn archived(&self) -> Vec<PathBuf> {
        source_files(&self.root())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            eprintln!("--- the node's output:\n{}", self.log());
        }
    }
}

/// Publishes lines with `mosquitto_pub -l` to a broker on loopback.
pub(crate) fn publish(port: u16, topic: &str, qos: u8, version: &str, lines: &str) {
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-q", &qos.to_string(), "-V", version, "-l"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is installed");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("mosquitto_pub reads");
    let output = child.wait_with_output().expect("mosquitto_pub ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Numbered messages as the operator script maps them, one on a line.
pub(crate) fn messages(numbers: std::ops::Range<u64>) -> String {
    let mut lines = String::new();
    for n in numbers {
        writeln!(lines, r#"{{"timestamp": "2026-03-01T10:{:02}:{:02}Z", "value": {n}.5}}"#, n / 60 % 60, n % 60)
            .expect("text grows");
    }
    lines
}

/// Source files in the archive of a node. Each has its run list beside it, in a directory of the day's own.
pub(crate) fn source_files(root: &Path) -> Vec<PathBuf> {
    let beside = |file: &Path| file.parent().is_some_and(|directory| directory.ends_with(".runs"));
    let all = files_below(&root.join("data/archive"));
    let (lists, files): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(|file| beside(file));
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let list = file.with_file_name(".runs").join(format!("{}.runs", name.trim_end_matches(".gz")));
        assert!(lists.contains(&list), "{name} has a run list");
    }
    files
}

/// All files below a directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .flat_map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { vec![entry.path()] })
        .collect();
    files.sort();
    files
}

/// A script of the examples.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}
