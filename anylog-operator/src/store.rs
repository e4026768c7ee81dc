//! The road of a message: converted, placed, written to the journal, applied, acknowledged.

mod opening;
mod room;
mod shared;
mod shipment;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anylog_core::time::stored;
use anylog_dbms::SegmentId;
use anylog_ingest::sink::{Issuer, TableRows};
use anylog_ingest::{
    Delivery, FileReceipt, MessageRows, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SourceFile, Unmapped,
};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(crate) use opening::placeholder;
pub(crate) use room::{DISK_FLOOR, FAILING_PERIOD, JOURNAL_LIMIT, MEMORY_LIMIT, PATIENCE, ROW_BYTES};
pub(crate) use shared::{Settings, Shared};
pub(crate) use shipment::Shipment;

use crate::OperatorError;
use crate::journal::record::Entries;
use crate::order::Turn;
use crate::origin::Origin;
use crate::quarantine::{KeptMessage, Problem, QuarantinedRow, key};
use crate::segments::Key;
use room::failing;
use shipment::{Answer, Part};

/// The rows of a message, ready to be sent, and those that do not fit.
pub(crate) struct Prepared {
    pub(crate) parts: Vec<Part>,
    pub(crate) refused: Vec<RefusedRow>,
    pub(crate) aside: Vec<QuarantinedRow>,
}

impl Prepared {
    /// How many rows are ready.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.fitted.runs).map(|run| run.rows.len()).sum()
    }
}

/// The message that a row was mapped from.
fn kept(messages: &[MessageRows], part: usize, row: usize) -> Option<KeptMessage> {
    // Rows of one long list must not each carry the whole of it.
    const CARRIED: usize = 64 * 1024;
    let bearable = |known: &MessageRows| known.count == 1 || known.count * known.message.payload.len() <= CARRIED;
    let holds = |known: &MessageRows| known.part == part && (known.first..known.first + known.count).contains(&row);
    let known = messages.iter().find(|known| holds(known)).filter(|known| bearable(known))?;
    Some(KeptMessage::of(&known.message, Some(row - known.first)))
}

