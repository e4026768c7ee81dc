//! A network that is measured: a master, operators in clusters of their own and a query node, run by the scripts of the examples.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::process::{Running, Usage, eventually, free_port};
use crate::question::{DBMS, TABLE};

/// A script of the examples.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// One process of the network.
#[derive(Debug)]
pub struct Member {
    // None while it is stopped.
    process: Option<Running>,
    home: TempDir,
    binary: PathBuf,
    script: PathBuf,
    settings: Vec<(String, String)>,
    /// Port of its TCP server.
    pub tcp: u16,
    /// Port of its REST server.
    pub rest: u16,
}

impl Member {
    /// Starts a script with a new home below `directory`, and waits until it answers.
    pub(crate) fn start(binary: &Path, directory: &Path, script: &Path, settings: &[(&str, &str)]) -> io::Result<Self> {
        let home = TempDir::new_in(directory)?;
        let (tcp, rest) = (free_port()?, free_port()?);
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (binary, script) = (binary.to_owned(), script.to_owned());
        let mut member = Self { process: None, home, binary, script, settings, tcp, rest };
        member.start_again()?;
        Ok(member)
    }

    /// Starts its process, with the home that it has, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_again(&mut self) -> io::Result<()> {
        let log = File::create(self.home.path().join("node.log"))?;
        let child = Command::new(&self.binary)
            .arg("--home")
            .arg(self.home.path())
            .arg("process")
            .arg(&self.script)
            .env("ANYLOG_SERVER_PORT", self.tcp.to_string())
            .env("ANYLOG_REST_PORT", self.rest.to_string())
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.binary.display())))?;
        self.process = Some(Running(child));
        eventually("the node starts", || {
            if let Some(status) = self.process.as_mut().map(|process| process.0.try_wait()).transpose()?.flatten() {
                let script = self.script.display();
                return Err(io::Error::other(format!("{script} ended with {status}: {}", self.log())));
            }
            Ok(self.get("get status").ok())
        })?;
        Ok(())
    }

    /// Ends its process at once.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Waits until its operator runs.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn operator_runs(&self) -> io::Result<()> {
        eventually("the operator runs", || {
            let processes: Value = serde_json::from_str(&self.get("get processes where format=json")?)?;
            Ok((processes["Operator"]["Status"] == "Running").then_some(()))
        })
        .map_err(|error| io::Error::other(format!("{error}: {}", self.log())))
    }

    fn id(&self) -> io::Result<u32> {
        let process = self.process.as_ref().ok_or_else(|| io::Error::other("the node is stopped"))?;
        Ok(process.0.id())
    }

    /// What the process printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("node.log")).unwrap_or_default()
    }

    /// Runs a command that reads.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn get(&self, command: &str) -> io::Result<String> {
        self.command("GET", command)
    }

    /// Runs a command that changes something.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn post(&self, command: &str) -> io::Result<String> {
        self.command("POST", command)
    }

    fn command(&self, method: &str, command: &str) -> io::Result<String> {
        let answer = http::request(self.rest, method, &format!("command: {command}\r\n"), b"")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 { Ok(text) } else { Err(io::Error::other(format!("status {}: {text}", answer.status))) }
    }

    /// The directory of the database's files.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("AnyLog-Network/data")
    }

    /// The partitions of the table.
    ///
    /// # Errors
    ///
    /// When their directory cannot be read.
    pub fn partitions(&self) -> io::Result<Vec<PathBuf>> {
        let directory = self.data().join("dbms").join(format!("{DBMS}.parts")).join(TABLE);
        let files = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|end| end == "dbms"));
        files.sort();
        Ok(files)
    }

    /// How many files of partitions a database has here.
    ///
    /// # Errors
    ///
    /// When their directories cannot be read.
    pub fn partitions_of(&self, dbms: &str) -> io::Result<usize> {
        let mut count = 0;
        for table in std::fs::read_dir(self.data().join("dbms").join(format!("{dbms}.parts")))? {
            for file in std::fs::read_dir(table?.path())? {
                count += usize::from(file?.path().extension().is_some_and(|end| end == "dbms"));
            }
        }
        Ok(count)
    }

    /// The most memory that was resident since [`Member::forget_peak`], in bytes.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn peak_memory(&self) -> io::Result<u64> {
        Ok(Usage::of(self.id()?)?.peak_memory)
    }

    /// Starts the peak of the memory anew.
    ///
    /// # Errors
    ///
    /// When the kernel does not offer it.
    pub fn forget_peak(&self) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()?), "5")
    }

    /// Lets all threads of the process run on these processors only.
    ///
    /// # Errors
    ///
    /// When `taskset` fails.
    pub fn pin(&self, processors: &str) -> io::Result<()> {
        let mut command = Command::new("taskset");
        command.args(["-a", "-c", "-p", processors, &self.id()?.to_string()]);
        let output = command.stdin(Stdio::null()).output()?;
        let error = || io::Error::other(format!("taskset: {}", String::from_utf8_lossy(&output.stderr)));
        output.status.success().then_some(()).ok_or_else(error)
    }
}

