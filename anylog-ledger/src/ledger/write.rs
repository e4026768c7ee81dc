//! Writing policies: to the local copy, and to masters whose verdict is waited for.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::Status;
use anylog_core::time::policy_date;
use anylog_net::{PeerError, PeerReply, PeerRequest};
use tokio::time::Instant;

use super::Ledger;
use crate::snapshot::Deletion;
use crate::validate::{Members, validate};
use crate::{LedgerError, Policy};

/// How long a master may take for its verdict.
pub const VERDICT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a master that took too long is not asked again for policies that are kept locally, so that many of them do not wait one
/// after the other.
const SILENCE: Duration = Duration::from_secs(30);
/// A master that is gone says so at once; one that took this long is silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a policy is written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destinations {
    /// The local copy of this node.
    pub local: bool,
    /// Masters as `host:port` of their TCP servers.
    pub masters: Vec<String>,
}

impl Destinations {
    /// The local copy only.
    #[must_use]
    pub fn local() -> Self {
        Self { local: true, masters: Vec::new() }
    }

    /// The local copy and one master.
    pub fn with_master(master: impl Into<String>) -> Self {
        Self { local: true, masters: vec![master.into()] }
    }
}

/// A policy that was written, and what a person should know about it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The policy as it is now.
    pub policy: Arc<Policy>,
    /// Sentences such as that a master was not reachable and will be told later.
    pub warnings: Vec<String>,
}

impl Ledger {
    /// Writes a policy: adds id and date, validates it, asks each master for its verdict, appends it to the local copy.
    ///
    /// A policy that a master accepted is in its database (LED-1). A master that does not answer leaves the policy local, to be sent again by
    /// the synchroniser; without a local destination that is an error.
    ///
    /// # Errors
    /// What the validation found here or at a master; nothing is written then. [`LedgerError::DuplicateId`] also when only the
    /// master has the policy already.
    pub async fn insert(&self, policy: Policy, to: &Destinations) -> Result<Arc<Policy>, LedgerError> {
        Ok(self.write(policy, to).await?.policy)
    }

    /// As [`Ledger::insert`], with the warnings.
    ///
    /// # Errors
    /// Those of [`Ledger::insert`].
    pub async fn write(&self, policy: Policy, to: &Destinations) -> Result<Written, LedgerError> {
        if !to.local && to.masters.is_empty() {
            return Err(LedgerError::NoDestination);
        }
        let _gate = self.gate.lock().await;
        let snapshot = self.snapshot();
        let policy = policy.without("ledger").prepare(self.node.clock.as_ref());
        let policy = validate(&policy, snapshot.policies(), &Members::random())?;
        if to.local && snapshot.policy(policy.id()).is_some() {
            return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
        }
        let text = format!("blockchain push {}", policy.marked("global").to_json_text());
        let mut warnings = Vec::new();
        let mut accepted = false;
        for master in &to.masters {
            match self.ask_master(master, &text, to.local).await {
                Ok(_) => accepted |= self.follows(master),
                Err(LedgerError::Refused { error, .. }) if error.status == Status::DUPLICATE_OBJECT_ID => {
                    self.wake_sync();
                    return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
                }
                // The master will know the cluster once the synchroniser has sent it.
                Err(LedgerError::Refused { error, .. })
                    if error.status == Status::NO_CLUSTER_POLICY && to.local && self.cluster_is_local(&policy) =>
                {
                    warnings.push(format!("the master {master} does not know the operator's cluster yet"));
                }
                Err(error @ LedgerError::NoVerdict { .. }) if to.local => warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let policy = if to.local { self.append(policy, accepted).await? } else { Arc::new(policy.marked("global")) };
        self.wake_sync();
        self.warn(&warnings);
        Ok(Written { policy, warnings })
    }

    /// Whether the synchroniser has merged the ledger of this master.
    fn follows(&self, master: &str) -> bool {
        self.sync_state().is_some_and(|state| state.source.connection() == master && state.stats.succeeded > 0)
    }

    fn cluster_is_local(&self, policy: &Policy) -> bool {
        policy.text("cluster").and_then(|id| self.policy(id)).is_some_and(|cluster| cluster.is_local())
    }

    fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            tracing::warn!(%warning, "A policy was written to the local copy only");
            self.node.errors.add(self.node.clock.now(), "ledger", "Blockchain", warning.clone());
        }
    }

