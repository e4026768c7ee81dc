//! What only PostgreSQL promises: a server.

use anylog_dbms::{DbmsError, Engine, Target};

use crate::server::Server;
use crate::support::{batch, catalog, table};
use crate::{conformance, tsd};

#[test]
fn a_server_conforms() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("conform")).unwrap();
    conformance::all(&database);
}

#[test]
fn unlogged_tables_conform() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let mut request = server.request("conform_unlogged");
    request.unlog = true;
    let database = catalog.connect(request).unwrap();
    conformance::all(&database);
}

#[test]
fn postgres_keeps_the_registry() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    tsd::conforms(&catalog.connect(server.request("almgm")).unwrap());
    assert!(catalog.tsd().is_some());
}

#[test]
fn databases_are_made_and_dropped_on_demand() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let request = server.request("it's \"odd\"");
    let database = catalog.connect(request.clone()).unwrap();
    assert_eq!(database.dbms().engine(), Engine::Postgres);
    assert_eq!(database.dbms().info().ip_port, format!("127.0.0.1:{}", server.port));
    database.dbms().create_table(&table("t", &[r#"{"v":1}"#])).unwrap();
    assert_eq!(database.dbms().tables().unwrap(), ["t"]);
    drop(database);
    catalog.disconnect(&request.name).unwrap();
    catalog.drop_database(&request).unwrap();
    assert!(matches!(catalog.drop_database(&request), Err(DbmsError::Connect { .. })));
    let again = catalog.connect(request).unwrap();
    assert_eq!(again.dbms().tables().unwrap(), Vec::<String>::new());
}

#[test]
fn a_lost_connection_is_made_again() {
    let server = Server::start();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("lost")).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    let target = Target::table("t");
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    assert_eq!(database.dbms().count(&target).unwrap(), 1);
    server.restart();
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    assert_eq!(database.dbms().count(&target).unwrap(), 2);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (_home, catalog) = catalog();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let request = anylog_dbms::ConnectRequest::postgres("x", "127.0.0.1", port, "u", "secret");
    assert!(!format!("{request:?}").contains("secret"));
    let error = catalog.connect(request).unwrap_err().to_string();
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn names_that_the_server_would_cut_are_refused() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("names")).unwrap();
    let schema = table(&"x".repeat(50), &[r#"{"timestamp":"2026-01-01 00:00:00Z"}"#]);
    database.dbms().create_table(&schema).unwrap();
    let partition = format!("par_{}_2026_01_01_d01_timestamp", schema.name);
    let error = database.dbms().create_partition(&schema, &partition).unwrap_err();
    assert!(matches!(error, DbmsError::Declaration { .. }), "{error}");
}