/// A master, operators and a query node.
#[derive(Debug)]
pub struct Network {
    /// The node that holds the ledger.
    pub master: Member,
    /// Each in a cluster of its own.
    pub operators: Vec<Member>,
    /// The node that is asked.
    pub query: Member,
}

impl Network {
    /// Starts all processes; their homes lie below `directory`. A partition holds a day of device time.
    ///
    /// # Errors
    ///
    /// When one does not come up.
    pub fn start(binary: &Path, directory: &Path, operators: usize) -> io::Result<Self> {
        let master = Member::start(binary, directory, &example("network/master.al"), &[])?;
        let ledger = format!("127.0.0.1:{}", master.tcp);
        let operator = |number| {
            let (node, cluster) = (format!("operator-{number}"), format!("cluster-{number}"));
            let settings = [
                ("LEDGER_CONN", ledger.as_str()),
                ("NODE_NAME", &node),
                ("CLUSTER_NAME", &cluster),
                ("PARTITION_COLUMN", "timestamp"),
                ("PARTITION_INTERVAL", "1 day"),
                ("PARTITION_KEEP", "10000"),
            ];
            let operator = Member::start(binary, directory, &example("network/operator.al"), &settings)?;
            operator.operator_runs()?;
            Ok(operator)
        };
        let operators = (1..=operators).map(operator).collect::<io::Result<_>>()?;
        let query = Member::start(binary, directory, &example("network/query.al"), &[("LEDGER_CONN", &ledger)])?;
        Ok(Self { master, operators, query })
    }

    /// Starts one more query node, with a name of its own, that follows the master at this port.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn join(binary: &Path, directory: &Path, name: &str, master: u16) -> io::Result<Member> {
        let ledger = format!("127.0.0.1:{master}");
        Member::start(binary, directory, &example("network/query.al"), &[("LEDGER_CONN", &ledger), ("NODE_NAME", name)])
    }

    /// Gives each operator as many rows by a file in its watch directory, and waits until the query node finds them all.
    ///
    /// # Errors
    ///
    /// When rows get lost.
    pub fn load(&self, rows: u64, days: u64) -> io::Result<()> {
        for (number, operator) in (0..).zip(&self.operators) {
            let name = format!("{DBMS}.{TABLE}.json");
            let prepared = operator.data().join("prep").join(&name);
            let mut out = BufWriter::new(File::create(&prepared)?);
            for n in 0..rows {
                crate::question::write_row(&mut out, number, n, rows, days)?;
            }
            out.into_inner()?;
            std::fs::rename(prepared, operator.data().join("watch").join(name))?;
            let found = || -> io::Result<u64> {
                // The table comes with the first rows.
                let answer = operator.get(&format!("sql {DBMS} stat=false \"select count(*) as n from {TABLE}\""));
                let answer: Value = serde_json::from_str(&answer.unwrap_or_default()).unwrap_or_default();
                Ok(answer["Query"][0]["n"].as_u64().unwrap_or_default())
            };
            eventually("an operator has its rows", || Ok((found()? == rows).then_some(())))?;
        }
        eventually("the query node knows where the rows are", || {
            let nodes = self.query.get(&format!("get data nodes where dbms = {DBMS} and format = json"))?;
            let nodes: Value = serde_json::from_str(&nodes).unwrap_or_default();
            let with_table = nodes.as_array().into_iter().flatten().filter(|node| node["Table"] == TABLE).count();
            Ok((with_table == self.operators.len()).then_some(()))
        })
    }
}
