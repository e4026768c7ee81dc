//! A PostgreSQL server as its defaults make it, and the bare binary COPY that the node is compared with.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::baseline::Done;
use crate::message;
use crate::process::{Usage, ensure, free_port};

/// The columns, the key and the three indexes of a partition as the node makes them.
pub const TABLE: &str = "CREATE TABLE rand_data(row_id BIGSERIAL PRIMARY KEY, \
     insert_timestamp TIMESTAMP NOT NULL DEFAULT (now() at time zone 'utc'), tsd_name VARCHAR(3), tsd_id INT, \
     timestamp TIMESTAMP NOT NULL DEFAULT (now() at time zone 'utc'), value DOUBLE PRECISION); \
     CREATE INDEX rand_data_timestamp_index ON rand_data(timestamp); \
     CREATE INDEX rand_data_tsd_index ON rand_data(tsd_name, tsd_id); \
     CREATE INDEX rand_data_insert_timestamp_index ON rand_data(insert_timestamp);";

/// Bytes that are handed to the connection at once.
const CHUNK: usize = 128 << 10;

/// Microseconds from the server's epoch, 2000, to the first message, in 2024.
const FIRST: i64 = 8766 * 86_400 * 1_000_000;

/// A server with a data directory of its own; it syncs every commit.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    programs: PathBuf,
    user: Option<u32>,
    /// Its port.
    pub port: u16,
}

impl Server {
    /// Makes and starts a server with the defaults of its package.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not come up.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let programs = programs()?;
        let directory = TempDir::new_in(directory)?;
        // A server refuses to run as root.
        let user = (fs::metadata(directory.path())?.uid() == 0).then(unprivileged_user).transpose()?;
        if let Some(user) = user {
            chown(directory.path(), Some(user), None)?;
        }
        let server = Self { directory, programs, user, port: free_port()? };
        server.run("initdb", &["-U", "anylog", "-A", "trust", "-E", "UTF8", "--locale=C"])?;
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''", server.port);
        let log = server.directory.path().join("log").display().to_string();
        server.run("pg_ctl", &["-w", "-t", "60", "-l", &log, "-o", &options, "start"])?;
        Ok(server)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new(self.programs.join(program));
        command.arg("-D").arg(self.directory.path().join("data")).args(arguments);
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user);
        }
        let status = command.status()?;
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("{program} ended with {status}: {}", log())))
        }
    }

    /// What the operator script of the examples is told so that all its databases lie here.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("DB_TYPE", "psql".into()), ("DB_IP", "127.0.0.1".into()), ("DB_PORT", self.port.to_string())]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("pg_ctl", &["-w", "-m", "immediate", "stop"]).ok();
    }
}

/// Where `initdb` and `pg_ctl` are: Debian keeps them beside each version.
fn programs() -> io::Result<PathBuf> {
    let of_debian = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let paths = versions.flatten().map(|version| version.path().join("bin"));
        paths.filter(|path| path.join("initdb").exists()).max()
    };
    if let Some(found) = of_debian() {
        return Ok(found);
    }
    ensure("initdb", "postgresql")?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = of_debian().or_else(|| std::env::split_paths(&paths).find(|path| path.join("initdb").exists()));
    found.ok_or_else(|| io::Error::other("initdb is not found: apt-get install postgresql"))
}

fn unprivileged_user() -> io::Result<u32> {
    let users = fs::read_to_string("/etc/passwd")?;
    let id = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        line.split(':').nth(2)?.parse().ok()
    };
    id("postgres").or_else(|| id("nobody")).ok_or_else(|| io::Error::other("there is no user 'postgres' or 'nobody'"))
}

/// One binary COPY of the rows that the messages of a load become, in one transaction, into the same table with the same
/// indexes, at a server that syncs the commit: what a program can do that only copies.
///
/// # Errors
///
/// When the server fails.
pub fn copy(directory: &Path, duration: Duration) -> io::Result<Done> {
    let server = Server::start(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(copy_at(&server, duration)).map_err(io::Error::other)
}

async fn copy_at(server: &Server, duration: Duration) -> Result<Done, tokio_postgres::Error> {
    let place = format!("host=127.0.0.1 port={} user=anylog dbname=postgres", server.port);
    let (client, connection) = tokio_postgres::connect(&place, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(TABLE).await?;
    let own = || Usage::of(std::process::id()).unwrap_or_default();
    let before = own();
    let start = Instant::now();
    let received = FIRST + i64::try_from(start.elapsed().as_micros()).unwrap_or_default();
    let sql = "COPY rand_data(insert_timestamp, tsd_name, tsd_id, timestamp, value) FROM STDIN (FORMAT binary)";
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(sql).await?);
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let mut count = 0;
    while start.elapsed() < duration {
        while bytes.len() < CHUNK {
            count += 1;
            row(&mut bytes, received, count);
        }
        sink.send(Bytes::from(std::mem::take(&mut bytes))).await?;
    }
    bytes.extend((-1_i16).to_be_bytes());
    sink.send(Bytes::from(bytes)).await?;
    let stored = sink.as_mut().finish().await?;
    assert_eq!(stored, count, "the server says how many rows it stored");
    Ok(Done { count, elapsed: start.elapsed(), usage: own().since(before) })
}

/// A row in the binary form: the number of its values, then each with its length.
fn row(out: &mut Vec<u8>, received: i64, n: u64) {
    // Device times start again after a leap year.
    let second = i64::try_from(n % (366 * 86_400)).unwrap_or_default();
    let values: [&[u8]; 5] = [
        &received.to_be_bytes(),
        b"1",
        &1_i32.to_be_bytes(),
        &(FIRST + second * 1_000_000).to_be_bytes(),
        &message::value(n).to_be_bytes(),
    ];
    out.extend(5_i16.to_be_bytes());
    for value in values {
        out.extend(i32::try_from(value.len()).unwrap_or_default().to_be_bytes());
        out.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_stores_the_rows_of_the_messages() {
        let directory = tempfile::tempdir().expect("a directory");
        // The server's user has to reach its own directory.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(directory.path(), open).expect("permissions");
        let server = Server::start(directory.path()).expect("a server");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        runtime.block_on(async {
            let done = copy_at(&server, Duration::from_millis(1)).await.expect("copied");
            let place = format!("host=127.0.0.1 port={} user=anylog dbname=postgres", server.port);
            let (client, connection) = tokio_postgres::connect(&place, NoTls).await.expect("connected");
            tokio::spawn(connection);
            let sql = "SELECT count(*), min(timestamp)::text, (array_agg(value ORDER BY timestamp))[1] FROM rand_data";
            let row = client.query_one(sql, &[]).await.expect("a row");
            let expected =
                (i64::try_from(done.count).expect("not so many"), "2024-01-01 00:00:01".to_owned(), message::value(1));
            assert_eq!((row.get(0), row.get(1), row.get(2)), expected);
        });
    }
}
