//! A network on loopback: a master, three operators in two clusters and a query node, each a process of its own.
//!
//! The pumps of a cluster publish every reading to each of its members, so that any of them can answer for the cluster. The
//! nodes end when their standard input is closed, which the system does when this program ends in any way.

mod member;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use anylog_core::time::SystemClock;
use anylog_net::GrpcPeers;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::member::{Member, Plan};
use super::publisher::Publisher;
use super::{ended, free_ports, say};
use crate::program;

const MASTER: &str = include_str!("../../../examples/network/master.al");
const OPERATOR: &str = include_str!("../../../examples/network/operator.al");
const QUERY: &str = include_str!("../../../examples/network/query.al");

/// The places of the nodes among the members.
const FIRST_OPERATOR: usize = 1;
const SOUTH_MAIN: usize = 2;
const QUERY_NODE: usize = 4;

/// Every so many seconds the whole network is asked.
const ASK_EVERY: u64 = 5;

/// How long a line of the dashboard waits for its node.
const PATIENCE: Duration = Duration::from_millis(900);

/// How long an answer of the whole network may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The statement over all operators, and the count that the summary compares.
const STATEMENT: &str = "select device, count(*) as readings, avg(temperature)::float(1) as temperature, \
                         max(vibration)::float(2) as vibration from pumps group by device order by device";
const COUNT: &str = r#"run client () sql plant format=json and stat=false "select count(*) as n from pumps""#;

/// Shows the network until a signal, or for `limit` after its start. Homes are below `home`, or temporary.
pub async fn run(home: Option<PathBuf>, limit: Option<Duration>) -> ExitCode {
    let temporary = home.is_none();
    let homes = home.unwrap_or_else(std::env::temp_dir).join(format!("anylog-network-{}", std::process::id()));
    let code = match show(&homes, limit).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::report(&error);
            ExitCode::FAILURE
        }
    };
    if temporary && let Err(error) = std::fs::remove_dir_all(&homes) {
        tracing::warn!(%error, homes = %homes.display(), "The demo's homes could not be removed");
    }
    code
}

async fn show(homes: &Path, limit: Option<Duration>) -> Result<(), CommandError> {
    let io = |error: std::io::Error| CommandError::process(format!("The demo cannot start: {error}"));
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(io)?;
    let plans = plans(free_ports().map_err(io)?);
    say(&format!("Starting five nodes, each a process at home in {} ...", homes.display()));
    let mut members = Vec::with_capacity(plans.len());
    let worked = match start(&plans, homes, &stop, &mut members).await {
        Ok(()) if stop.is_cancelled() => Ok(()),
        Ok(()) => work(&mut members, limit, &stop).await,
        Err(error) => Err(error),
    };
    end(members).await;
    worked
}

/// The nodes by their places.
fn plans(ports: [u16; 10]) -> [Plan; 5] {
    let [master, r0, one, r1, two, r2, three, r3, query, r4] = ports;
    let plan = |name, script, tcp, rest, cluster| {
        let master = (tcp != master).then_some(master);
        Plan { name, script, tcp, rest, master, cluster }
    };
    [
        plan("master", MASTER, master, r0, None),
        plan("operator-1", OPERATOR, one, r1, Some(("north", true))),
        plan("operator-2", OPERATOR, two, r2, Some(("south", true))),
        plan("operator-3", OPERATOR, three, r3, Some(("south", false))),
        plan("query", QUERY, query, r4, None),
    ]
}

/// One after the other: a cluster is declared by the first of its members.
async fn start(
    plans: &[Plan],
    homes: &Path,
    stop: &CancellationToken,
    members: &mut Vec<Member>,
) -> Result<(), CommandError> {
    let peers = GrpcPeers::new();
    for plan in plans {
        let member = tokio::select! {
            member = Member::start(*plan, homes, &peers) => member?,
            () = stop.cancelled() => return Ok(()),
        };
        let cluster = plan.cluster.map(|(cluster, _)| format!("cluster {cluster}")).unwrap_or_default();
        let id = member.id().map(|id| format!("process {id}")).unwrap_or_default();
        let Plan { name, tcp, rest, .. } = plan;
        say(&format!("  {name:<10}  TCP 127.0.0.1:{tcp:<5}  REST 127.0.0.1:{rest:<5}  {id:<15}  {cluster}"));
        members.push(member);
    }
    Ok(())
}

/// Pumps, dashboard, and what can be said at the end.
async fn work(
    members: &mut Vec<Member>,
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> Result<(), CommandError> {
    let port = |place: usize| members[place].plan.tcp;
    say(&format!(
        "\nPumps 1 and 2 publish to operator-1. Pumps 3 and 4 publish to operator-2 and to operator-3: members of one \
         cluster hold\nthe same rows, and as nodes do not replicate yet, each of the two gets every reading.\n\
         MQTT, QoS 1. Try, from another terminal:\n  \
         curl -H 'destination: network' -H 'command: sql plant format=table \"{STATEMENT}\"' http://127.0.0.1:{}\n  \
         kill -9 {}    # operator-2: its mate answers from then on\n",
        members[QUERY_NODE].plan.rest,
        members[SOUTH_MAIN].id().unwrap_or_default(),
    ));
    let clock = Arc::new(SystemClock);
    let pumps = [
        Publisher::start(&[port(FIRST_OPERATOR)], 1..=2, clock.clone(), stop),
        Publisher::start(&[port(SOUTH_MAIN), port(SOUTH_MAIN + 1)], 3..=4, clock, stop),
    ];
    watch(members, limit, stop).await;
    for publisher in &pumps {
        publisher.stop().await;
    }
    summary(members, &pumps, !stop.is_cancelled()).await
}

/// A line a second for each node, and an answer of the whole network every few seconds.
async fn watch(members: &[Member], limit: Option<Duration>, stop: &CancellationToken) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = vec![0; members.len()];
    for second in 1_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ended(start, limit) => return,
            () = stop.cancelled() => return,
        }
        let states = futures_util::future::join_all(members.iter().map(state)).await;
        let ledger = states.first().and_then(|state| state.as_ref().ok()).map(|state| state.version.clone());
        for (place, (member, state)) in members.iter().zip(states).enumerate() {
            let clock = if place == 0 { format!("{:>4} s", start.elapsed().as_secs()) } else { " ".repeat(6) };
            let name = member.plan.name;
            let shown = match state {
                Ok(state) => {
                    let line = state.line(member.plan.cluster, before[place], ledger.as_deref());
                    before[place] = state.rows;
                    line
                }
                Err(error) => format!("away: {}", error.message),
            };
            say(&format!("{clock}  {name:<10} {shown}"));
        }
        if second % ASK_EVERY == 2 {
            ask_all(&members[QUERY_NODE]).await;
        }
    }
}

