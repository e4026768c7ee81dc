//! What the programs that measure processes have in common: when they measure, and what.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs the measurement `name` with the words of the command line, and tells on standard error why it failed. `cargo test
/// --all-targets` runs benches too, to see that they build; `cargo bench`, and a call of the program itself, measure.
#[allow(clippy::print_stderr, reason = "a program that measures says why it cannot")]
pub fn run(name: &str, measure: impl FnOnce(&[String]) -> Result<(), String>) -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os("CARGO").is_some() && !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    words.retain(|word| word != "--bench");
    match measure(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words of a command line: parts by their names, and options with values.
#[derive(Debug)]
pub struct Words<'a> {
    rest: std::slice::Iter<'a, String>,
    last: &'a str,
    help: &'static str,
}

impl<'a> Words<'a> {
    /// Reads `words`; errors end with `help`.
    pub fn new(words: &'a [String], help: &'static str) -> Self {
        Self { rest: words.iter(), last: "", help }
    }

    /// The next word; none at the end.
    pub fn word(&mut self) -> Option<&'a str> {
        self.last = self.rest.next()?;
        Some(self.last)
    }

    /// The value of the option that [`Words::word`] gave.
    ///
    /// # Errors
    ///
    /// When nothing follows.
    pub fn value(&mut self) -> Result<&'a str, String> {
        self.rest.next().map(String::as_str).ok_or_else(|| format!("{} needs a value: {}", self.last, self.help))
    }

    /// Its value as a number above zero.
    ///
    /// # Errors
    ///
    /// When another word, or nothing, follows.
    pub fn number<T: std::str::FromStr + Default + PartialOrd>(&mut self) -> Result<T, String> {
        let value = self.value()?;
        let number = value.parse().ok().filter(|number| *number > T::default());
        number.ok_or_else(|| format!("{} needs a number, not '{value}': {}", self.last, self.help))
    }

    /// Why the word that [`Words::word`] gave is refused.
    pub fn unknown(&self) -> String {
        format!("'{}' is not known: {}", self.last, self.help)
    }
}

/// Builds the release program and says where it lies.
///
/// # Errors
///
/// When it cannot be built.
pub fn release_program() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "anylog-node"])
        .current_dir(&root)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("the release build failed".to_owned());
    }
    // A bench lies in <target>/release/deps.
    let own = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let target = own.ancestors().nth(3).ok_or_else(|| format!("{} lies in no target directory", own.display()))?;
    Ok(target.join("release").join("anylog-node"))
}
