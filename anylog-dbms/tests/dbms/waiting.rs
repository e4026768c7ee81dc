//! Servers that are not there yet, and statements that take too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anylog_dbms::{ConnectHook, ConnectRequest, Database, Dbms, DbmsError, SqlValue};

use crate::commands::Typist;
use crate::server::Server;
use crate::support::{catalog, rows, text, value};

/// Long enough for everything that comes to pass in the end.
const LONG: Duration = Duration::from_secs(60);

fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Counts the databases that are about to be offered.
struct Replays(AtomicUsize);

impl ConnectHook for Replays {
    fn before_offer(&self, _: &Arc<Database>) -> Result<(), DbmsError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn patient(request: ConnectRequest, patience: Duration) -> ConnectRequest {
    ConnectRequest { patience, ..request }
}

#[test]
fn a_server_that_starts_later_is_waited_for() {
    let server = Server::start();
    let (_home, catalog) = catalog();
    let replays = Arc::new(Replays(AtomicUsize::new(0)));
    catalog.add_hook(replays.clone());
    server.stop();
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| catalog.connect(patient(server.request("later"), LONG)));
        let awaited = eventually("it is waited for", || catalog.awaited().pop());
        assert_eq!((awaited.name.as_str(), awaited.server), ("later", format!("127.0.0.1:{}", server.port)));
        assert!(awaited.reason.contains("refused"), "{}", awaited.reason);
        assert_eq!(replays.0.load(Ordering::Relaxed), 0);
        assert!(matches!(catalog.get("later"), Err(DbmsError::NotConnected { .. })));
        // Others need not wait.
        catalog.connect(ConnectRequest::sqlite_memory("other")).unwrap();
        server.start_again();
        let database = connecting.join().unwrap().unwrap();
        assert_eq!(replays.0.load(Ordering::Relaxed), 2, "once for each database, before it is offered");
        assert!(catalog.awaited().is_empty() && catalog.get("later").is_ok());
        assert_eq!(database.dbms().trouble(), None);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_sees_what_is_waited_for_and_may_end_it() {
    let server = Server::start();
    server.stop();
    let mut typist = Typist::new();
    let address = format!("127.0.0.1:{}", server.port);
    let connect = format!("connect dbms plant where type=psql and user=anylog and port={}", server.port);
    let error = typist.fail(&format!("{connect} and timeout = 0 seconds")).await;
    assert!(error.message.contains(&address) && error.message.contains("refused"), "{error}");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("timeout = 10 minutes")), "{error}");
    let mut waiting = anylog_core::Session::new(Arc::clone(typist.catalog.node()), anylog_core::Caller::terminal());
    let waits = tokio::spawn(async move { waiting.execute(&format!("{connect} and timeout = 1 hour")).await.err() });
    let seen =
        |text: &str| text.contains("plant") && text.contains("waiting for the server") && text.contains("refused");
    let end = Instant::now() + LONG;
    while !seen(&typist.run("get databases where format=json").await) {
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
    let table = typist.run("get databases").await;
    assert!(seen(&table) && table.contains(&address), "{table}");
    typist.run("disconnect dbms plant").await;
    let error = waits.await.unwrap().unwrap();
    assert!(error.message.contains("refused"), "{error}");
    assert_eq!(typist.run("get databases").await, "No DBMS connections found");
}

#[test]
fn who_is_refused_does_not_wait() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let mut request = patient(server.request("refused"), Duration::from_secs(3600));
    request.user = "nobody_of_that_name".into();
    let error = catalog.connect(request).unwrap_err();
    assert!(matches!(&error, DbmsError::Connect { reason, .. } if reason.contains("(SQLSTATE 28000)")), "{error}");
    let hint = anylog_core::CommandError::from(error).hint.unwrap();
    assert!(hint.contains("pg_hba.conf"), "{hint}");
}

#[test]
fn the_end_of_the_node_ends_the_waiting() {
    let server = Server::start();
    server.stop();
    let (_home, catalog) = catalog();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| catalog.connect(patient(server.request("never"), Duration::from_secs(3600))));
        eventually("it is waited for", || catalog.awaited().pop());
        catalog.node().shutdown.cancel();
        assert!(matches!(waits.join().unwrap(), Err(DbmsError::NotReached { .. })));
    });
}

#[test]
fn who_disconnects_ends_a_wait_without_end() {
    let server = Server::start();
    server.stop();
    let (_home, catalog) = catalog();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| catalog.connect(patient(server.request("never"), Duration::MAX)));
        eventually("it is waited for", || catalog.awaited().pop());
        catalog.disconnect("never").unwrap();
        assert!(matches!(waits.join().unwrap(), Err(DbmsError::NotReached { .. })));
    });
}

#[test]
fn statements_that_read_have_a_time_limit() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let limited = |name: &str, limit: Option<Duration>| {
        let request = ConnectRequest { name: name.into(), statement_timeout: limit, ..server.request("limits") };
        catalog.connect(request).unwrap()
    };
    let shown =
        |database: &Arc<Database>| value(database.dbms().as_ref(), None, "SELECT current_setting('statement_timeout')");
    assert_eq!(shown(&limited("limits", None)), text("10min"));
    assert_eq!(shown(&limited("limits_off", Some(Duration::ZERO))), text("0"));
    let quick =
        ConnectRequest { statement_timeout: Some(Duration::from_millis(100)), ..server.request("limits_quick") };
    let quick = catalog.connect(quick).unwrap();
    let error = quick.dbms().query(None, "SELECT pg_sleep(3600)", &mut |_, _| unreachable!()).unwrap_err();
    assert!(
        matches!(&error, DbmsError::Statement { reason, .. } if reason.contains("57014") && reason.contains("statement_timeout = 1 hour")),
        "{error}"
    );
    // The connection goes on, and a limit that a person gave at the server holds where none is asked for.
    assert_eq!(shown(&quick), text("100ms"));
    quick.dbms().execute("ALTER DATABASE limits_quick SET statement_timeout = '7min'").unwrap();
    catalog.disconnect("limits_quick").unwrap();
    assert_eq!(shown(&catalog.connect(server.request("limits_quick")).unwrap()), text("7min"));
}

#[test]
fn a_statement_that_nobody_wants_any_more_ends_at_the_server() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("unwanted")).unwrap();
    let dbms: &dyn Dbms = database.dbms().as_ref();
    let running = || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)' AND pid <> pg_backend_pid()";
        value(dbms, None, &format!("{sql} AND state = 'active'"))
    };
    let wanted = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let wanted = || wanted.load(Ordering::Relaxed);
            dbms.query_while(None, "SELECT 1 FROM pg_sleep(3600)", &wanted, &mut |_, _| unreachable!())
        });
        eventually("it runs", || (running() == SqlValue::Int(1)).then_some(()));
        wanted.store(false, Ordering::Relaxed);
        asks.join().unwrap().unwrap();
        eventually("it ended at the server", || (running() == SqlValue::Int(0)).then_some(()));
    });
    assert_eq!(rows(dbms, None, "SELECT 1"), [[SqlValue::Int(1)]]);
}