    /// Sends a command to a master and waits for its verdict. With `kept` the policy is safe here, and a master that was silent
    /// a short while ago is not asked.
    async fn ask_master(&self, master: &str, text: &str, kept: bool) -> Result<String, LedgerError> {
        let began = Instant::now();
        let silent = self.silent_masters.lock().get(master).is_some_and(|until| began < *until);
        if kept && silent {
            let reason = "it was silent a short while ago".to_owned();
            return Err(LedgerError::NoVerdict { master: master.to_owned(), reason });
        }
        let request = PeerRequest::Command { text: text.to_owned() };
        let answer = self.peers.call(master, request, VERDICT_DEADLINE).await;
        if matches!(&answer, Err(PeerError::TimeOut { .. } | PeerError::Unreachable { .. }))
            && began.elapsed() > PATIENCE
        {
            self.silent_masters.lock().insert(master.to_owned(), Instant::now() + SILENCE);
        } else {
            self.silent_masters.lock().remove(master);
        }
        match answer {
            Ok(PeerReply::Text(text)) => Ok(text),
            Ok(_) => Ok(String::new()),
            Err(PeerError::Refused { error, .. }) if is_verdict(error.status) => {
                Err(LedgerError::Refused { master: master.to_owned(), error })
            }
            Err(error) => Err(LedgerError::NoVerdict { master: master.to_owned(), reason: error.to_string() }),
        }
    }

    /// Adds a policy to the local copy, marked `local`, without asking a master: `blockchain add`.
    ///
    /// # Errors
    /// What the validation found, or what the operating system refuses.
    pub async fn add(&self, policy: Policy) -> Result<Arc<Policy>, LedgerError> {
        self.insert(policy, &Destinations::local()).await
    }

    /// Appends a validated policy to the local copy, as `global` when the master that this node follows has accepted it. One that
    /// synchronisation brought meanwhile is taken as it is.
    async fn append(&self, policy: Policy, accepted: bool) -> Result<Arc<Policy>, LedgerError> {
        if accepted {
            self.sync.accepted(policy.id());
        }
        let policy = Arc::new(policy.marked(if accepted { "global" } else { "local" }));
        self.change(move |file, contents| {
            if let Some(known) = contents.policy(policy.id()) {
                return Ok(Arc::clone(known));
            }
            file.append(&policy)?;
            contents.deleted.retain(|note| note.id != policy.id());
            contents.place(Arc::clone(&policy));
            Ok(policy)
        })
        .await
    }

