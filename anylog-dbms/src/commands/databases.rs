//! Connecting databases and listing them.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::{CommandResult, Positional, PositionalKind};
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Reply, Status, Table};
use serde_json::json;

use super::{blocking, logical};
use crate::catalog::is_system;
use crate::{Catalog, ConnectRequest, DbmsInfo, Engine};

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    vec![
        blocking(catalog, connect_declaration(), connect),
        blocking(
            catalog,
            Declaration::new("disconnect dbms", "Takes a logical database away; its data stays.")
                .word("name", "the logical database")
                .returns("nothing")
                .example("disconnect dbms test"),
            disconnect,
        ),
        blocking(catalog, drop_declaration(), drop_dbms),
        blocking(
            catalog,
            Declaration::new("get databases", "Lists the connected databases.")
                .alias("get dbms")
                .format_option()
                .reads()
                .returns("a row per database: engine, owner, address, configuration, storage, and the status when one is not reached")
                .example("get databases"),
            list,
        ),
    ]
}

/// How long a server that is not reached is waited for: machines and containers that start together are there by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status of a database that nothing keeps from being used.
const CONNECTED: &str = "Connected";

/// The options that say where a server is.
fn with_server_options(declaration: Declaration) -> Declaration {
    declaration
        .option("user", OptionKind::Text, "login name at a server")
        .option("password", OptionKind::Text, "login password at a server")
        .key_alias(&["passwd"])
        .option(
            "ip",
            OptionKind::Text,
            "address of a server; without any of these four, that of the psql database connected before",
        )
        .default_is("127.0.0.1")
        .option("port", OptionKind::Text, "port of a server")
        .default_is("5432")
}

