//! The processes that are measured: a node run by the operator script of the examples, and mosquitto.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::http;

/// The database, table and topic of the operator script.
pub const DBMS: &str = "test";
/// See [`DBMS`].
pub const TABLE: &str = "rand_data";
/// See [`DBMS`].
pub const TOPIC: &str = "anylog-demo";

/// How long a process may take to start, and a row to become visible.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a process used so far, as `/proc` says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processor time in user and system mode.
    pub cpu: Duration,
    /// Bytes that it caused to be written to disks.
    pub written: u64,
    /// Most memory that was resident at once, in bytes.
    pub peak_memory: u64,
}

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    ///
    /// When there is no such process or it belongs to somebody else.
    pub fn of(pid: u32) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        parse(&read("stat")?, &read("io")?, &read("status")?)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid} does not read as expected")))
    }

    /// What was used since an earlier look; the peak stays that of the whole life.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: self.written.saturating_sub(earlier.written),
            peak_memory: self.peak_memory,
        }
    }
}

fn parse(stat: &str, io: &str, status: &str) -> Option<Usage> {
    // The name in parentheses may hold blanks; utime and stime are the 12th and 13th field after it, in 1/100 s.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let cpu = Duration::from_millis(10 * (ticks()? + ticks()?));
    let value = |text: &str, key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let written = value(io, "write_bytes:")?;
    Some(Usage { cpu, written, peak_memory: value(status, "VmHWM:")? * 1024 })
}

/// A port that was free a moment ago.
///
/// # Errors
///
/// When loopback has none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Polls until `probe` gives a value.
///
/// # Errors
///
/// When it does not within two minutes.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(io::Error::other(format!("not within {DEADLINE:?}: {what}")));
        }
        // Looking costs the watched process time too, so later looks are rarer: a hundredth of the time waited.
        let waited = Instant::now().saturating_duration_since(end - DEADLINE);
        std::thread::sleep((waited / 100).max(Duration::from_millis(2)));
    }
}

/// Installs a Debian package when a program that it brings is missing.
///
/// # Errors
///
/// When it is missing and cannot be installed.
pub fn ensure(program: &str, package: &str) -> io::Result<()> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where a user's PATH does not look.
    let mut directories = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    if directories.any(|directory| directory.join(program).exists()) {
        return Ok(());
    }
    let status = Command::new("apt-get").args(["install", "-y", "--no-install-recommends", package]).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} is missing and cannot be installed: apt-get install {package}")))
}

/// A process that ends with its value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An operator node in a home of its own.
#[derive(Debug)]
pub struct Node {
    process: Running,
    home: TempDir,
    /// Port of the message broker.
    pub broker: u16,
    /// Port of the REST server.
    pub rest: u16,
}

impl Node {
    /// Starts a node with a new home below `directory` and waits until its operator runs. Its table is there: one row was
    /// published, see [`Node::FIRST_ROWS`].
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(binary: &Path, directory: &Path) -> io::Result<Self> {
        Self::start_with(binary, directory, &[])
    }

