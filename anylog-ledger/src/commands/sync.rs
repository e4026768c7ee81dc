//! Commands of the synchroniser.

use std::sync::Arc;

use anylog_core::time::clock_text;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Status, Table, command,
};

use crate::sync::source::{DbmsSource, LedgerSource, MasterSource};
use crate::{Ledger, LedgerError};

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("run blockchain sync", "Keeps the local copy of the ledger like the master's.")
                .option("source", OptionKind::Choice(&["master", "dbms", "blockchain"]), "who holds the ledger")
                .option("time", OptionKind::Duration, "the longest time between two exchanges")
                .repeated("dest", OptionKind::Choice(&["file", "dbms"]), "where it is kept here")
                .option("connection", OptionKind::Address, "the master; that of the ledger's master policy when absent")
                .option("platform", OptionKind::Text, "a blockchain platform")
                .option("file", OptionKind::Text, "the local copy; !blockchain_file when absent")
                .returns("nothing once the first exchange is done, or a warning after 5 seconds; without options an exchange begins now")
                .example(
                    "run blockchain sync where source = master and time = 30 seconds and dest = file and connection = !ledger_conn",
                ),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(run(ledger, session, call)),
        ),
        command(
            Declaration::new("exit synchronizer", "Ends the synchronisation of the ledger.").returns("nothing").example("exit synchronizer"),
            Arc::clone(ledger),
            |ledger, _, _| {
                Box::pin(async move {
                    ledger.stop_sync()?;
                    Ok(Reply::Empty)
                })
            },
        ),
        command(
            Declaration::new("blockchain switch network", "Follows another master from now on.")
                .required("master", OptionKind::Address, "the other master")
                .returns("nothing").example("blockchain switch network where master = 10.0.0.1:32048"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(switch(ledger, session, call)),
        ),
        command(
            Declaration::new("get synchronizer", "Shows the synchronisation of the ledger.")
                .reads()
                .format_option()
                .returns("state, source, counts of exchanges, and whether the source tells of changes at once (Pushed)")
                .example("get synchronizer"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(get_synchronizer(ledger, session, call)),
        ),
        command(
            Declaration::new("get metadata version", "Shows the version of the local copy of the ledger.")
                .reads()
                .returns("a hash, equal on nodes with equal ledgers")
                .example("get metadata version"),
            Arc::clone(ledger),
            |ledger, _, _| Box::pin(async move { Ok(Reply::Text(ledger.version())) }),
        ),
    ]
}

async fn run(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    if options.is_empty() {
        if ledger.sync_state().is_none() {
            return Err(LedgerError::SyncNotRunning.into());
        }
        ledger.wake_sync();
        return Ok(Reply::Empty);
    }
    let missing = |name: &str| CommandError::structure(format!("Missing '{name}' in command variables"));
    let source = options.text("source").ok_or_else(|| missing("source"))?;
    let period = options.duration("time").ok_or_else(|| missing("time"))?;
    let destinations = options.texts("dest");
    if destinations.is_empty() {
        return Err(missing("dest"));
    }
    if period.as_secs() < 1 {
        return Err(CommandError::process("The time between two exchanges must be a second or more"));
    }
    if let Some(path) = options.text("file") {
        let path = session.permit_path(&path)?;
        session.node.dictionary.set("blockchain_file", path.display().to_string());
    }
    let source = source_of(ledger, &source, options.text("connection"), options.text("platform"))?;
    let to_dbms = destinations.iter().any(|destination| destination == "dbms");
    if to_dbms && !ledger.is_master() {
        return Err(CommandError::new(
            Status::DBMS_NOT_CONNECTED,
            "dest = dbms needs the table 'ledger' in the database 'blockchain'",
        )
        .hint("connect dbms blockchain where type = sqlite, then: create table ledger where dbms = blockchain"));
    }
    match ledger.start_sync(source, period, to_dbms).await? {
        None => Ok(Reply::Empty),
        Some(warning) => {
            session.node.errors.add(session.node.clock.now(), &session.thread, "Blockchain Sync", warning.clone());
            Ok(Reply::Text(format!("Warning: {warning}")))
        }
    }
}

fn source_of(
    ledger: &Ledger,
    source: &str,
    connection: Option<String>,
    platform: Option<String>,
) -> Result<Arc<dyn LedgerSource>, CommandError> {
    match (source, connection) {
        ("master", Some(address)) => Ok(Arc::new(MasterSource::new(Arc::clone(&ledger.peers), address))),
        ("master", None) => {
            let master = ledger.policies("master").iter().find_map(|policy| ledger.own_addresses().reach(policy));
            let address = master.ok_or_else(|| {
                CommandError::structure("Missing 'connection': the ledger holds no master policy")
                    .hint("name the master: connection = ip:port")
            })?;
            Ok(Arc::new(MasterSource::new(Arc::clone(&ledger.peers), address)))
        }
        ("dbms", None) => match ledger.catalog().get(crate::store::master::DBMS) {
            Ok(_) => Ok(Arc::new(DbmsSource::new(&ledger.shared()))),
            Err(error) => Err(LedgerError::from(error).into()),
        },
        ("dbms", Some(_)) => {
            Err(CommandError::structure("source = dbms takes no connection: it is this node's database"))
        }
        _ => Err(CommandError::new(
            Status::BLOCKCHAIN_OPERATION,
            format!(
                "No blockchain platform {}is connected",
                platform.map(|name| format!("'{name}' ")).unwrap_or_default()
            ),
        )
        .hint("use a master: source = master and connection = ip:port")),
    }
}

async fn switch(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let address = call.options.expect_text("master")?;
    ledger.switch_source(Arc::new(MasterSource::new(Arc::clone(&ledger.peers), address)))?;
    Ok(Reply::Empty)
}

async fn get_synchronizer(ledger: &Ledger, session: &mut Session, call: Invocation) -> CommandResult {
    let mut table = Table::new([
        "Status",
        "Sync Source",
        "Connection",
        "Sync Time",
        "Metadata Version",
        "Time Since Update",
        "Calls",
        "Loads",
        "Policies",
        "Sync OK",
        "Sync Err",
        "Pushed",
        "Message",
    ]);
    let Some(state) = ledger.sync_state() else {
        table.push(["Not declared"]);
        return Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) });
    };
    let stats = &state.stats;
    let since = stats.updated.map_or_else(String::new, |updated| {
        let seconds = session.node.clock.now().as_second().saturating_sub(updated.as_second());
        clock_text(std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    });
    let mut messages: Vec<String> = stats.error.iter().cloned().collect();
    messages.extend(stats.refused.iter().cloned());
    table.push([
        "Running".to_owned(),
        state.source.kind().to_owned(),
        state.source.connection(),
        format!("{} seconds", state.period.as_secs()),
        ledger.version(),
        since,
        stats.calls.to_string(),
        stats.loads.to_string(),
        ledger.snapshot().stored().len().to_string(),
        stats.succeeded.to_string(),
        stats.failed.to_string(),
        stats.following.to_string(),
        messages.join("; "),
    ]);
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}
