//! A cluster that is measured: a master and members that hold the same data, run by the scripts of the examples.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::message;
use crate::network::{Member, example};
use crate::process::eventually;

/// The logical database.
pub const DBMS: &str = "plant";

/// The topic whose messages, as [`message`] makes them, become rows of [`PUBLISHED`].
pub const TOPIC: &str = "bench";

/// The table of [`TOPIC`].
pub const PUBLISHED: &str = "published";

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A master and members.
#[derive(Debug)]
pub struct Cluster {
    /// The node that holds the ledger.
    pub master: Member,
    /// The members, in the order in which they joined.
    pub members: Vec<Member>,
    binary: PathBuf,
    directory: PathBuf,
    column: &'static str,
}

impl Cluster {
    /// Starts all processes; their homes lie below `directory`. A partition holds a day of `column`, `timestamp` or
    /// `insert_timestamp`.
    ///
    /// # Errors
    ///
    /// When one does not come up.
    pub fn start(binary: &Path, directory: &Path, members: usize, column: &'static str) -> io::Result<Self> {
        let master = Member::start(binary, directory, &example("network/master.al"), &[])?;
        let script = fs::read_to_string(example("cluster/operator.al"))?;
        let (before, after) =
            script.split_once("# ---- 11.").ok_or_else(|| io::Error::other("the script has no step 11"))?;
        let mapping = format!(
            "<run mqtt client where broker=local and port=!anylog_server_port and log=false and topic=(\n\
             name={TOPIC} and dbms={DBMS} and table={PUBLISHED} and column.timestamp.timestamp=\"bring [timestamp]\" and\n\
             column.value=(type=float and value=\"bring [value]\"))>\n\n"
        );
        fs::write(directory.join("member.al"), format!("{before}{mapping}# ---- 11.{after}"))?;
        let (binary, directory) = (binary.to_owned(), directory.to_owned());
        let mut cluster = Self { master, members: Vec::new(), binary, directory, column };
        for _ in 0..members {
            cluster.join()?;
        }
        Ok(cluster)
    }

    /// Adds a member, and waits until it runs.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn join(&mut self) -> io::Result<&Member> {
        let (ledger, name) = (format!("127.0.0.1:{}", self.master.tcp), format!("member-{}", self.members.len()));
        let settings = [
            ("LEDGER_CONN", ledger.as_str()),
            ("NODE_NAME", &name),
            ("PARTITION_COLUMN", self.column),
            ("PARTITION_KEEP", "10000"),
        ];
        let member = Member::start(&self.binary, &self.directory, &self.directory.join("member.al"), &settings)?;
        member.operator_runs()?;
        self.members.push(member);
        self.members.last().ok_or_else(|| io::Error::other("no member"))
    }

    /// Waits until a member holds so many rows of a table; more is an error. Says how long that took.
    ///
    /// # Errors
    ///
    /// When it does not get there.
    pub fn wait_for(&self, member: usize, table: &str, rows: u64) -> io::Result<Duration> {
        let (member, start) = (&self.members[member], Instant::now());
        let mut found = 0;
        let all = eventually("a member has its rows", || {
            found = held(member, table)?;
            match found {
                found if found > rows => Err(io::Error::other(format!("{found} rows of {table} instead of {rows}"))),
                found => Ok((found == rows).then_some(())),
            }
        });
        let all = all.map(|()| start.elapsed());
        all.map_err(|error| io::Error::other(format!("{error}: {found} of {rows} rows of {table}\n{}", member.log())))
    }
}

/// How many rows of a table a member holds itself.
///
/// # Errors
///
/// When its answer is not JSON.
pub fn held(member: &Member, table: &str) -> io::Result<u64> {
    let sql = format!("sql {DBMS} format=json and stat=false \"select count(*) as n from {table}\"");
    // The table comes with the first rows.
    let Ok(answer) = member.get(&sql) else { return Ok(0) };
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["Query"][0]["n"].as_u64().unwrap_or_default())
}

/// Prepares files of rows for a member's watch directory, each with `each` rows. The rows of file `n` have device times of day `n`
/// modulo `days`.
///
/// # Errors
///
/// When the disk does not take them.
pub fn prepare(member: &Member, table: &str, files: u64, each: u64, days: u64) -> io::Result<Vec<PathBuf>> {
    let mut prepared = Vec::new();
    let mut line = Vec::new();
    for file in 0..files {
        // What stands behind the table's name makes a name of its own.
        let path = member.data().join("prep").join(format!("{DBMS}.{table}.{file}.json"));
        let mut out = BufWriter::new(File::create(&path)?);
        for n in 0..each {
            line.clear();
            // Files of one day differ by where in the day their rows are.
            let second = (n + file / days.max(1) * each) % DAY;
            message::append(&mut line, file % days.max(1) * DAY + second, message::LEN);
            line.push(b'\n');
            out.write_all(&line)?;
        }
        out.into_inner()?.sync_all()?;
        prepared.push(path);
    }
    Ok(prepared)
}

/// Moves prepared files into a member's watch directory.
///
/// # Errors
///
/// When one is not there.
pub fn hand_over(member: &Member, prepared: &[PathBuf]) -> io::Result<()> {
    for path in prepared {
        let name = path.file_name().ok_or_else(|| io::Error::other("a file without a name"))?;
        fs::rename(path, member.data().join("watch").join(name))?;
    }
    Ok(())
}
