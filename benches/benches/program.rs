//! The whole release program: its size, its cold start to the first REST answer, its memory when idle.
//!
//! Builds `anylog-node` in release mode, runs the operator script of the examples in empty homes, and prints a table. The
//! baseline of the start is `/bin/true`, started and waited for the same way.
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints measurements")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 7;

fn main() {
    // `cargo test --all-targets` runs benches too, to see that they build; only `cargo bench` measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let program = anylog_benches::run::release_program().expect("a release program");
    let size = std::fs::metadata(&program).expect("the program was built").len();
    let mut starts = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..RUNS {
        let (start, resident) = start_once(&program);
        starts.push(start);
        memory.push(resident);
    }
    let baseline = (0..RUNS).map(|_| {
        let begin = Instant::now();
        Command::new("/bin/true").status().expect("/bin/true runs");
        begin.elapsed()
    });
    println!("release program                     {:>8.1} MB", megabytes(size));
    println!(
        "cold start to first REST answer     {:>8.1} ms  (median of {RUNS})",
        median(&mut starts).as_secs_f64() * 1e3
    );
    println!(
        "start and end of /bin/true          {:>8.1} ms",
        median(&mut baseline.collect::<Vec<_>>()).as_secs_f64() * 1e3
    );
    println!("resident memory, operator idle      {:>8.1} MB  (median of {RUNS})", megabytes(median(&mut memory)));
}

fn start_once(program: &Path) -> (Duration, u64) {
    let home = tempfile::tempdir().expect("a temporary home");
    let ports: Vec<u16> = {
        let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
    };
    let begin = Instant::now();
    let child = Command::new(program)
        .arg("--home")
        .arg(home.path())
        .arg("process")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/operator.al"))
        .env("ANYLOG_SERVER_PORT", ports[0].to_string())
        .env("ANYLOG_REST_PORT", ports[1].to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut node = Running(child);
    while !answers(ports[1], "get status", "running") {
        assert!(begin.elapsed() < Duration::from_secs(10), "no REST answer within 10 s");
        std::hint::spin_loop();
    }
    let start = begin.elapsed();
    while !answers(ports[1], "get processes where format=json", "Cluster Member") {
        assert!(begin.elapsed() < Duration::from_secs(10), "the operator does not run within 10 s");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.0.id())).expect("a running process");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .expect("a VmRSS line");
    node.0.kill().ok();
    (start, resident * 1024)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn answers(port: u16, command: &str, expected: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = format!("GET / HTTP/1.1\r\nHost: node\r\ncommand: {command}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(expected)
}

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

fn megabytes(bytes: u64) -> f64 {
    u32::try_from(bytes / 1024).map_or(f64::INFINITY, f64::from) / 1024.0
}
