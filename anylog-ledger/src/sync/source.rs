//! Where the ledger comes from: the seam to a master, and to whatever else a third party may put there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_net::{
    FOLLOW_SILENCE, LedgerBasis, LedgerDifference, LedgerQuestion, PeerError, PeerReply, PeerRequest, Peers,
    StreamDeadlines,
};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::edition::{Edition, apply};
use super::merge::{Incoming, Outgoing};
use crate::ledger::{PushHow, Pushed, blocking, dropping, replacement};
use crate::snapshot::Deletion;
use crate::{Ledger, LedgerError, Policy};

/// How long a source may take to answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a master answers to a policy that is sent again and was deleted meanwhile.
pub(crate) const DELETED: &str = "deleted";

/// What a source answered.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The source's ledger now.
    pub edition: Edition,
    /// What was deleted there, as far as it matters since the edition that was known.
    pub deleted: Vec<Deletion>,
    /// The ids of what changed since the edition that was known; none when it may be all.
    pub touched: Option<Vec<String>>,
}

/// What became of something that a source was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The source's ledger shows it now.
    Taken,
    /// The policy was deleted there after it was written here.
    Deleted,
}

/// Versions of a source's ledger, as they come to be; also the present one from time to time.
pub type Versions = BoxStream<'static, Result<String, LedgerError>>;

/// A holder of the ledger that all nodes follow.
#[async_trait]
pub trait LedgerSource: Send + Sync + std::fmt::Debug {
    /// `master`, `dbms`, or the name of a platform.
    fn kind(&self) -> &'static str;

    /// Where it is, for people and to tell one ledger from another: `10.0.0.1:32048`.
    fn connection(&self) -> String;

    /// Gives the ledger, to one who knows this edition of it.
    async fn fetch(&self, known: &Edition) -> Result<Fetched, LedgerError>;

    /// Tells the source what it does not know yet.
    async fn deliver(&self, outgoing: &Outgoing) -> Result<Delivered, LedgerError>;

    /// Tells of changes. A source that cannot never says anything, and is asked from time to time.
    async fn follow(&self) -> Result<Versions, LedgerError> {
        Ok(stream::pending().boxed())
    }
}

/// A master node.
#[derive(Debug)]
pub struct MasterSource {
    peers: Arc<dyn Peers>,
    address: String,
}

impl MasterSource {
    /// The master whose TCP server is at `address`.
    pub fn new(peers: Arc<dyn Peers>, address: impl Into<String>) -> Self {
        Self { peers, address: address.into() }
    }

    async fn command(&self, text: String) -> Result<String, LedgerError> {
        match self.peers.call(&self.address, PeerRequest::Command { text }, DEADLINE).await {
            Ok(PeerReply::Text(text)) => Ok(text),
            Ok(_) => Err(self.strange()),
            Err(PeerError::Refused { error, .. }) => Err(LedgerError::Refused { master: self.address.clone(), error }),
            Err(error) => Err(self.silent(&error)),
        }
    }

    async fn changes(&self, question: LedgerQuestion) -> Result<LedgerDifference, LedgerError> {
        match self.peers.call(&self.address, PeerRequest::LedgerChanges(question), DEADLINE).await {
            Ok(PeerReply::LedgerChanges(difference)) => Ok(difference),
            Ok(_) => Err(self.strange()),
            Err(error) => Err(self.silent(&error)),
        }
    }

    fn strange(&self) -> LedgerError {
        let reason = "it answered with something else than its ledger".to_owned();
        LedgerError::NoVerdict { master: self.address.clone(), reason }
    }

    fn silent(&self, error: &PeerError) -> LedgerError {
        LedgerError::NoVerdict { master: self.address.clone(), reason: error.to_string() }
    }
}