    /// As [`Node::start`], with environment variables that the script reads.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_with(binary: &Path, directory: &Path, settings: &[(&str, String)]) -> io::Result<Self> {
        let home = TempDir::new_in(directory)?;
        let (broker, rest) = (free_port()?, free_port()?);
        let log = fs::File::create(home.path().join("node.log"))?;
        let child = Command::new(binary)
            .arg("--home")
            .arg(home.path())
            .arg("process")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/operator.al"))
            .env("ANYLOG_SERVER_PORT", broker.to_string())
            .env("ANYLOG_REST_PORT", rest.to_string())
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", binary.display())))?;
        let mut node = Self { process: Running(child), home, broker, rest };
        eventually("the operator runs", || node.is_running())?;
        let message = br#"{"timestamp": "2024-01-01T00:00:00Z", "value": 100.0}"#;
        let headers = format!("dbms: {DBMS}\r\ntable: {TABLE}\r\nmode: streaming\r\n");
        // A node that is still starting answers 503.
        eventually("the first row is stored", || {
            let answer = http::request(rest, "PUT", &headers, message)?;
            if answer.status == 503 { Ok(None) } else { node.expect(answer).map(Some) }
        })?;
        node.command("flush buffers")?;
        node.wait_for_rows(TABLE, Self::FIRST_ROWS)?;
        Ok(node)
    }

    /// Rows of the table at the start: with the first one table, partition and policies are made, which a load should not pay.
    pub const FIRST_ROWS: u64 = 1;

    fn is_running(&mut self) -> io::Result<Option<()>> {
        if let Some(status) = self.process.0.try_wait()? {
            return Err(io::Error::other(format!("the node ended with {status}: {}", self.log())));
        }
        let Ok(answer) = http::request(self.rest, "GET", "command: get processes where format=json\r\n", b"") else {
            return Ok(None);
        };
        let processes: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok((processes["Operator"]["Status"] == "Running").then_some(()))
    }

    /// What the node printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("node.log")).unwrap_or_default()
    }

    /// The directory of the node's data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("AnyLog-Network/data")
    }

    /// Runs a command by `POST`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn command(&self, command: &str) -> io::Result<Vec<u8>> {
        self.expect(http::request(self.rest, "POST", &format!("command: {command}\r\n"), b"")?)
    }

    fn expect(&self, answer: http::Answer) -> io::Result<Vec<u8>> {
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Err(io::Error::other(format!("status {}: {text}", answer.status)))
    }

    /// Rows of a table that a query finds; zero while there is no table.
    ///
    /// # Errors
    ///
    /// When the node does not answer.
    pub fn rows(&self, table: &str) -> io::Result<u64> {
        let sql = format!("command: sql {DBMS} format=json and stat=false \"select count(*) as n from {table}\"\r\n");
        let answer = http::request(self.rest, "GET", &sql, b"")?;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(answer["Query"][0]["n"].as_u64().unwrap_or_default())
    }

    /// Waits until a query finds as many rows; more is an error.
    ///
    /// # Errors
    ///
    /// When there are too many, or too few after two minutes.
    pub fn wait_for_rows(&self, table: &str, rows: u64) -> io::Result<()> {
        let mut found = 0;
        eventually("all rows can be queried", || {
            found = self.rows(table)?;
            match found {
                found if found > rows => Err(io::Error::other(format!("{found} rows instead of {rows}"))),
                found => Ok((found == rows).then_some(())),
            }
        })
        .map_err(|error| io::Error::other(format!("{error}: {found} of {rows}")))
    }

    /// What the node used so far.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.process.0.id())
    }
}

/// A mosquitto that keeps nothing on disk and drops nothing.
#[derive(Debug)]
pub struct Mosquitto {
    process: Running,
    _directory: TempDir,
    /// Its port.
    pub port: u16,
}

impl Mosquitto {
    /// Starts it with queues without bounds, as the defaults would drop messages of a fast publisher.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not come up.
    pub fn start(directory: &Path) -> io::Result<Self> {
        ensure("mosquitto", "mosquitto")?;
        let directory = TempDir::new_in(directory)?;
        let port = free_port()?;
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_bytes 0\n"
        );
        let file = directory.path().join("mosquitto.conf");
        fs::write(&file, settings)?;
        let program =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|path| Path::new(path).exists());
        let child = Command::new(program.unwrap_or("mosquitto"))
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("mosquitto: {error}")))?;
        let broker = Self { process: Running(child), _directory: directory, port };
        eventually("mosquitto listens", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(broker)
    }

    /// What it used so far.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.process.0.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 8 0";
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nread_bytes: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        let status = "Name:\tnode\nVmHWM:\t   2048 kB\nVmRSS:\t  1024 kB\n";
        let usage = parse(stat, io, status).expect("understood");
        let expected = Usage { cpu: Duration::from_secs(2), written: 4096, peak_memory: 2 << 20 };
        assert_eq!(usage, expected);
        assert_eq!(usage.since(expected), Usage { cpu: Duration::ZERO, written: 0, peak_memory: 2 << 20 });
        assert!(Usage::of(std::process::id()).expect("this process").peak_memory > 0);
    }
}
