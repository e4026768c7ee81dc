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