/// What the dashboard shows of a node.
struct State {
    policies: u64,
    version: String,
    rows: u64,
}

impl State {
    fn line(&self, cluster: Option<(&str, bool)>, before: u64, ledger: Option<&str>) -> String {
        let Self { policies, version, rows } = self;
        let short = version.get(..8).unwrap_or(version);
        let agrees = match ledger {
            Some(ledger) if ledger == version => "",
            Some(_) => "(not the master's)",
            None => "(the master is away)",
        };
        let data = cluster.map_or_else(String::new, |(cluster, _)| {
            format!("{rows:>8} rows  +{:<5} cluster {cluster}", rows.saturating_sub(before))
        });
        format!("{policies:>3} policies  ledger {short} {agrees:<6}{data}").trim_end().to_owned()
    }
}

async fn state(member: &Member) -> Result<State, CommandError> {
    let policies = member.ask_within("blockchain get * bring.count", PATIENCE).await?;
    let version = member.ask_within("get metadata version", PATIENCE).await?;
    let rows = match member.plan.cluster {
        Some(_) => {
            count(member, r#"sql plant format=json and stat=false "select count(*) as n from pumps""#, PATIENCE).await?
        }
        None => 0,
    };
    Ok(State { policies: policies.trim().parse().unwrap_or(0), version: version.trim().to_owned(), rows })
}

/// The number that a `select count(*) as n` gives; 0 before the table is there.
async fn count(member: &Member, command: &str, deadline: Duration) -> Result<u64, CommandError> {
    match member.ask_within(command, deadline).await {
        Ok(text) => {
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            Ok(answer["Query"][0]["n"].as_u64().unwrap_or(0))
        }
        Err(error) if error.status.http() == 404 => Ok(0),
        Err(error) => Err(error),
    }
}

/// The answer of the whole network, with its statistics.
async fn ask_all(query: &Member) {
    say(&format!("\n  Over all operators, asked at the query node: {STATEMENT}"));
    let command = format!("run client () sql plant format=table and timezone=utc \"{STATEMENT}\"");
    let shown = match query.ask_within(&command, ANSWER).await {
        Ok(text) => text.trim_matches(['\r', '\n']).to_owned(),
        Err(error) => format!("{}\n{}", error.message, error.hint.unwrap_or_default()),
    };
    say(&format!("{}\n", shown.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")));
}

/// Compares what was acknowledged with what the network answers, also without one of two members.
async fn summary(members: &mut Vec<Member>, pumps: &[Publisher; 2], lose_one: bool) -> Result<(), CommandError> {
    let [north, south] = pumps.each_ref().map(Publisher::acknowledged);
    say(&format!("\nMessages acknowledged: {north} of north + {south} of south = {}.", north + south));
    let rows = count(&members[QUERY_NODE], COUNT, ANSWER).await?;
    say(&format!("Rows by the query node: {rows}."));
    kept(rows, north + south)?;
    if !lose_one {
        return Ok(());
    }
    // The places of those before it stay; the query node moves up.
    members.remove(SOUTH_MAIN).end().await;
    let rows = count(&members[QUERY_NODE - 1], COUNT, ANSWER).await?;
    say(&format!("Rows after operator-2 ended, from its mate: {rows}."));
    kept(rows, north + south)
}

/// Every acknowledged message is a row; one that came again after a broken connection may be two.
fn kept(rows: u64, acknowledged: u64) -> Result<(), CommandError> {
    if rows >= acknowledged {
        return Ok(());
    }
    Err(CommandError::process(format!("{acknowledged} messages were acknowledged, and the network has {rows} rows"))
        .hint("look into the nodes' output with: demo --network --home DIR"))
}

/// Ends the nodes in the order opposite to their start.
async fn end(members: Vec<Member>) {
    let mut killed = Vec::new();
    for member in members.into_iter().rev() {
        let name = member.plan.name;
        if !member.end().await {
            killed.push(name);
        }
    }
    let except = if killed.is_empty() { String::new() } else { format!(" Not by themselves: {}.", killed.join(", ")) };
    say(&format!("All nodes ended.{except}"));
}

/// Stops on SIGINT, SIGTERM and when the terminal is closed; a second signal ends the program at once, and the nodes with it.
fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("A second signal ends the program; the nodes drain and end by themselves");
                std::process::exit(130);
            }
            stop.cancel();
        }
    });
    Ok(())
}
