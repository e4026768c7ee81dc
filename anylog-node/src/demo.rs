//! A whole operator on loopback with plant data: what a node does, in one command.
//!
//! The demo starts the operator script of the examples in a temporary home with free ports, publishes the readings of four
//! pumps to the node's own MQTT port, and shows once a second how they arrive as rows. [`run_network`] shows a network of
//! nodes the same way, each of them a process of its own.

mod network;
mod plant;
mod publisher;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anylog_core::session::Console;
use anylog_core::{CommandError, Session};
use tokio::time::{Instant, MissedTickBehavior};

use crate::assembly::NodeApp;
use crate::console::StandardOutput;
use crate::{home, program};

pub use network::run as run_network;

/// The script that the demo runs: the eleven steps.
pub const OPERATOR_SCRIPT: &str = include_str!("../../examples/operator.al");

/// The variables that the script reads, none of which may come from the person's own environment.
const VARIABLES: &[&str] = &[
    "COMPANY_NAME",
    "IP",
    "EXTERNAL_IP",
    "DB_TYPE",
    "DB_IP",
    "DB_PORT",
    "DB_USER",
    "DB_PASSWD",
    "DB_PASSWORD",
    "CLUSTER_NAME",
    "SYNC_TIME",
    "PARTITION_COLUMN",
    "PARTITION_INTERVAL",
    "PARTITION_KEEP",
    "LEDGER_CONN",
];

/// Runs the demo until a signal, or for `limit`. A home that is not given is temporary.
pub async fn run(home: Option<PathBuf>, limit: Option<Duration>) -> ExitCode {
    let temporary = home.is_none();
    let home = home.unwrap_or_else(|| std::env::temp_dir().join(format!("anylog-demo-{}", std::process::id())));
    let code = match show(&home, limit).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::report(&error);
            ExitCode::FAILURE
        }
    };
    if temporary && let Err(error) = std::fs::remove_dir_all(&home) {
        tracing::warn!(%error, home = %home.display(), "The demo's home could not be removed");
    }
    code
}

async fn show(home: &Path, limit: Option<Duration>) -> Result<(), CommandError> {
    let io = |error: std::io::Error| CommandError::process(format!("The demo cannot start: {error}"));
    let _lock = home::lock(home)?;
    let script = home.join("operator.al");
    std::fs::write(&script, OPERATOR_SCRIPT).map_err(io)?;
    let [tcp, rest] = free_ports().map_err(io)?;
    let app = NodeApp::build(home).map_err(|error| CommandError::process(error.to_string()))?;
    program::end_on_signals(&app).map_err(io)?;
    let outcome = tokio::select! {
        outcome = work(&app, &script, tcp, rest, limit) => outcome,
        () = app.node.shutdown.cancelled() => Ok(()),
    };
    app.drain().await;
    outcome
}

async fn work(app: &NodeApp, script: &Path, tcp: u16, rest: u16, limit: Option<Duration>) -> Result<(), CommandError> {
    let dictionary = &app.node.dictionary;
    for variable in VARIABLES {
        dictionary.set_environment(variable, "");
    }
    dictionary.set_environment("NODE_NAME", "demo");
    dictionary.set_environment("ANYLOG_SERVER_PORT", tcp.to_string());
    dictionary.set_environment("ANYLOG_REST_PORT", rest.to_string());

    say(&format!("Starting an operator in {} ...", app.node.directories.home().display()));
    let mut session = app.session(anylog_core::Caller::embedded());
    session.run_script(script).await?;
    session.execute(plant::MAPPING).await?;
    say(&format!("MQTT and TCP at 127.0.0.1:{tcp}, REST at 127.0.0.1:{rest}. Four pumps report over MQTT, QoS 1.\n"));

    let publisher = publisher::Publisher::start(&[tcp], 1..=plant::PUMPS, app.node.clock.clone(), &app.node.shutdown);
    let watched = watch(&mut session, tcp, rest, limit).await;
    publisher.stop().await;
    let (rows, ..) = state(&mut session).await?;
    say(&format!("\nMessages acknowledged: {}. Rows in the database: {rows}.", publisher.acknowledged()));
    watched
}

/// A line a second until the limit.
async fn watch(session: &mut Session, tcp: u16, rest: u16, limit: Option<Duration>) -> Result<(), CommandError> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut before, mut then) = (0, start);
    let mut advised = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ended(start, limit) => return Ok(()),
            () = session.node.shutdown.cancelled() => return Ok(()),
        }
        let (rows, partitions, last) = state(session).await?;
        let now = Instant::now();
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        let rate = f64::from(u32::try_from(rows.saturating_sub(before)).unwrap_or(u32::MAX)) / seconds;
        let plural = if partitions == 1 { "partition " } else { "partitions" };
        let clock = now.duration_since(start).as_secs();
        say(&format!("{clock:>4} s {rows:>9} rows {rate:>7.0} rows/s {partitions:>3} {plural}  {last}"));
        (before, then) = (rows, now);
        if !advised && rows > 0 {
            advise(tcp, rest, &anylog_core::time::policy_date(session.node.clock.now()));
            advised = true;
        }
    }
}

async fn ended(start: Instant, limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(start + limit).await,
        None => std::future::pending().await,
    }
}

/// What can be tried while the demo runs.
fn advise(tcp: u16, rest: u16, now: &str) {
    let sql = "select device, count(*), avg(temperature), max(vibration) from pumps group by device";
    say(&format!(
        r#"
Try, from another terminal:
  curl -H 'command: sql test format=table "{sql}"' http://127.0.0.1:{rest}
  mosquitto_pub -h 127.0.0.1 -p {tcp} -q 1 -t anylog-demo -m '{{"timestamp": "{now}", "value": 7.5}}'
  anylog-node exec --connect 127.0.0.1:{tcp} "get msg client"
"#
    ));
}

/// Rows, partitions, and the newest reading as text.
async fn state(session: &mut Session) -> Result<(u64, usize, String), CommandError> {
    let counted = ask(session, r#"sql test format=json and stat=false "select count(*) as n from pumps""#).await?;
    let rows = counted["Query"][0]["n"].as_u64().unwrap_or(0);
    let partitions = ask(session, "get partitions where dbms=test and table=pumps and format=json").await?;
    let partitions =
        partitions.as_array().map_or_else(|| partitions.as_object().map_or(0, serde_json::Map::len), Vec::len);
    let newest = "select device, temperature, pressure, vibration from pumps order by timestamp desc limit 1";
    let newest = ask(session, &format!(r#"sql test format=json and stat=false "{newest}""#)).await?;
    let reading = &newest["Query"][0];
    let number = |name: &str| reading[name].as_f64().unwrap_or(0.0);
    let last = format!(
        "{}: {:.1} C, {:.2} bar, {:.2} mm/s",
        reading["device"].as_str().unwrap_or("-"),
        number("temperature"),
        number("pressure"),
        number("vibration")
    );
    Ok((rows, partitions, last))
}

async fn ask(session: &mut Session, command: &str) -> Result<serde_json::Value, CommandError> {
    match session.execute(command).await {
        Ok(reply) => Ok(serde_json::from_str(&reply.into_text().await?).unwrap_or_default()),
        // The table is there with its first row.
        Err(error) if error.status.http() == 404 => Ok(serde_json::Value::Null),
        Err(error) => Err(error),
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

fn say(text: &str) {
    StandardOutput.print(text);
}
