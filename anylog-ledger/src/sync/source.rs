//! Where the ledger comes from: the seam to a master, and to whatever else a third party may put there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_net::{PeerError, PeerReply, PeerRequest, Peers};
use async_trait::async_trait;

use super::merge::{Incoming, Outgoing};
use crate::ledger::{blocking, dropping, replacement};
use crate::snapshot::Deletion;
use crate::{Ledger, LedgerError, Policy};

/// How long a source may take to answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a source answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// The version of the source's ledger now.
    pub version: String,
    /// The ledger; none when the version is the one that was known.
    pub incoming: Option<Incoming>,
}

/// A holder of the ledger that all nodes follow.
#[async_trait]
pub trait LedgerSource: Send + Sync + std::fmt::Debug {
    /// `master`, `dbms`, or the name of a platform.
    fn kind(&self) -> &'static str;

    /// Where it is, for people and to tell one ledger from another: `10.0.0.1:32048`.
    fn connection(&self) -> String;

    /// Gives the ledger, unless it still has this version; an empty text is no version.
    async fn fetch(&self, known_version: &str) -> Result<Fetched, LedgerError>;

    /// Tells the source what it does not know yet.
    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), LedgerError>;
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

    async fn command(&self, text: String) -> Result<(), LedgerError> {
        match self.peers.call(&self.address, PeerRequest::Command { text }, DEADLINE).await {
            Ok(_) => Ok(()),
            Err(PeerError::Refused { error, .. }) => Err(LedgerError::Refused { master: self.address.clone(), error }),
            Err(error) => Err(self.silent(&error)),
        }
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

    async fn fetch(&self, known_version: &str) -> Result<Fetched, LedgerError> {
        let request = PeerRequest::Ledger { known_version: known_version.to_owned() };
        match self.peers.call(&self.address, request, DEADLINE).await {
            Ok(PeerReply::Ledger { version, policies }) => {
                Ok(Fetched { version, incoming: policies.map(|lines| read_lines(&lines)) })
            }
            Ok(_) => Err(LedgerError::NoVerdict {
                master: self.address.clone(),
                reason: "it answered with something else than its ledger".to_owned(),
            }),
            Err(error) => Err(self.silent(&error)),
        }
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), LedgerError> {
        let text = |policy: &Policy| policy.marked("global").to_json_text();
        let push = |policy: &Policy| format!("blockchain push ignore {}", text(policy));
        match outgoing {
            Outgoing::Push(policy) => self.command(push(policy)).await,
            Outgoing::Replace(policy) => match self.command(replacement(policy)).await {
                Err(LedgerError::Refused { error, .. }) if error.status == anylog_core::Status::NO_POLICY => {
                    self.command(push(policy)).await
                }
                result => result,
            },
            Outgoing::Drop(id) => match self.command(dropping(id)).await {
                Err(LedgerError::Refused { error, .. }) if error.status == anylog_core::Status::NO_POLICY => Ok(()),
                result => result,
            },
        }
    }
}

/// The lines of a master's answer: policies, then deletions. A line that is neither is left out with a warning.
pub(crate) fn read_lines(lines: &[String]) -> Incoming {
    let mut incoming = Incoming::default();
    for line in lines {
        match Policy::from_json_text(line) {
            Ok(policy) if policy.kind() == "deleted" => incoming.deleted.push(Deletion {
                id: policy.id().to_owned(),
                date: policy.text("date").unwrap_or_default().to_owned(),
            }),
            Ok(policy) if !policy.id().is_empty() => incoming.policies.push(policy),
            Ok(_) => tracing::warn!("The master sent a policy without id"),
            Err(error) => tracing::warn!(%error, "The master sent what is no policy"),
        }
    }
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

    async fn fetch(&self, known_version: &str) -> Result<Fetched, LedgerError> {
        let (ledger, known) = (self.ledger()?, known_version.to_owned());
        blocking(move || {
            let (policies, deleted) = ledger.incoming_from_table()?;
            let version = crate::store::master::MasterTable::version(&policies);
            let incoming = (version != known).then_some(Incoming { policies, deleted });
            Ok(Fetched { version, incoming })
        })
        .await
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), LedgerError> {
        let (ledger, outgoing) = (self.ledger()?, outgoing.clone());
        blocking(move || {
            let host = ledger.node().address();
            match &outgoing {
                Outgoing::Push(policy) => ledger.push(policy, &host, true).map(|_| ()),
                Outgoing::Replace(policy) => match ledger.replace_at_master(policy, &host) {
                    Err(LedgerError::NotFound { .. }) => ledger.push(policy, &host, true).map(|_| ()),
                    result => result.map(|_| ()),
                },
                Outgoing::Drop(id) => match ledger.drop_at_master(std::slice::from_ref(id)) {
                    Err(LedgerError::NotFound { .. }) => Ok(()),
                    result => result,
                },
            }
        })
        .await
    }
}
