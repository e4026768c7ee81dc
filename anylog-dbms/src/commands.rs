//! The commands over databases, tables, partitions and the registry of source files: thin adapters that read options, call
//! the crate, and shape the answer.

mod backup;
mod databases;
mod partitions;
mod tables;
mod tsd;

use std::sync::Arc;

use anylog_core::command::CommandResult;
use anylog_core::names::normalize;
use anylog_core::{Command, CommandError, Declaration, Invocation, Reply, Table, command};

use crate::Catalog;

/// All commands of this crate.
#[must_use]
pub fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    [
        databases::commands(catalog),
        tables::commands(catalog),
        partitions::commands(catalog),
        backup::commands(catalog),
        tsd::commands(catalog),
    ]
    .concat()
}

type Handler = fn(&Arc<Catalog>, &Invocation) -> CommandResult;

/// A command whose handler blocks; it runs on a thread for such work.
fn blocking(catalog: &Arc<Catalog>, declaration: Declaration, handler: Handler) -> Arc<dyn Command> {
    command(declaration, Arc::new(Arc::clone(catalog)), move |catalog: &Arc<Catalog>, _, call| {
        let catalog = Arc::clone(catalog);
        Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || handler(&catalog, &call));
            work.await.map_err(|error| CommandError::process(format!("the command ended abnormally: {error}")))?
        })
    })
}

/// A table as text or JSON, as the call asks.
fn shaped(catalog: &Catalog, call: &Invocation, table: Table) -> Reply {
    if call.options.wants_json() {
        return Reply::Json(table.to_json());
    }
    Reply::Table(table.max_width(catalog.node().output_width()))
}

/// A logical name as it is stored. One with a dot is the name of a file and stays as it is.
fn logical(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { normalize(name) }
}

/// The database that the option `dbms` names.
fn database_option(catalog: &Catalog, call: &Invocation) -> Result<Arc<crate::Database>, CommandError> {
    Ok(catalog.get(&logical(&call.options.expect_text("dbms")?))?)
}

/// The table that the option `table` names.
fn table_option(call: &Invocation) -> Result<String, CommandError> {
    Ok(stored_table(&call.options.expect_text("table")?))
}

/// A table's name as it is stored; `*` stays.
fn stored_table(name: &str) -> String {
    if name == "*" { name.to_owned() } else { normalize(name) }
}
