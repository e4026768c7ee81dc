//! System calls of the node, seen and made to fail by `strace`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One system call, from its begin to its end.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Arguments; descriptors carry what they stand for, as `7</path>`.
    pub(crate) arguments: String,
    pub(crate) result: i64,
    /// Places in the order of all begins and ends.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// When it had ended, in seconds since 1970.
    pub(crate) ended_at: f64,
}

impl Call {
    /// What the first descriptor stands for.
    pub(crate) fn file(&self) -> &str {
        let inside = self.arguments.split_once('<').map_or("", |(_, rest)| rest);
        // An address holds `->`, so the end is the `>` before the next argument or the end.
        let end = inside.find(">,").or_else(|| inside.rfind('>')).unwrap_or(0);
        &inside[..end]
    }

    /// The bytes of a write, with escapes as strace shows them.
    pub(crate) fn text(&self) -> &str {
        let start = self.arguments.find(", \"").map_or(self.arguments.len(), |at| at + 3);
        let from_vector = self.arguments.find("iov_base=\"").map(|at| at + 10);
        &self.arguments[from_vector.unwrap_or(start).min(self.arguments.len())..]
    }

    pub(crate) fn writes(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "pwrite64" | "sendto" | "sendmsg") && self.result > 0
    }

    pub(crate) fn syncs(&self) -> bool {
        matches!(self.name.as_str(), "fdatasync" | "fsync")
    }
}

/// Whether processes can be traced here; says so when not.
pub(crate) fn available() -> bool {
    let tried = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).output();
    let works = tried.as_ref().is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("SKIPPED: system calls cannot be traced here ({tried:?}); ./test.sh --setup installs strace");
    }
    works
}

/// The words before a program's own that trace these calls into a file. `more` are further options.
pub(crate) fn wrapper(output: &Path, calls: &str, more: &[String]) -> Vec<String> {
    // -D: the node stays this process's child. -yy: descriptors with their paths and addresses.
    let words = ["strace", "-D", "-f", "-qq", "-yy", "-ttt", "-T", "-s", "65536", "-e", "signal=none", "-o"];
    let mut wrapper: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    wrapper.push(output.to_str().unwrap().to_owned());
    wrapper.extend(["-e".to_owned(), format!("trace={calls}")]);
    wrapper.extend(more.iter().cloned());
    wrapper
}

/// Options that restrict tracing, and what is injected, to files.
pub(crate) fn only(files: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    files.into_iter().flat_map(|file| ["-P".to_owned(), file.to_str().unwrap().to_owned()]).collect()
}

/// Takes a trace apart. Calls that did not end are left out.
pub(crate) fn read(output: &Path) -> Vec<Call> {
    let text = String::from_utf8_lossy(&std::fs::read(output).unwrap()).into_owned();
    let mut open: Vec<(String, String, String, usize)> = Vec::new();
    let mut calls = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let started: f64 = time.parse().unwrap_or(0.0);
        if let Some(unfinished) = rest.strip_suffix(" <unfinished ...>") {
            if let Some((name, arguments)) = unfinished.split_once('(') {
                open.push((thread.to_owned(), name.to_owned(), arguments.to_owned(), place));
            }
            continue;
        }
        let (name, arguments, begin) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let Some(at) = open.iter().position(|(waiting, ..)| waiting == thread) else { continue };
                let (_, name, arguments, begin) = open.remove(at);
                let tail = resumed.split_once("resumed>").map_or("", |(_, tail)| tail);
                (name, arguments + tail, begin)
            }
            None => match rest.split_once('(') {
                Some((name, arguments)) => (name.to_owned(), arguments.to_owned(), place),
                None => continue,
            },
        };
        let Some((arguments, result)) = arguments.rsplit_once(") = ") else {
            // strace pads short lines before the result.
            let Some((arguments, result)) = arguments.rsplit_once(" = ") else { continue };
            calls.push(call(name, arguments.trim_end().trim_end_matches(')'), result, begin, place, started));
            continue;
        };
        calls.push(call(name, arguments, result, begin, place, started));
    }
    calls
}

fn call(name: String, arguments: &str, result: &str, begin: usize, end: usize, started: f64) -> Call {
    let value = result.split([' ', '<']).next().and_then(|value| value.parse().ok()).unwrap_or(-1);
    let took: f64 =
        result.rsplit_once('<').and_then(|(_, took)| took.trim_end_matches('>').parse().ok()).unwrap_or(0.0);
    // A resumed line carries the time of its end already; the sum errs to the later side then, never to the earlier.
    let ended_at = if begin == end { started + took } else { started };
    Call { name, arguments: arguments.to_owned(), result: value, begin, end, ended_at }
}