fn connect_declaration() -> Declaration {
    let declaration = Declaration::new("connect dbms", "Connects a logical database to a physical one.")
        .word("name", "the logical database")
        .required("type", OptionKind::Text, "the engine: sqlite or psql");
    with_server_options(declaration)
        .option("memory", OptionKind::Bool, "SQLite: keep the data in memory only")
        .default_is("false")
        .option("autocommit", OptionKind::Bool, "each statement is its own transaction")
        .default_is("true")
        .option("unlog", OptionKind::Bool, "PostgreSQL: tables that the server does not log")
        .default_is("false")
        .option(
            "connection",
            OptionKind::Text,
            "PostgreSQL: a connection text, 'host=... sslmode=...' or 'postgresql://...'; the other options override it",
        )
        .option("timeout", OptionKind::Duration, "PostgreSQL: how long a server that is not reached is waited for")
        .default_is("1 minute")
        .option(
            "statement_timeout",
            OptionKind::Duration,
            "PostgreSQL: how long a statement that reads may take; 0 seconds for ever; a limit that the server has wins when none is given",
        )
        .default_is("10 minutes")
        .option("provider", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .option("endpoint", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .option("region", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .option("access_key", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .option("secret_key", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .option("network_id", OptionKind::Text, "for bucket stores; ignored by sqlite and psql")
        .returns("the database and its engine; a server that is not reached is waited for, and `get databases` says so")
        .example("connect dbms test where type=sqlite")
        .example("connect dbms test where type=psql and ip=127.0.0.1 and port=5432 and user=anylog and password=demo")
        .example("connect dbms test where type=psql and user=anylog and password=demo and timeout = 10 minutes")
        .example("connect dbms plant where type=psql and connection='host=db.plant user=anylog sslmode=verify-full sslrootcert=/etc/ca.pem'")
        .example("connect dbms system_query where type=sqlite and memory=true")
}

fn drop_declaration() -> Declaration {
    let optional = |name, kind, help| Positional { name, kind, required: false, help };
    let declaration = Declaration::new("drop dbms", "Deletes a physical database, which must be disconnected.")
        .word("name", "the logical database")
        .positional(optional("from", PositionalKind::Keyword("from"), ""))
        .positional(optional("engine", PositionalKind::Word(OptionKind::Text), "the engine: sqlite or psql"))
        .option("type", OptionKind::Text, "the engine: sqlite or psql, when it is not given after 'from'");
    with_server_options(declaration)
        .returns("nothing")
        .example("drop dbms test from sqlite")
        .example("drop dbms test from psql where ip=127.0.0.1 and port=5432 and user=anylog and password=demo")
}

fn engine(text: &str) -> Result<Engine, CommandError> {
    match text.to_lowercase().as_str() {
        "sqlite" => Ok(Engine::Sqlite),
        "psql" | "postgres" | "postgresql" => Ok(Engine::Postgres),
        _ => Err(CommandError::new(Status::WRONG_DBMS_TYPE, format!("Wrong DBMS type: '{text}'"))
            .hint("use type=sqlite or type=psql")),
    }
}

fn request(catalog: &Catalog, call: &Invocation, engine: Engine) -> Result<ConnectRequest, CommandError> {
    let node = catalog.node();
    let name = logical(&call.expect_positional("name")?);
    let text = |option| call.options.text(option).unwrap_or_default();
    let port = match (engine, call.options.text("port")) {
        (Engine::Postgres, Some(port)) => {
            let wrong = || CommandError::new(Status::PORT_VALUE, format!("Wrong port value: '{port}'"));
            Some(port.trim().parse::<u16>().map_err(|_| wrong().hint("a port is a number from 1 to 65535"))?)
        }
        _ => None,
    };
    let mut request = ConnectRequest {
        engine,
        user: text("user"),
        password: text("password"),
        ip: text("ip"),
        port,
        connection: if engine == Engine::Postgres { text("connection") } else { String::new() },
        // Irrelevant options are ignored, so that one script serves both engines.
        memory: engine == Engine::Sqlite && call.options.bool("memory").unwrap_or(false),
        autocommit: call.options.bool("autocommit").unwrap_or(true),
        unlog: engine == Engine::Postgres && call.options.bool("unlog").unwrap_or(false),
        patience: call.options.duration("timeout").unwrap_or(PATIENCE),
        statement_timeout: call.options.duration("statement_timeout"),
        ..ConnectRequest::sqlite(name, node.directories.directory(&node.dictionary, "dbms_dir"))
    };
    catalog.complete_server(&mut request);
    Ok(request)
}

fn connect(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let engine = engine(&call.options.expect_text("type")?)?;
    let request = request(catalog, call, engine)?;
    let name = request.name.clone();
    catalog.connect(request)?;
    Ok(Reply::Text(format!("Database {name} using {} connected!", engine.word())))
}

fn disconnect(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    catalog.disconnect(&logical(&call.expect_positional("name")?))?;
    Ok(Reply::Empty)
}

fn drop_dbms(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let given = call.positional("engine").map(str::to_owned).or_else(|| call.options.text("type"));
    let given = given.ok_or_else(|| {
        CommandError::structure("Missing the engine of 'drop dbms'").hint("usage: drop dbms <name> from sqlite|psql")
    })?;
    catalog.drop_database(&request(catalog, call, engine(&given)?)?)?;
    Ok(Reply::Empty)
}

/// A row of `get databases`.
struct Listed {
    name: String,
    engine: Engine,
    system: bool,
    info: DbmsInfo,
    /// None when nothing keeps the database from being used.
    trouble: Option<String>,
}

fn listed(catalog: &Catalog) -> Vec<Listed> {
    let connected = catalog.list().into_iter().map(|database| Listed {
        name: database.name().to_owned(),
        engine: database.dbms().engine(),
        system: database.is_system(),
        info: database.dbms().info(),
        trouble: database.dbms().trouble(),
    });
    let mut all: Vec<Listed> = connected.collect();
    let awaited = catalog.awaited().into_iter().map(|awaited| Listed {
        system: is_system(&awaited.name),
        engine: awaited.engine,
        trouble: Some(awaited.status()),
        info: DbmsInfo { ip_port: awaited.server, configuration: String::new(), storage: "Persistent".into() },
        name: awaited.name,
    });
    all.extend(awaited);
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn list(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let databases = listed(catalog);
    if call.options.wants_json() {
        let object = databases.into_iter().map(|Listed { name, engine, info, trouble, .. }| {
            let status = trouble.unwrap_or_else(|| CONNECTED.to_owned());
            let shown =
                json!({"dbms_type": engine.word(), "ip_port": info.ip_port, "storage": info.storage, "status": status});
            (name, shown)
        });
        return Ok(Reply::Json(serde_json::Value::Object(object.collect())));
    }
    if databases.is_empty() {
        return Ok(Reply::Text("No DBMS connections found".into()));
    }
    let mut headings = vec!["Logical DBMS", "Database Type", "Owner", "IP:Port", "Configuration", "Storage"];
    // A column of its own only when there is something to say.
    let with_status = databases.iter().any(|database| database.trouble.is_some());
    headings.extend(with_status.then_some("Status"));
    let mut table = Table::new(headings).title("Active DBMS Connections");
    for Listed { name, engine, system, info, trouble } in &databases {
        let owner = if *system { "system" } else { "user" };
        let mut cells = vec![name, engine.word(), owner, &info.ip_port, &info.configuration, &info.storage];
        cells.extend(with_status.then(|| trouble.as_deref().unwrap_or(CONNECTED)));
        table.push(cells);
    }
    Ok(Reply::Table(table.max_width(catalog.node().output_width())))
}
