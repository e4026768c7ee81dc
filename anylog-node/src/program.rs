//! What the subcommands of the program do.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::session::Console;
use anylog_core::{Caller, CommandError, Registry, Session};
use anylog_net::{GrpcPeers, PeerReply, PeerRequest, Peers};

use crate::assembly::NodeApp;
use crate::console::StandardOutput;
use crate::terminal::{self, Input};

/// A session of the person who started the program.
#[must_use]
pub fn terminal_session(app: &NodeApp) -> Session {
    app.session(Caller::terminal()).with_console(Arc::new(StandardOutput))
}

/// Runs a start script and the commands behind it, then stays until the node is to end.
///
/// The script and each command must succeed for the next to run. A failure is reported on the standard error. The node
/// stays up after it if any server runs, so that a person can look; otherwise the program ends with code 1.
pub async fn process(app: &NodeApp, script: &Path, after: &[String]) -> ExitCode {
    let started = tokio::select! {
        started = start(app, script, after) => started,
        // A signal, or `exit node` inside the script.
        () = app.node.shutdown.cancelled() => Ok(()),
    };
    if let Err(error) = started {
        report(&error);
        if app.listeners.addresses().is_empty() && !app.node.shutdown.is_cancelled() {
            app.drain().await;
            return ExitCode::FAILURE;
        }
    }
    stay(app).await
}

async fn start(app: &NodeApp, script: &Path, after: &[String]) -> Result<(), CommandError> {
    // Devices are back before the script has said what is to be done with their messages.
    let starting = app.node.startup.begin();
    let mut session = terminal_session(app);
    session.run_script(script).await?;
    for command in after {
        let reply = session.execute(command).await?.into_text().await?;
        if !reply.is_empty() {
            session.console.print(&reply);
        }
    }
    // A script that a signal cut short has not said all.
    if !app.node.shutdown.is_cancelled() {
        starting.succeeds();
    }
    Ok(())
}

/// Reads the terminal when there is one, and otherwise waits; drains at the end.
pub async fn stay(app: &NodeApp) -> ExitCode {
    if !app.node.shutdown.is_cancelled() {
        match terminal::input() {
            Input::Person => {
                terminal::run(app).await;
                app.node.shutdown.cancel();
            }
            // Commands from a pipe or a file; the node runs on when they end.
            Input::Piped => terminal::run_piped(app).await,
            Input::Foreign => {}
        }
    }
    app.node.shutdown.cancelled().await;
    app.drain().await;
    ExitCode::SUCCESS
}

/// Files, connections among them, that the program lets itself have open when the system allows as many.
const OPEN_FILES: u64 = 65_536;

/// Lets the program have as many files open as the system allows; shells and services often give less without being asked.
pub fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let known = getrlimit(Resource::Nofile);
    let wanted = known.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if known.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: known.maximum })
    {
        tracing::debug!(%error, "The limit of open files stays as it is");
    }
}

/// Runs one command at a running node and prints its reply.
pub async fn exec(address: &str, command: &str, deadline: Duration) -> ExitCode {
    let request = PeerRequest::Command { text: command.to_owned() };
    match GrpcPeers::new().call(address, request, deadline).await {
        Ok(PeerReply::Text(text)) => {
            if !text.is_empty() {
                StandardOutput.print(text.trim_end_matches(['\r', '\n']));
            }
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            report(&CommandError::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Says on the standard error why something failed. A standard error that nobody reads is no reason to end.
pub fn report(error: &CommandError) {
    let hint = error.hint.as_ref().map(|hint| format!("  {hint}\n")).unwrap_or_default();
    std::io::stderr().lock().write_all(format!("anylog-node: {}\n{hint}", error.message).as_bytes()).ok();
}

/// Prints the reference of all commands as Markdown.
#[must_use]
pub fn print_reference(app: &NodeApp) -> ExitCode {
    let reference = anylog_core::language::reference::markdown(&app.node.registry);
    StandardOutput.print(reference.trim_end());
    ExitCode::SUCCESS
}

/// Takes the words behind `process FILE` apart into commands. A bare `and` before a word that begins a command separates,
/// `&` does too; a quoted argument may hold blanks. Everything after `#` is a comment.
#[must_use]
pub fn commands_of(words: &[String], registry: &Registry) -> Vec<String> {
    let begins_command = |words: &[String]| {
        let joined = words.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(" ");
        let words: Vec<&str> = joined.split_whitespace().collect();
        registry.find(&words).is_some()
    };
    let words: Vec<String> = words.iter().take_while(|word| !word.starts_with('#')).cloned().collect();
    let mut commands = vec![String::new()];
    for (index, word) in words.iter().enumerate() {
        let separates = word == "&"
            || (word == "and" && (commands.iter().all(String::is_empty) || begins_command(&words[index + 1..])));
        match commands.last_mut() {
            _ if separates => commands.push(String::new()),
            Some(command) => {
                if !command.is_empty() {
                    command.push(' ');
                }
                command.push_str(word);
            }
            None => {}
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// Cancels the node's shutdown token on SIGTERM and SIGINT; a second signal ends the program at once. A SIGINT while a command that a
/// person typed is at work ends that command; when it goes on all the same, the next one ends the node.
///
/// # Errors
/// When the system does not deliver signals to this program.
pub fn end_on_signals(app: &NodeApp) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (shutdown, foreground) = (app.node.shutdown.clone(), Arc::clone(&app.foreground));
    tokio::spawn(async move {
        loop {
            let interrupted = tokio::select! {
                _ = terminate.recv() => false,
                _ = interrupt.recv() => true,
            };
            if interrupted && !shutdown.is_cancelled() && foreground.interrupt() {
                continue;
            }
            if shutdown.is_cancelled() {
                tracing::warn!("A second signal ends the program without draining");
                std::process::exit(130);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Ends the node when its standard input ends: it does so with the program that started this one, however that ends. What is
/// read is dropped. At a terminal the end of input ends the node anyway.
///
/// # Errors
/// When no thread can be started.
pub fn end_with_input(app: &NodeApp) -> std::io::Result<()> {
    if terminal::input() != Input::Piped {
        return Ok(());
    }
    let shutdown = app.node.shutdown.clone();
    let read = move || {
        if let Err(error) = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()) {
            tracing::debug!(%error, "The input cannot be read any more");
        }
        shutdown.cancel();
    };
    std::thread::Builder::new().name("input".into()).spawn(read).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str]) -> Vec<String> {
        let app = NodeApp::build(std::env::temp_dir()).unwrap();
        commands_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), &app.node.registry)
    }

    #[test]
    fn commands_behind_the_script_are_separated_by_and() {
        assert_eq!(split(&["and", "exit node"]), ["exit node"]);
        assert_eq!(split(&["and", "get", "connections", "and", "exit tcp"]), ["get connections", "exit tcp"]);
        assert_eq!(
            split(&["and", "run", "rest", "server", "where", "external_ip=a", "and", "external_port=1"]),
            ["run rest server where external_ip=a and external_port=1"]
        );
        assert_eq!(split(&["&", "exit tcp", "#", "and", "exit rest"]), ["exit tcp"]);
        assert!(split(&[]).is_empty());
    }
}