/// The store of a running operator.
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    issuer: Issuer,
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>, issuer: Issuer) -> Arc<Self> {
        Arc::new(Self { shared, issuer })
    }

    pub(crate) async fn prepare(&self, group: RowGroup, received: Timestamp) -> Result<Prepared, SinkError> {
        let mut parts = Vec::with_capacity(group.parts.len());
        let (mut refused, mut aside) = (Vec::new(), Vec::new());
        let message = SegmentId(rand::random());
        for (index, part) in group.parts.into_iter().enumerate().filter(|(_, part)| !part.rows.is_empty()) {
            let TableRows { dbms, table, source, instructions, declared, rows, starts } = part;
            let origin = Arc::new(Origin::of_several(&group.origin, starts));
            let fitted = self.shared.fit(&dbms, &table, rows, &declared, received).await?;
            for (position, problem, text) in &fitted.refused {
                let key = key(message, aside.len() as u64 + 1);
                let record = QuarantinedRow::of_row(key, stored(received), (&dbms, &table), problem, text.clone());
                let record = record.mapped(&source, &instructions);
                let mut record = record.from(origin.text(), origin.position(*position));
                record.message = kept(&group.messages, index, *position);
                aside.push(record);
                self.shared.stats.error(false, received, &dbms, &table, 27, &problem.reason);
                refused.push(problem.clone().of_row(index, *position));
            }
            parts.push(Part {
                index,
                key: Key { dbms, table, source, instructions },
                origin,
                fitted,
                behind: group.behind.clone(),
            });
        }
        Ok(Prepared { parts, refused, aside })
    }

    /// Lets a message in when there is room for it. Before anything is waited for, it takes its turn: the order of the calls is the
    /// order of the rows.
    pub(crate) async fn admit(
        &self,
        group: &RowGroup,
        bytes: usize,
    ) -> Result<(Turn<'_>, OwnedSemaphorePermit), SinkError> {
        let filled = group.parts.iter().filter(|part| !part.rows.is_empty());
        let turn = self.shared.order.turn(filled.map(|part| (part.dbms.as_str(), part.table.as_str())));
        self.shared.room().await?;
        self.shared.databases_work(group.parts.iter().map(|part| part.dbms.as_str())).await?;
        if self.shared.thresholds.any_replicated() {
            self.shared.members_are_reached(group).await?;
        }
        turn.comes_to_memory().await;
        let wanted = u32::try_from(bytes.min(MEMORY_LIMIT)).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.shared.memory).acquire_many_owned(wanted).await.map_err(|_| SinkError::NotRunning)?;
        turn.holds_memory();
        Ok((turn, permit))
    }

    /// Sends rows, waits until they are settled and counts them. Returns those that the engine refused.
    pub(crate) async fn ship(
        &self,
        turn: Turn<'_>,
        shipment: Shipment,
        patient: bool,
    ) -> Result<Vec<RefusedRow>, SinkError> {
        let received = shipment.received;
        let counts: Vec<(String, String, u64)> = shipment
            .parts
            .iter()
            .map(|part| {
                let rows = part.fitted.runs.iter().map(|run| run.rows.len() as u64).sum();
                (part.key.dbms.clone(), part.key.table.clone(), rows)
            })
            .collect();
        let databases: BTreeSet<String> = counts.iter().map(|(dbms, _, _)| dbms.clone()).collect();
        let (receiver, followed) = self.shared.send(turn, shipment).await?;
        let late = self.wait(receiver, &databases, patient).await?;
        if !followed.is_empty() {
            self.shared.members_have(followed, patient).await?;
        }
        for (dbms, table, rows) in counts {
            let immediate = self.shared.thresholds.read().of(&dbms, &table).immediate;
            self.shared.stats.table(&dbms, &table, |stats| {
                stats.calls += 1;
                stats.rows += rows;
                stats.first_insert.get_or_insert(received);
                stats.last_insert = Some(received);
                if immediate {
                    stats.immediate_rows += rows;
                    stats.immediate_inserts += 1;
                    stats.stored += rows;
                }
            });
        }
        Ok(late)
    }

    /// The receipt of a message of which no row goes into the journal; that it came does, when it may come again.
    async fn without_rows(&self, deliveries: Vec<Delivery>, refused: Vec<RefusedRow>) -> Result<Receipt, SinkError> {
        if !deliveries.is_empty() {
            self.shared.room().await?;
            self.shared.deliveries.note(&self.shared.journal, deliveries).await.map_err(OperatorError::from)?;
        }
        Ok(Receipt::issue(&self.issuer, 0, refused))
    }

    async fn wait(
        &self,
        mut receiver: oneshot::Receiver<Answer>,
        databases: &BTreeSet<String>,
        patient: bool,
    ) -> Result<Vec<RefusedRow>, SinkError> {
        loop {
            match tokio::time::timeout(PATIENCE, &mut receiver).await {
                Ok(Ok(result)) => return Ok(result?),
                Ok(Err(_)) => return Err(SinkError::NotRunning),
                // The rows are in the journal and will be applied. Who would send them again, and so have them twice, waits.
                Err(_) if patient => {}
                // Who cannot wait learns that this takes longer.
                Err(_) => {
                    if let Some(error) = databases.iter().find_map(|dbms| self.shared.stats.failing(dbms)) {
                        return Err(failing(&error));
                    }
                }
            }
        }
    }
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, mut group: RowGroup) -> Result<Receipt, SinkError> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(SinkError::NotRunning);
        }
        let bytes: usize = group.parts.iter().flat_map(|part| &part.rows).map(|row| row.len() + ROW_BYTES).sum();
        if bytes == 0 {
            return self.without_rows(group.deliveries, Vec::new()).await;
        }
        let text: usize = group.parts.iter().flat_map(|part| &part.rows).map(|row| row.len() + 64).sum();
        if text > crate::journal::record::MAX_BODY_BYTES / 2 {
            return Err(SinkError::Failed {
                reason: format!("a message of {text} bytes is larger than the journal takes"),
            });
        }
        let (turn, permit) = self.admit(&group, bytes).await?;
        let received = self.shared.now();
        let (patient, deliveries) = (group.patient, std::mem::take(&mut group.deliveries));
        let prepared = self.prepare(group, received).await?;
        let (rows, mut refused) = (prepared.rows(), prepared.refused);
        self.shared.put_aside(prepared.aside).await?;
        if rows == 0 {
            return self.without_rows(deliveries, refused).await;
        }
        let shipment = Shipment { parts: prepared.parts, received, deliveries, entries: Entries::default(), permit };
        let late = self.ship(turn, shipment, patient).await?;
        let stored = rows - late.len().min(rows);
        refused.extend(late);
        refused.sort_by_key(|row| (row.part, row.row));
        Ok(Receipt::issue(&self.issuer, stored, refused))
    }

    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(SinkError::NotRunning);
        }
        let now = self.shared.now();
        let Unmapped { message, origin, position, kind, column, reason } = unmapped;
        let problem = Problem { kind, column, reason, ..Problem::default() };
        self.shared.stats.error(false, now, "", "", 158, &problem.reason);
        let mut record = QuarantinedRow::default().because(&problem).from(&origin, position);
        record.key = key(SegmentId(rand::random()), 1);
        record.time = stored(now);
        record.message = Some(KeptMessage::of(&message, None));
        self.shared.put_aside(vec![record]).await?;
        Ok(Receipt::issue(&self.issuer, 0, vec![problem.of_row(0, position)]))
    }

    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        let stored = crate::incoming::put(&self.shared, file).await?;
        Ok(FileReceipt { hash: stored.hash, receipt: Receipt::issue(&self.issuer, stored.rows, stored.refused) })
    }

    fn holds(&self, delivery: &Delivery) -> bool {
        self.shared.deliveries.contains(delivery)
    }

    async fn confirm(&self, deliveries: &[Delivery]) -> Result<(), SinkError> {
        for promised in self.shared.deliveries.promises(deliveries) {
            self.shared.is_kept(promised).await?;
        }
        Ok(())
    }

    fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.all()
    }

    async fn release(&self, deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        let released = self.shared.deliveries.release(&self.shared.journal, deliveries).await;
        released.map_err(|error| OperatorError::from(error).into())
    }

    async fn forget(&self, client: &str) -> Result<(), SinkError> {
        let forgotten = self.shared.deliveries.forget(&self.shared.journal, client).await;
        forgotten.map_err(|error| OperatorError::from(error).into())
    }
}
