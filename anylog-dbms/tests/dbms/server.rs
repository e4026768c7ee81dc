//! A PostgreSQL server of our own, in a temporary directory, for as long as a test uses it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use anylog_dbms::ConnectRequest;

/// A running server; it stops and its files go with the last holder.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    user: Option<u32>,
    pub(crate) port: u16,
}

static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The server that runs already, or a new one.
    pub(crate) fn shared() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *running = Arc::downgrade(&server);
        server
    }

    /// A new server.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let directory = tempfile::tempdir().unwrap();
        let root = fs::metadata(directory.path()).unwrap().uid() == 0;
        let user = root.then(unprivileged_user);
        if let Some(user) = user {
            chown(directory.path(), Some(user), None).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { directory, programs, user, port };
        server.run("initdb", &["-U", "anylog", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]);
        server.run_start();
        server
    }

    fn run_start(&self) {
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories=''", self.port);
        let log = self.directory.path().join("log").display().to_string();
        self.run("pg_ctl", &["-w", "-t", "60", "-l", &log, "-o", &options, "start"]);
    }

    /// Stops and starts it, which loses every connection.
    pub(crate) fn restart(&self) {
        self.run("pg_ctl", &["-w", "-m", "fast", "stop"]);
        self.run_start();
    }

    /// Stops it as an administrator does who cannot wait: connections are cut, transactions rolled back.
    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["-w", "-m", "fast", "stop"]);
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`].
    pub(crate) fn start_again(&self) {
        self.run_start();
    }

    /// `kill -9` of the postmaster and of all its processes, which leaves everything as it is.
    pub(crate) fn kill(&self) {
        let text = fs::read_to_string(self.lock_file()).unwrap();
        let postmaster: u32 = text.lines().next().unwrap().trim().parse().unwrap();
        kill(postmaster);
        // Those that it had started end by themselves when they notice; a crash of the machine would not let them.
        let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let words = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let directory = fs::read_link(entry.path().join("cwd")).ok()?;
            (words.starts_with("postgres") && directory == self.directory.path().join("data")).then_some(pid)
        });
        children.for_each(kill);
        // Where nobody buries the dead, the server that starts next takes this one's number for one that is alive.
        fs::remove_file(self.lock_file()).unwrap();
    }

    fn lock_file(&self) -> PathBuf {
        self.directory.path().join("data/postmaster.pid")
    }

    #[cfg(feature = "postgres-tls")]
    /// Adds lines to its configuration, and restarts it.
    pub(crate) fn set(&self, lines: &str) {
        let file = self.directory.path().join("data/postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{text}\n{lines}")).unwrap();
        self.restart();
    }

    #[cfg(feature = "postgres-tls")]
    /// A directory of the server's user.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A request for a database of this server.
    pub(crate) fn request(&self, name: &str) -> ConnectRequest {
        ConnectRequest::postgres(name, "127.0.0.1", self.port, "anylog", "")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join(program));
        command.arg("-D").arg(self.directory.path().join("data")).args(arguments);
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user);
        }
        let status = command.status().unwrap_or_else(|error| panic!("{program}: {error}"));
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(status.success() || std::thread::panicking(), "{program} {arguments:?}: {status}\n{log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test may have stopped it.
        if !self.lock_file().exists() {
            return;
        }
        self.run("pg_ctl", &["-w", "-m", "immediate", "stop"]);
    }
}

/// A process that is gone already is none to kill.
fn kill(pid: u32) {
    let sent = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "kill runs");
}

/// Where `initdb` and `pg_ctl` are.
fn programs() -> PathBuf {
    let mut candidates: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    candidates.sort();
    candidates.reverse();
    candidates.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = candidates.into_iter().find(|path| path.join("initdb").is_file() && path.join("pg_ctl").is_file());
    found.expect("these tests start a PostgreSQL server: install one (Debian and Ubuntu: apt-get install postgresql)")
}

/// A server refuses to run as root.
fn unprivileged_user() -> u32 {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        line.split(':').nth(2)?.parse().ok()
    };
    id("postgres").or_else(|| id("nobody")).expect("a user 'postgres' or 'nobody'")
}
