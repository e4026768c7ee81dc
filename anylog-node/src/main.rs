//! The program: arguments in, a node up, a signal, a node drained.

mod allocator;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use anylog_node::{NodeApp, demo, home, program};
use clap::{CommandFactory, Parser, Subcommand};

/// An edge-data node: takes data in over MQTT and REST, keeps it in partitioned local databases, answers SQL.
#[derive(Debug, Parser)]
#[command(name = "anylog-node", version)]
struct Arguments {
    /// Home directory; everything the node keeps lies below it in AnyLog-Network.
    /// [default: $ANYLOG_HOME, $EDGELAKE_HOME, or the working directory]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a script and stay: `process operator.al [and COMMAND ...]`.
    #[command(visible_alias = "run")]
    Process {
        /// End when the standard input ends, for programs that start nodes; what comes from it is not read as commands.
        #[arg(long)]
        until_eof: bool,
        /// The script.
        file: PathBuf,
        /// Commands behind it, separated by `and`; quote a command that itself holds `and`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "and COMMAND")]
        after: Vec<String>,
    },
    /// Start a node and read commands from the terminal.
    Shell,
    /// Run one command at a running node and print its reply.
    Exec {
        /// The command, as one argument or several.
        #[arg(required = true, value_name = "COMMAND")]
        command: Vec<String>,
        /// Address of the node's TCP server.
        #[arg(long, default_value = "127.0.0.1:32148", value_name = "HOST:PORT")]
        connect: String,
        /// Seconds to wait for the reply.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Show a whole operator at work: plant data arrives over MQTT and can be queried at once.
    Demo {
        /// Show a network instead: a master, three operators in two clusters and a query node, each a process.
        #[arg(long)]
        network: bool,
        /// End after so many seconds; without it, at Ctrl-C.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Print the reference of all commands as Markdown.
    Commands,
}

fn main() -> ExitCode {
    allocator::give_back_soon();
    let arguments = Arguments::parse();
    let Some(action) = arguments.action else {
        // Without anything to do the program says what it can do.
        return match Arguments::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    log_to_standard_error();
    program::allow_open_files();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("No threads could be started: {error}")),
    };
    let code = runtime.block_on(act(action, arguments.home));
    // A terminal that still waits for a line must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn act(action: Action, home: Option<PathBuf>) -> ExitCode {
    match action {
        Action::Exec { command, connect, timeout } => {
            program::exec(&connect, &command.join(" "), Duration::from_secs(timeout)).await
        }
        Action::Demo { network: false, seconds } => demo::run(home, seconds.map(Duration::from_secs)).await,
        Action::Demo { network: true, seconds } => demo::run_network(home, seconds.map(Duration::from_secs)).await,
        Action::Process { until_eof, file, after } => match start_alone(home) {
            Ok((app, _lock)) => {
                if until_eof && let Err(error) = program::end_with_input(&app) {
                    return failed(&format!("The standard input cannot be read: {error}"));
                }
                let after = program::commands_of(&after, &app.node.registry);
                program::process(&app, &file, &after).await
            }
            Err(code) => code,
        },
        Action::Shell => match start_alone(home) {
            Ok((app, _lock)) => program::stay(&app).await,
            Err(code) => code,
        },
        Action::Commands => match start(home) {
            Ok(app) => program::print_reference(&app),
            Err(code) => code,
        },
    }
}

fn start(home: Option<PathBuf>) -> Result<Arc<NodeApp>, ExitCode> {
    let app = NodeApp::build(home::home(home)).map_err(|error| failed(&error.to_string()))?;
    program::end_on_signals(&app).map_err(|error| failed(&format!("Signals cannot be received: {error}")))?;
    Ok(app)
}

/// A node that has its home directory for itself.
fn start_alone(home: Option<PathBuf>) -> Result<(Arc<NodeApp>, home::HomeLock), ExitCode> {
    let home = home::home(home);
    let lock = home::lock(&home).map_err(|error| {
        program::report(&error);
        ExitCode::FAILURE
    })?;
    Ok((start(Some(home))?, lock))
}

/// Two threads at least, so that one busy command does not stop the others; few, because edge machines are small.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.clamp(2, 8)).enable_all().build()
}

/// Warnings and errors; more with ANYLOG_LOG=info, debug or a filter such as anylog_net=debug.
fn log_to_standard_error() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let wanted = std::env::var("ANYLOG_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("warn"));
    let filter = filter.unwrap_or_else(|error| {
        failed(&format!("ANYLOG_LOG is not understood, warnings are shown: {error}"));
        EnvFilter::new("warn")
    });
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
}

fn failed(message: &str) -> ExitCode {
    program::report(&CommandError::process(message));
    ExitCode::FAILURE
}
