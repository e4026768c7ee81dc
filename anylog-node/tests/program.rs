//! The program itself: arguments, exit codes, signals.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anylog-node"));
    command.arg("--home").arg(home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn exec(port: u16, command: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_anylog-node"));
    program.args(["exec", "--connect", &format!("127.0.0.1:{port}"), command]).output().expect("the program runs")
}

/// A node that serves its TCP port.
struct Running(Child);

impl Running {
    fn start(home: &Path, script: &str, port: u16) -> Self {
        let file = home.join("start.al");
        std::fs::write(&file, script).expect("a script");
        let child = program(home).arg("process").arg(&file).spawn().expect("the program starts");
        let mut node = Self(child);
        let end = Instant::now() + DEADLINE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(node.0.try_wait().expect("a child").is_none(), "ended: {}", node.errors());
            assert!(Instant::now() < end, "the port was not opened");
            std::thread::yield_now();
        }
        node
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().map(|mut errors| errors.read_to_string(&mut text));
        text
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn ended(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return (status.code(), start.elapsed());
            }
            assert!(start.elapsed() < DEADLINE, "the program does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn tcp_server(port: u16) -> String {
    format!("run tcp server 127.0.0.1 {port}\n")
}

#[test]
fn without_arguments_it_says_what_it_can_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_anylog-node")).output().expect("the program runs");
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in ["process", "exec", "shell", "demo", "commands"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn a_signal_drains_and_ends_with_success() {
    // OPS-2
    for signal in ["-TERM", "-INT"] {
        let home = tempfile::tempdir().expect("a home");
        let port = free_port();
        let mut node = Running::start(home.path(), &tcp_server(port), port);
        // A client that stays connected does not hold the node up.
        let idle = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        node.signal(signal);
        let (code, after) = node.ended();
        assert_eq!(code, Some(0), "{signal}: {}", node.errors());
        assert!(after < Duration::from_secs(5), "{signal}: {after:?}");
        drop(idle);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_the_command_at_work_and_not_the_node() {
    use std::io::Write;
    let home = tempfile::tempdir().expect("a home");
    let script = home.path().join("start.al");
    std::fs::write(&script, "at_work = the-command-runs\nhere = the-node-runs\n").expect("a script");
    // `script` gives the program a terminal. `exec`, since a shell in between would get the Ctrl-C too, and some end with it.
    let line = format!(
        "exec {} --home {} process {}",
        env!("CARGO_BIN_EXE_anylog-node"),
        home.path().display(),
        script.display()
    );
    let started = Command::new("script")
        .args(["-qfec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    // Not everywhere; then nothing can be said.
    let Ok(started) = started else { return };
    let mut terminal = Running(started);
    let mut keys = terminal.0.stdin.take().expect("a keyboard");
    let mut screen = terminal.0.stdout.take().expect("a screen");
    let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = std::sync::Arc::clone(&shown);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            seen.lock().expect("a screen").push_str(&text(&piece[..length]));
        }
    });
    let shows = |word: &str| {
        let end = Instant::now() + DEADLINE;
        while !shown.lock().expect("a screen").contains(word) {
            assert!(Instant::now() < end, "no '{word}': {}", shown.lock().expect("a screen"));
            std::thread::yield_now();
        }
    };
    let mut type_in = |text: &str| keys.write_all(text.as_bytes()).and_then(|()| keys.flush()).expect("a keyboard");
    shows("AL ");
    type_in("print !at_work & wait 3600\r");
    shows("the-command-runs");
    type_in("\x03");
    shows("Ended: print");
    type_in("print !here\r");
    shows("the-node-runs");
    type_in("exit node\r");
    assert_eq!(terminal.ended().0, Some(0));
}

#[test]
fn exec_runs_a_command_at_a_running_node() {
    let home = tempfile::tempdir().expect("a home");
    let port = free_port();
    let _node = Running::start(home.path(), &tcp_server(port), port);
    let good = exec(port, "get connections");
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains(&format!("127.0.0.1:{port}")), "{}", text(&good.stdout));
    let bad = exec(port, "frobnicate it");
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("frobnicate"), "{}", text(&bad.stderr));
    let nobody = exec(1, "get connections");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("127.0.0.1:1"), "{}", text(&nobody.stderr));
}

#[test]
fn a_failing_script_is_reported_and_ends_a_node_that_serves_nobody() {
    // R25
    let home = tempfile::tempdir().expect("a home");
    let script = home.path().join("broken.al");
    std::fs::write(&script, "frobnicate it\n").expect("a script");
    let output = program(home.path()).arg("process").arg(&script).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.al"), "{}", text(&output.stderr));
    let missing = program(home.path()).args(["process", "/no/such/file.al"]).output().expect("the program runs");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/no/such/file.al"), "{}", text(&missing.stderr));
}

#[test]
fn a_failing_script_leaves_a_server_that_runs_already() {
    let home = tempfile::tempdir().expect("a home");
    let port = free_port();
    let mut node = Running::start(home.path(), &format!("{}frobnicate it\n", tcp_server(port)), port);
    let mut line = String::new();
    let errors = node.0.stderr.take().expect("a pipe");
    BufReader::new(errors).read_line(&mut line).expect("a report");
    assert!(line.contains("frobnicate") || line.contains("start.al"), "{line}");
    // The pipe is closed now: nobody reads the standard error any more, and the node lives on.
    assert!(exec(port, "get connections").status.success());
    node.signal("-TERM");
    assert_eq!(node.ended().0, Some(0));
}

#[test]
fn a_script_or_command_may_end_the_node() {
    let home = tempfile::tempdir().expect("a home");
    let script = home.path().join("end.al");
    std::fs::write(&script, "set a = b\n").expect("a script");
    let output =
        program(home.path()).arg("process").arg(&script).args(["and", "exit node"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_home_belongs_to_one_node() {
    let home = tempfile::tempdir().expect("a home");
    let port = free_port();
    let mut first = Running::start(home.path(), &tcp_server(port), port);
    let second = program(home.path()).arg("process").arg(home.path().join("start.al")).output().expect("it runs");
    let told = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("process {}", first.0.id())) && told.contains("--home"), "{told}");
    // A node that was killed leaves no lock behind.
    first.signal("-KILL");
    first.ended();
    drop(Running::start(home.path(), &tcp_server(port), port));
}

#[test]
fn commands_come_from_a_pipe() {
    use std::io::Write;
    let home = tempfile::tempdir().expect("a home");
    let mut child = program(home.path()).arg("shell").stdin(Stdio::piped()).spawn().expect("the program starts");
    let input = "set a = {\"x\":\n1}\n!a\nget foo\nget node name\nexit node\n";
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the program reads");
    let output = child.wait_with_output().expect("the program ends");
    let shown = text(&output.stdout);
    assert!(shown.contains("{\"x\":\n1}") && shown.contains("get foo") && shown.contains("AnyLog@"), "{shown}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_typed_goes_to_the_default_destination() {
    use std::io::Write;
    let homes = [tempfile::tempdir().expect("a home"), tempfile::tempdir().expect("a home")];
    let port = free_port();
    let mut there = Running::start(homes[0].path(), &format!("set node name there\n{}", tcp_server(port)), port);
    let mut child = program(homes[1].path()).arg("shell").stdin(Stdio::piped()).spawn().expect("the program starts");
    let input = format!(
        "set node name here\nrun client (127.0.0.1:{port})\nget node name\nget foo\nrun client ()\nget node name\n\
         run client (127.0.0.1:{port})\nexit node\n. exit node\n"
    );
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the program reads");
    let output = child.wait_with_output().expect("the program ends");
    let shown = text(&output.stdout);
    let places = ["[From Node", "there@", "get foo", "\nhere@"]
        .map(|part| shown.find(part).unwrap_or_else(|| panic!("{part}: {shown}")));
    assert!(places.is_sorted(), "{shown}");
    assert_eq!(output.status.code(), Some(0));
    // The first 'exit node' was for the other one.
    assert_eq!(there.ended().0, Some(0), "{}", there.errors());
}

#[test]
fn the_reference_names_every_command() {
    let home = tempfile::tempdir().expect("a home");
    let output = program(home.path()).arg("commands").output().expect("the program runs");
    assert!(output.status.success());
    let reference = text(&output.stdout);
    for words in ["run rest server", "run tcp server", "get connections", "test node"] {
        assert!(reference.contains(words), "{words}");
    }
    for section in reference.split("\n### ").skip(1) {
        let words = section.lines().next().unwrap_or_default();
        assert!(section.contains("Returns "), "{words} does not say what it returns");
    }
}
