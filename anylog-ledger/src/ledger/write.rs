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
use crate::{LedgerError, Policy, PolicySet};

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
    /// the synchroniser; without a local destination that is an error. Whoever inserts a policy that the ledger holds already, under the
    /// id that follows from its content, gets the one that is there.
    ///
    /// # Errors
    /// What the validation found here or at a master; nothing is written then. [`LedgerError::DuplicateId`] or
    /// [`LedgerError::OtherContent`] when another policy has the id.
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
        let policy = policy.without("ledger").prepare(self.node.clock.as_ref());
        let mut valid = match checked(&policy, self.snapshot().stored())? {
            Checked::Repeats(known) if to.masters.iter().all(|master| !known.is_local() && self.follows(master)) => {
                return Ok(Written { policy: known, warnings: Vec::new() });
            }
            Checked::Repeats(policy) | Checked::New(policy) => policy,
        };
        // A number that is drawn is drawn by the master, who knows all that are taken.
        let sent = if policy.get("member").is_none() { valid.without("member") } else { valid.as_ref().clone() };
        let text = format!("blockchain push insert {}", sent.marked("global").to_json_text());
        let mut warnings = Vec::new();
        let mut accepted = false;
        for master in &to.masters {
            match self.ask_master(master, &text, to.local).await {
                Ok(answer) => {
                    accepted |= self.follows(master);
                    if let Some(there) = policy_of(&answer, valid.id()) {
                        valid = Arc::new(there);
                    }
                }
                // The master will know the cluster once the synchroniser has sent it.
                Err(LedgerError::Refused { error, .. })
                    if error.status == Status::NO_CLUSTER_POLICY && to.local && self.cluster_is_local(&valid) =>
                {
                    warnings.push(format!("the master {master} does not know the operator's cluster yet"));
                }
                Err(error @ LedgerError::NoVerdict { .. }) if to.local => warnings.push(error.to_string()),
                Err(error) => {
                    // What stands against it is to be seen here too.
                    self.wake_sync();
                    return Err(error);
                }
            }
        }
        let policy = if to.local { self.append(valid, accepted).await? } else { Arc::new(valid.marked("global")) };
        self.wake_sync();
        self.warn(&warnings);
        Ok(Written { policy, warnings })
    }

    /// Whether what this master accepted is sure to be seen here: the synchroniser has merged its ledger before.
    fn follows(&self, master: &str) -> bool {
        self.sync_state().is_some_and(|state| {
            let own = state.source.kind() == "dbms" && self.node.address() == master;
            (own || state.source.connection() == master) && state.stats.succeeded > 0
        })
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
    /// [`LedgerError::DuplicateId`] when the id is there, what the validation found, or what the operating system refuses.
    pub async fn add(&self, policy: Policy) -> Result<Arc<Policy>, LedgerError> {
        let policy = policy.prepare(self.node.clock.as_ref());
        if self.policy(policy.id()).is_some() {
            return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
        }
        self.insert(policy, &Destinations::local()).await
    }

    /// Appends a validated policy to the local copy, as `global` when the master that this node follows has accepted it. One that
    /// synchronisation brought meanwhile is taken as it is.
    async fn append(&self, policy: Arc<Policy>, accepted: bool) -> Result<Arc<Policy>, LedgerError> {
        if accepted {
            self.sync.accepted(policy.id());
        }
        self.change(move |copy| {
            if let Some(known) = copy.contents.policy(policy.id()) {
                return if policy.repeats(known) {
                    Ok(Arc::clone(known))
                } else {
                    Err(LedgerError::other_content(&policy, known))
                };
            }
            let mark = if accepted { "global" } else { "local" };
            // Others may have been written here since it was validated. The master's verdict counts more.
            let valid = if accepted { policy.as_ref().clone() } else { valid(&policy, &copy.contents.policies)? };
            let policy = Arc::new(valid.marked(mark));
            copy.add(Arc::clone(&policy))?;
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
        let policy = validate(&policy, snapshot.stored(), &Members::random())?;
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
        self.change(move |copy| {
            let mut new = copy.contents.clone();
            if new.policies.insert(Arc::clone(&replaced)).is_none() {
                return Err(LedgerError::NotFound { wanted: format!("with id {}", replaced.id()) });
            }
            if !new.replaced.iter().any(|id| id == replaced.id()) {
                new.replaced.push(replaced.id().to_owned());
            }
            copy.rewrite(new)
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
            self.change(move |copy| copy.delete(deletion)).await?;
        }
        self.wake_sync();
        self.warn(&warnings);
        Ok(warnings)
    }
}

/// What the validation says to a policy.
enum Checked {
    /// It may be written.
    New(Arc<Policy>),
    /// It is there, as this.
    Repeats(Arc<Policy>),
}

/// Validates a prepared policy against those that are known.
fn checked(policy: &Policy, policies: &PolicySet) -> Result<Checked, LedgerError> {
    let known = policies.get(policy.id());
    // Only an id that follows from the content says that the same was meant.
    if known.is_some() && policy.computed_id() != policy.id() {
        return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
    }
    let valid = valid(policy, policies)?;
    match known {
        None => Ok(Checked::New(Arc::new(valid))),
        Some(known) if valid.repeats(known) => Ok(Checked::Repeats(Arc::clone(known))),
        Some(known) => Err(LedgerError::other_content(&valid, known)),
    }
}

fn valid(policy: &Policy, policies: &PolicySet) -> Result<Policy, LedgerError> {
    validate(policy, policies, &Members::random())
}

/// The policy that a master answers with: how the ledger holds what it was sent.
fn policy_of(answer: &str, id: &str) -> Option<Policy> {
    Policy::from_json_text(answer).ok().filter(|policy| policy.id() == id)
}

/// The command that brings the new content of a policy to a master. Tables are widened by the nodes that share them, and operators
/// say where they are, so that needs no administrator.
pub(crate) fn replacement(policy: &Policy) -> String {
    let text = policy.marked("global").to_json_text();
    if matches!(policy.kind(), "table" | "operator") {
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
