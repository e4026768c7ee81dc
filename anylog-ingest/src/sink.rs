//! Where rows go: the seam between ingestion and storage.
//!
//! Every road into a node - its own broker, a client of another broker, REST - ends at [`RowSink::append`]. What comes back is
//! a [`Receipt`], and an acknowledgement to the sender (PUBACK, PUBREC, 200) needs one. Only a store can make a receipt: the
//! [`Issuer`] that it takes is handed out in one place, when the store is mounted ([`SinkSlot::mount`]).

mod error;
mod group;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;

pub use error::SinkError;
pub use group::{Behind, Delivery, Message, MessageRows, RefusedRow, RowGroup, SourceFile, TableRows, Unmapped};

/// How often a store that cannot say yet where the rows of stored packets are is asked again.
const CONFIRM_PERIOD: Duration = Duration::from_secs(1);

/// Maps messages as their topics are mapped now.
pub trait Remap: Send + Sync {
    /// The rows of a message that was set aside.
    ///
    /// # Errors
    /// Why it still gives none.
    fn remap(&self, message: &Message) -> Result<RowGroup, Unmapped>;
}

/// The right to make receipts. A store gets it when it is mounted.
#[derive(Debug, Clone)]
pub struct Issuer(());

/// Proof that rows are on stable storage. An acknowledgement needs one, and only a store can make one.
#[derive(Debug)]
#[must_use = "a receipt allows an acknowledgement to the sender"]
pub struct Receipt {
    stored: usize,
    refused: Vec<RefusedRow>,
}

impl Receipt {
    /// A receipt for rows that are on stable storage now.
    pub fn issue(_: &Issuer, stored: usize, refused: Vec<RefusedRow>) -> Self {
        Self { stored, refused }
    }

    /// One receipt for the rows of two. Parts and rows of the refused ones are counted as in their own groups.
    pub fn and(mut self, other: Receipt) -> Self {
        self.stored += other.stored;
        self.refused.extend(other.refused);
        self.refused.sort_by_key(|row| row.row);
        self
    }

    /// The same with refused rows numbered as their sender counts: `number` gets part and row of each.
    pub(crate) fn numbered(mut self, number: impl Fn(usize, usize) -> usize) -> Self {
        self.refused.iter_mut().for_each(|row| row.row = number(row.part, row.row));
        self
    }

    /// How many rows were stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// The rows that went to the quarantine.
    #[must_use]
    pub fn refused(&self) -> &[RefusedRow] {
        &self.refused
    }
}

/// Proof that a file is on stable storage and registered.
#[derive(Debug)]
pub struct FileReceipt {
    /// MD5 of `dbms.table` and the file's bytes, as registered in `tsd_info`.
    pub hash: String,
    /// The rows.
    pub receipt: Receipt,
}

/// A store of rows.
#[async_trait]
pub trait RowSink: Send + Sync {
    /// Stores the rows of one message. Returns when they are on stable storage; in immediate mode, when they can be
    /// queried as well.
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError>;

    /// Puts a message aside that gives no rows, so that it can be acknowledged: nobody will send a better one. Returns when it is
    /// on stable storage.
    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError>;

    /// Stores a file. Returns when it is on stable storage and registered by its hash.
    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError>;

    /// Whether a QoS 2 packet was stored, by this run or one before, and not released. A store that keeps no deliveries knows
    /// none: then exactly once ends with the process.
    fn holds(&self, _delivery: &Delivery) -> bool {
        false
    }

    /// Returns when the rows of packets that it holds are wherever an acknowledgement says that they are: on other members of the
    /// cluster they may not be yet. Packets that it does not hold need nothing.
    ///
    /// # Errors
    /// Those of [`Self::append`]; the same may be asked again.
    async fn confirm(&self, _deliveries: &[Delivery]) -> Result<(), SinkError> {
        Ok(())
    }

    /// All QoS 2 packets that were stored and not released, by client and packet id.
    fn deliveries(&self) -> Vec<Delivery> {
        Vec::new()
    }

    /// The client released these packets: their ids mean other messages from now on. Returns when that is on stable storage.
    async fn release(&self, _deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        Ok(())
    }

    /// The session of a client ended, and its packet ids with it. Returns when that is on stable storage.
    async fn forget(&self, _client: &str) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The place where a node's store is mounted. Sources hold the slot and see a store come and go.
#[derive(Default)]
pub struct SinkSlot {
    sink: RwLock<Option<Arc<dyn RowSink>>>,
    mapping: RwLock<Option<Weak<dyn Remap>>>,
    changed: tokio::sync::Notify,
}

impl SinkSlot {
    /// A slot without a store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Mounts a store; `build` gets the right to make receipts.
    pub fn mount<S: RowSink + 'static>(&self, build: impl FnOnce(Issuer) -> Arc<S>) -> Arc<S> {
        let sink = build(Issuer(()));
        *self.sink.write() = Some(Arc::clone(&sink) as Arc<dyn RowSink>);
        self.changed.notify_waiters();
        sink
    }

    /// Takes the store away; rows are refused with [`SinkError::NotRunning`] from now on.
    pub fn unmount(&self) {
        *self.sink.write() = None;
        self.changed.notify_waiters();
    }

    /// The store, when one is mounted.
    #[must_use]
    pub fn get(&self) -> Option<Arc<dyn RowSink>> {
        self.sink.read().clone()
    }

    /// Waits until a store is mounted.
    pub async fn mounted(&self) -> Arc<dyn RowSink> {
        loop {
            let changed = self.changed.notified();
            if let Some(sink) = self.get() {
                return sink;
            }
            changed.await;
        }
    }

    /// Which of these QoS 2 packets are not to be stored, because the store holds them. Returns when there is a store, and when those
    /// that it holds may be acknowledged.
    pub async fn held(&self, deliveries: &[Delivery]) -> Vec<bool> {
        loop {
            let sink = self.mounted().await;
            let held: Vec<bool> = deliveries.iter().map(|delivery| sink.holds(delivery)).collect();
            let known = deliveries.iter().zip(&held).filter(|(_, held)| **held);
            let known: Vec<Delivery> = known.map(|(delivery, _)| delivery.clone()).collect();
            if known.is_empty() {
                return held;
            }
            match sink.confirm(&known).await {
                Ok(()) => return held,
                Err(error) => {
                    tracing::warn!(%error, "Stored packets that came again are not acknowledged yet");
                    tokio::time::sleep(CONFIRM_PERIOD).await;
                }
            }
        }
    }

    /// Says who maps messages, for a store that tries them again.
    pub fn set_mapping(&self, mapping: Weak<dyn Remap>) {
        *self.mapping.write() = Some(mapping);
    }

    /// Who maps messages.
    #[must_use]
    pub fn mapping(&self) -> Option<Arc<dyn Remap>> {
        self.mapping.read().as_ref()?.upgrade()
    }

    /// Puts a message aside, or says that no store is mounted.
    pub async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        match self.get() {
            Some(sink) => sink.set_aside(unmapped).await,
            None => Err(SinkError::NotRunning),
        }
    }

    /// Stores rows, or says that no store is mounted.
    pub async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        match self.get() {
            Some(sink) => sink.append(group).await,
            None => Err(SinkError::NotRunning),
        }
    }

    /// Stores a file, or says that no store is mounted.
    pub async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        match self.get() {
            Some(sink) => sink.store_file(file).await,
            None => Err(SinkError::NotRunning),
        }
    }
}

impl std::fmt::Debug for SinkSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkSlot").field("mounted", &self.get().is_some()).finish()
    }
}
