//! Ingestion and storage in an own program, without the node around them.
//!
//! The program opens an MQTT port. What devices publish to `plant/#` becomes rows of an SQLite table that is split into daily
//! partitions, and a PUBACK is sent when the rows are stored. The store is thirty lines of the program's own: it implements
//! [`RowSink`], which is all that ingestion asks for.
//!
//! ```sh
//! cargo run -p anylog-node --example embed_operator            # publishes three readings itself, prints the rows, ends
//! cargo run -p anylog-node --example embed_operator -- 1883    # listens on port 1883 until Ctrl-C
//! ```

#![allow(clippy::print_stdout, reason = "an example that shows its rows")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use anylog_core::{Caller, Node, Session};
use anylog_dbms::schema::{RowConverter, TimeWindow, infer};
use anylog_dbms::{Catalog, ConnectRequest, Database, PartitionUnit, Partitioning, SqlValue, Target};
use anylog_ingest::sink::Issuer;
use anylog_ingest::{
    FileReceipt, Ingest, Receipt, RowGroup, RowSink, SinkError, SinkSlot, SourceFile, TableRows, Unmapped,
};
use anylog_ledger::Ledger;
use anylog_net::{Listeners, LocalPeers, Protocol, ServerAddress, ServerKind};
use async_trait::async_trait;

/// Keeps rows in one database; makes a table when its first row arrives.
struct Store {
    issuer: Issuer,
    database: Arc<Database>,
    days: Partitioning,
}

impl Store {
    /// Blocks: runs on a thread where it may.
    fn store(&self, part: &TableRows) -> Result<usize, Box<dyn Error + Send + Sync>> {
        let dbms = self.database.dbms();
        let texts: Vec<&str> = part.rows.iter().map(String::as_str).collect();
        let schema = match dbms.schema(&part.table)? {
            Some(schema) => schema,
            None => infer(&part.table, &texts, &part.declared, false)?,
        };
        dbms.create_table(&schema)?;
        let now = jiff::Timestamp::now();
        let target = Target::partition(&part.table, self.days.name(&part.table, now));
        dbms.create_partition(&schema, target.physical())?;

        let converter = RowConverter::new(&schema, jiff::tz::TimeZone::UTC, TimeWindow::default());
        let mut columns = vec!["insert_timestamp".to_owned()];
        columns.extend(schema.data_columns().iter().map(|column| column.name.clone()));
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            let mut row = vec![SqlValue::Text(anylog_core::time::stored(now))];
            row.extend(converter.convert(text, now)?.values);
            rows.push(row);
        }
        dbms.apply(&target, &columns, &rows, &[])?;
        // The receipt promises stable storage.
        dbms.sync()?;
        Ok(rows.len())
    }
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        let stored =
            tokio::task::block_in_place(|| group.parts.iter().map(|part| self.store(part)).sum::<Result<usize, _>>());
        match stored {
            Ok(rows) => Ok(Receipt::issue(&self.issuer, rows, Vec::new())),
            Err(error) => Err(SinkError::Failed { reason: error.to_string() }),
        }
    }

    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        // A store that keeps no such messages must say so: then they are not acknowledged.
        Err(SinkError::Failed { reason: unmapped.reason })
    }

    async fn store_file(&self, _: SourceFile) -> Result<FileReceipt, SinkError> {
        Err(SinkError::Failed { reason: "this store takes messages only".into() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let node = Node::builder().home(home.path()).name("embedded").build();
    let catalog = Catalog::new(Arc::clone(&node));
    let database = catalog.connect(ConnectRequest::sqlite("plant", home.path()))?;

    let slot = SinkSlot::new();
    let days = Partitioning::new("insert_timestamp", 1, PartitionUnit::Day)?;
    slot.mount(|issuer| Arc::new(Store { issuer, database: Arc::clone(&database), days }));

    let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), LocalPeers::new());
    let ingest = Ingest::new(Arc::clone(&node), ledger, slot);
    let listeners = Arc::new(Listeners::default());
    node.registry.register_all(anylog_ingest::commands(Arc::clone(&ingest), Arc::clone(&listeners)))?;

    // The mapping is one command of the language; the rest of the program is Rust.
    let mut session = Session::new(Arc::clone(&node), Caller::embedded());
    session
        .execute(
            "run msg client where broker=local and topic=(name=plant/# and dbms=plant and table=readings and \
             column.device.str=\"bring [device]\" and column.temperature.float=\"bring [t]\")",
        )
        .await?;

    let port = std::env::args().nth(1).map(|port| port.parse::<u16>()).transpose()?;
    let address = ServerAddress::bound_to(([127, 0, 0, 1], port.unwrap_or(0)).into());
    let bound = listeners.start(ServerKind::Broker, Protocol::Mqtt, address, ingest.broker()).await?;
    println!("MQTT at {bound}");

    if port.is_some() {
        tokio::signal::ctrl_c().await?;
    } else {
        for (device, temperature) in [("boiler", 81.5), ("pump", 44.25), ("pump", 44.5)] {
            let message = format!(r#"{{"device": "{device}", "t": {temperature}}}"#);
            session
                .execute(&format!(
                    "mqtt publish where broker=local and topic=plant/{device} and qos=1 and message={message}"
                ))
                .await?;
        }
    }
    listeners.stop_all().await;

    let dbms = database.dbms();
    for partition in dbms.partitions("readings")? {
        let target = Target::partition("readings", partition);
        let sql = format!("select device, temperature from {}", target.physical());
        dbms.query(Some(&target), &sql, &mut |_, row| {
            println!("{}: {row:?}", target.physical());
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}
