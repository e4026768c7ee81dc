//! A table of many partitions, made without a node, and the node that then runs over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anylog_core::Node;
use anylog_dbms::schema::infer;
use anylog_dbms::{
    Catalog, ConnectRequest, Database, PartitionUnit, Partitioning, RowRef, SqlValue, TableSchema, Target,
};
use jiff::{Timestamp, ToSpan};

use crate::process::{Usage, eventually, free_port};
use crate::{http, message};

/// The table in partitions of a day of arrival.
pub const SPLIT: &str = "rand_data";
/// A table that is not split, with as many rows as one partition.
pub const FLAT: &str = "flat";

/// Rows of one transaction while tables are filled.
const BATCH: u64 = 5000;

/// The home of a node, with its tables.
#[derive(Debug)]
pub struct Home {
    directory: tempfile::TempDir,
    /// The day of the newest partition, which is today.
    pub today: Timestamp,
    partitioning: Partitioning,
    /// The same at every start, as policies name them: of the broker and of the REST server.
    ports: [u16; 2],
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl Home {
    /// A new home below `directory` with so many partitions of so many rows each, and the table that is not split.
    ///
    /// # Errors
    ///
    /// When the disk or the database fails.
    pub fn make(directory: &Path, partitions: u32, rows: u64) -> io::Result<Self> {
        let directory = tempfile::TempDir::new_in(directory)?;
        let partitioning = Partitioning::new("insert_timestamp", 1, PartitionUnit::Day).map_err(failed)?;
        let home = Self { directory, today: Timestamp::now(), partitioning, ports: [free_port()?, free_port()?] };
        let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/operator.al"))?;
        fs::write(home.script(), script.replace("set table_name = *", &format!("set table_name = {SPLIT}")))?;
        fs::create_dir_all(home.databases())?;
        let catalog = Catalog::new(Node::builder().home(home.directory.path()).build());
        let database = catalog.connect(ConnectRequest::sqlite("test", home.databases())).map_err(failed)?;
        let mut row = Vec::new();
        message::append(&mut row, 0, message::LEN);
        let row = String::from_utf8_lossy(&row).into_owned();
        for table in [SPLIT, FLAT] {
            let schema = infer(table, &[row.as_str()], &[], true).map_err(failed)?;
            database.dbms().create_table(&schema).map_err(failed)?;
            if table == FLAT {
                home.fill(&database, &schema, &Target::table(table), home.day(0), rows)?;
                continue;
            }
            for age in (0..partitions).rev() {
                let partition = home.partition(age);
                database.dbms().create_partition(&schema, &partition).map_err(failed)?;
                home.fill(&database, &schema, &Target::partition(table, partition), home.day(age), rows)?;
            }
        }
        database.dbms().sync().map_err(failed)?;
        Ok(home)
    }

    fn fill(
        &self,
        database: &Database,
        schema: &TableSchema,
        target: &Target,
        day: Timestamp,
        rows: u64,
    ) -> io::Result<()> {
        let columns: Vec<String> = schema.columns.iter().skip(1).map(|column| column.name.clone()).collect();
        let mut time = String::new();
        for first in (0..rows).step_by(BATCH as usize) {
            // A batch arrives at one time; those of a day are spread over it.
            let share = i64::try_from(first * 86_399 / rows.max(1)).unwrap_or_default();
            let received = anylog_core::time::stored(day.checked_add(share.seconds()).map_err(failed)?);
            let shared = [SqlValue::Text(received), SqlValue::Text("1".to_owned()), SqlValue::Int(1)];
            let own: Vec<Vec<SqlValue>> = (first..rows.min(first + BATCH))
                .map(|n| {
                    message::stored_time(&mut time, n);
                    vec![SqlValue::Text(time.clone()), SqlValue::Float(message::value(n))]
                })
                .collect();
            let batch: Vec<RowRef<'_>> = own.iter().map(|own| RowRef { shared: &shared, own }).collect();
            database.dbms().apply_rows(target, &columns, &batch, &[]).map_err(failed)?;
        }
        Ok(())
    }

    /// The start of the day that is so many days ago.
    #[must_use]
    pub fn day(&self, age: u32) -> Timestamp {
        let day = self.today.as_second() / 86_400 - i64::from(age);
        Timestamp::from_second(day * 86_400).unwrap_or(self.today)
    }

    /// The partition of a day.
    #[must_use]
    pub fn partition(&self, age: u32) -> String {
        self.partitioning.name(SPLIT, self.day(age))
    }

    /// The file of a partition.
    #[must_use]
    pub fn partition_file(&self, age: u32) -> PathBuf {
        self.databases().join(format!("test.parts/{SPLIT}/{}.dbms", self.partition(age)))
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("operator.al")
    }

    /// The directory of the node's databases.
    #[must_use]
    pub fn databases(&self) -> PathBuf {
        self.directory.path().join("AnyLog-Network/data/dbms")
    }

    /// Bytes that the files below the databases take on the disk.
    ///
    /// # Errors
    ///
    /// When a directory cannot be read.
    pub fn bytes(&self) -> io::Result<u64> {
        taken(&self.databases())
    }

    /// Bytes that are free on the disk of the home.
    ///
    /// # Errors
    ///
    /// When the disk does not say.
    pub fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(self.directory.path())?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Starts the node, and says after which time it answered first, ran its operator, and answered `query`.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(&self, binary: &Path, query: &str) -> io::Result<(Running, [Duration; 3])> {
        let [broker, rest] = self.ports;
        let log = fs::File::create(self.directory.path().join("node.log"))?;
        let start = Instant::now();
        let child = Command::new(binary)
            .arg("--home")
            .arg(self.directory.path())
            .arg("process")
            .arg(self.script())
            .env("ANYLOG_SERVER_PORT", broker.to_string())
            .env("ANYLOG_REST_PORT", rest.to_string())
            .env("PARTITION_KEEP", "100000")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut node = Running { child, rest };
        let mut took = [Duration::ZERO; 3];
        let signs = ["get status", "get processes where format=json", query];
        for (took, (sign, expected)) in took.iter_mut().zip(signs.into_iter().zip(["running", "Cluster Member", "["])) {
            eventually(sign, || {
                if let Some(status) = node.child.try_wait()? {
                    let log = fs::read_to_string(self.directory.path().join("node.log")).unwrap_or_default();
                    return Err(io::Error::other(format!("the node ended with {status}: {log}")));
                }
                let Ok(answer) = http::request(rest, "GET", &format!("command: {sign}\r\n"), b"") else {
                    return Ok(None);
                };
                let whole = answer.status == 200 && String::from_utf8_lossy(&answer.body).contains(expected);
                Ok(whole.then_some(()))
            })?;
            *took = start.elapsed();
        }
        Ok((node, took))
    }
}

fn taken(directory: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A file may go while it is looked at.
        let Ok(known) = entry.metadata() else { continue };
        bytes += if known.is_dir() { taken(&entry.path())? } else { known.blocks() * 512 };
    }
    Ok(bytes)
}

/// A node that runs over a home; it is killed with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Port of the REST server.
    pub rest: u16,
}

impl Running {
    /// Runs a command, and says how long its answer took.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn command(&self, method: &str, command: &str) -> io::Result<(String, Duration)> {
        let start = Instant::now();
        let answer = http::request(self.rest, method, &format!("command: {command}\r\n"), b"")?;
        let took = start.elapsed();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 { Ok((body, took)) } else { Err(io::Error::other(format!("{command}: {body}"))) }
    }

    /// What it used so far.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Ends it as a supervisor does, and waits.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub fn terminate(mut self) -> io::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