#[async_trait]
impl LedgerSource for MasterSource {
    fn kind(&self) -> &'static str {
        "master"
    }

    fn connection(&self) -> String {
        self.address.clone()
    }

    async fn fetch(&self, known: &Edition) -> Result<Fetched, LedgerError> {
        let mut question = LedgerQuestion { known_version: known.version.clone(), ..LedgerQuestion::default() };
        let mut difference = self.changes(question.clone()).await?;
        if difference.basis == LedgerBasis::Unknown {
            question.digests = known.digests();
            difference = self.changes(question.clone()).await?;
        }
        let mut edition = apply(known, &difference, question.digests.len());
        if edition.is_none() {
            tracing::warn!(master = %self.address, "A difference did not lead to the master's ledger, which is fetched whole");
            difference = self.changes(LedgerQuestion { whole: true, ..LedgerQuestion::default() }).await?;
            edition = apply(&Edition::default(), &difference, 0);
        }
        let (edition, touched) = edition.ok_or_else(|| self.strange())?;
        let deleted = difference.deleted.into_iter().filter(|(_, date)| !date.is_empty());
        let deleted = deleted.map(|(id, date)| Deletion { id, date }).collect();
        Ok(Fetched { edition, deleted, touched })
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<Delivered, LedgerError> {
        let text = |policy: &Policy| policy.marked("global").to_json_text();
        let push = |policy: &Policy| format!("blockchain push ignore {}", text(policy));
        let pushed = |answer: String| if answer == DELETED { Delivered::Deleted } else { Delivered::Taken };
        match outgoing {
            Outgoing::Push(policy) => self.command(push(policy)).await.map(pushed),
            Outgoing::Replace(policy) => match self.command(replacement(policy)).await {
                Err(LedgerError::Refused { error, .. }) if error.status == anylog_core::Status::NO_POLICY => {
                    self.command(push(policy)).await.map(pushed)
                }
                result => result.map(|_| Delivered::Taken),
            },
            Outgoing::Drop(id) => match self.command(dropping(id)).await {
                Err(LedgerError::Refused { error, .. }) if error.status == anylog_core::Status::NO_POLICY => {
                    Ok(Delivered::Taken)
                }
                result => result.map(|_| Delivered::Taken),
            },
        }
    }

    async fn follow(&self) -> Result<Versions, LedgerError> {
        let deadlines = StreamDeadlines { first: DEADLINE, next: FOLLOW_SILENCE };
        let pieces = self.peers.stream(&self.address, PeerRequest::FollowLedger, deadlines).await;
        let pieces = pieces.map_err(|error| self.silent(&error))?;
        let master = self.address.clone();
        let versions = pieces.map(move |piece| match piece {
            Ok(version) => Ok(String::from_utf8_lossy(&version).into_owned()),
            Err(error) => Err(LedgerError::NoVerdict { master: master.clone(), reason: error.to_string() }),
        });
        Ok(versions.boxed())
    }
}

/// The lines of a master's answer: policies, then deletions. A line that is neither is left out with a warning.
pub(crate) fn read_lines(lines: &[String]) -> Incoming {
    let mut incoming = Incoming::default();
    let mut policies = Vec::with_capacity(lines.len());
    for line in lines {
        match Policy::from_json_text(line) {
            Ok(policy) if policy.kind() == "deleted" => incoming.deleted.push(Deletion {
                id: policy.id().to_owned(),
                date: policy.text("date").unwrap_or_default().to_owned(),
            }),
            Ok(policy) if !policy.id().is_empty() => policies.push(Arc::new(policy)),
            Ok(_) => tracing::warn!("The master sent a policy without id"),
            Err(error) => tracing::warn!(%error, "The master sent what is no policy"),
        }
    }
    incoming.policies = policies.into_iter().collect();
    incoming
}

/// This node's own ledger database: `source = dbms`.
#[derive(Debug)]
pub struct DbmsSource {
    ledger: Weak<Ledger>,
}

impl DbmsSource {
    /// The database of this ledger's node.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::downgrade(ledger) }
    }

    fn ledger(&self) -> Result<Arc<Ledger>, LedgerError> {
        self.ledger.upgrade().ok_or(LedgerError::SyncNotRunning)
    }
}

#[async_trait]
impl LedgerSource for DbmsSource {
    fn kind(&self) -> &'static str {
        "dbms"
    }

    fn connection(&self) -> String {
        "local dbms".to_owned()
    }

    async fn fetch(&self, known: &Edition) -> Result<Fetched, LedgerError> {
        let (ledger, known) = (self.ledger()?, known.version.clone());
        blocking(move || ledger.changes_of_table(&known)).await
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<Delivered, LedgerError> {
        let (ledger, outgoing) = (self.ledger()?, outgoing.clone());
        let pushed = |pushed: Pushed| match pushed {
            Pushed::Deleted => Delivered::Deleted,
            Pushed::Added(_) | Pushed::Known(_) => Delivered::Taken,
        };
        blocking(move || {
            let host = ledger.node().address();
            match &outgoing {
                Outgoing::Push(policy) => ledger.push(policy, &host, PushHow::Again).map(pushed),
                Outgoing::Replace(policy) => match ledger.replace_at_master(policy, &host) {
                    Err(LedgerError::NotFound { .. }) => ledger.push(policy, &host, PushHow::Again).map(pushed),
                    result => result.map(|_| Delivered::Taken),
                },
                Outgoing::Drop(id) => match ledger.drop_at_master(std::slice::from_ref(id)) {
                    Err(LedgerError::NotFound { .. }) => Ok(Delivered::Taken),
                    result => result.map(|()| Delivered::Taken),
                },
            }
        })
        .await
    }
}