    /// Replaces the content of a policy by its id, which stays, as does its type; the date becomes now.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] for an unknown id; else as [`Ledger::insert`].
    pub async fn replace(&self, policy: Policy, to: &Destinations) -> Result<Arc<Policy>, LedgerError> {
        if !to.local && to.masters.is_empty() {
            return Err(LedgerError::NoDestination);
        }
        let _gate = self.gate.lock().await;
        let snapshot = self.snapshot();
        let policy =
            policy.prepare(self.node.clock.as_ref()).without("ledger").with("date", policy_date(self.node.clock.now()));
        let id = policy.id().to_owned();
        match snapshot.policy(&id) {
            None if to.local => return Err(LedgerError::NotFound { wanted: format!("with id {id}") }),
            Some(known) if known.kind() != policy.kind() => {
                let problem = format!("policy {id} is of type '{}', which cannot change", known.kind());
                return Err(LedgerError::Attribute { kind: policy.kind().to_owned(), problem });
            }
            _ => {}
        }
        let policy = validate(&policy, snapshot.policies(), &Members::random())?;
        let text = replacement(&policy);
        let mut warnings = Vec::new();
        for master in &to.masters {
            match self.ask_master(master, &text, to.local).await {
                Ok(_) => {}
                // A policy that the master does not have yet goes there as it is now, with the next synchronisation.
                Err(LedgerError::Refused { error, .. }) if to.local && error.status == Status::NO_POLICY => {}
                Err(error @ LedgerError::NoVerdict { .. }) if to.local => warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if !to.local {
            return Ok(Arc::new(policy.marked("global")));
        }
        let policy = Arc::new(policy.marked("local"));
        let replaced = Arc::clone(&policy);
        self.change(move |file, contents| {
            let mut new = contents.clone();
            let Some(slot) = new.policies.iter_mut().find(|known| known.id() == replaced.id()) else {
                return Err(LedgerError::NotFound { wanted: format!("with id {}", replaced.id()) });
            };
            *slot = Arc::clone(&replaced);
            if !new.replaced.iter().any(|id| id == replaced.id()) {
                new.replaced.push(replaced.id().to_owned());
            }
            file.rewrite(&new)?;
            *contents = new;
            Ok(())
        })
        .await?;
        self.wake_sync();
        self.warn(&warnings);
        Ok(policy)
    }

    /// Deletes a policy. A master that does not answer is told again by the synchroniser.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] for an id that is not in the local copy, [`LedgerError::NoVerdict`] when a master does not answer
    /// and the local copy is no destination.
    pub async fn delete(&self, id: &str, to: &Destinations) -> Result<Vec<String>, LedgerError> {
        if !to.local && to.masters.is_empty() {
            return Err(LedgerError::NoDestination);
        }
        let _gate = self.gate.lock().await;
        if to.local && self.policy(id).is_none() {
            return Err(LedgerError::NotFound { wanted: format!("with id {id}") });
        }
        let text = dropping(id);
        let mut warnings = Vec::new();
        for master in &to.masters {
            match self.ask_master(master, &text, to.local).await {
                Ok(_) => {}
                Err(LedgerError::Refused { error, .. }) if to.local && error.status == Status::NO_POLICY => {}
                Err(error @ LedgerError::NoVerdict { .. }) if to.local => warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if to.local {
            let deletion = Deletion { id: id.to_owned(), date: policy_date(self.node.clock.now()) };
            self.change(move |file, contents| {
                // Only an append: the copy stays readable at every instant, and the note removes the policy when it is read.
                file.append_deleted(&deletion)?;
                contents.policies.retain(|policy| policy.id() != deletion.id);
                contents.replaced.retain(|id| *id != deletion.id);
                contents.deleted.retain(|note| note.id != deletion.id);
                contents.deleted.push(deletion);
                Ok(())
            })
            .await?;
        }
        self.wake_sync();
        self.warn(&warnings);
        Ok(warnings)
    }
}

/// The command that brings the new content of a policy to a master. Tables are widened by the nodes that share them, so
/// theirs needs no administrator.
pub(crate) fn replacement(policy: &Policy) -> String {
    let text = policy.marked("global").to_json_text();
    if policy.kind() == "table" {
        return format!("blockchain push update {text}");
    }
    format!("blockchain replace policy {} with {text}", policy.id())
}

/// The command that deletes a policy at a master.
pub(crate) fn dropping(id: &str) -> String {
    format!("blockchain drop policy where id = \"{id}\"")
}

/// Statuses with which a master says no; all others mean that it could not look.
fn is_verdict(status: Status) -> bool {
    matches!(
        status,
        Status::COMMAND_STRUCTURE
            | Status::COMMAND_PARAMETERS
            | Status::JSON_STRUCTURE
            | Status::DUPLICATE_OBJECT_ID
            | Status::WRONG_POLICY
            | Status::NO_POLICY
            | Status::NON_UNIQUE_ADDRESS
            | Status::NON_UNIQUE_VALUES
            | Status::NON_UNIQUE_POLICY
            | Status::NO_CLUSTER_POLICY
            | Status::UNAUTHORIZED
    )
}
