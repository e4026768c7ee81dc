//! Members that came to hold different rows are found, and mended.
//!
//! A round compares digests with every mate that answers, top-down: table, partition, producer, file. Only files that both have
//! completely are compared: what is open, or still to be fetched, is the affair of the exchange. About a file that differs all members
//! are asked, and [`judge`](judge::judge) says who is right. A wrong copy here is fetched anew; a mate that has a wrong one is asked to
//! do the same, and judges for itself.
//!
//! What a member dropped on purpose is no difference: partitions in its list of dropped ones ([`drops`]), as far as the files go that
//! were there then, and partitions older than all that it has.
//!
//! Rounds come by themselves ([`background`]) and by `repair cluster`, which needs the right to add data: mates ask each other for it from
//! other machines. It hands nothing over that could do harm: each member reads, judges and mends for itself.

pub(crate) mod ask;
pub(crate) mod background;
mod compare;
pub(crate) mod drops;
pub(crate) mod files;
mod judge;
mod mend;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anylog_ledger::{Ledger, OperatorNode};
use futures_util::StreamExt;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use self::ask::{By, Question, Told, tell};
use self::drops::Drops;
use self::files::Files;
use super::Replication;
use super::digest::table::Digests;
use crate::OperatorError;
use crate::store::Shared;
use crate::tables::blocking;

/// How long a member may take to say what it has.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to read a partition.
const READING: Duration = Duration::from_secs(300);
/// How long it may take to mend files.
const MENDING: Duration = Duration::from_secs(120);
/// How long a round waits for the end of another one.
const WAITING: Duration = Duration::from_secs(60);
/// Files that are judged and mended together.
pub(crate) const TOGETHER: u64 = 100;
/// Files of a table that one round mends.
const AT_MOST: usize = 2000;

/// What finding and mending needs beyond a round. One per node.
#[derive(Default)]
pub(crate) struct Divergence {
    pub(crate) digests: Digests,
    pub(crate) drops: Drops,
    /// Held by a round.
    round: tokio::sync::Mutex<()>,
    /// Held while copies of this member are taken away and fetched.
    mending: tokio::sync::Mutex<()>,
    /// What the last round came to.
    last: RwLock<Option<Outcome>>,
    /// How often a round comes by itself; none: the default.
    period: RwLock<Option<Duration>>,
}

impl Divergence {
    /// What the last round came to.
    pub(crate) fn last(&self) -> Option<Outcome> {
        self.last.read().clone()
    }

    /// How often a round comes by itself.
    pub(crate) fn period(&self) -> Duration {
        self.period.read().unwrap_or(background::PERIOD)
    }

    /// Changes that.
    pub(crate) fn set_period(&self, period: Duration) {
        *self.period.write() = Some(period);
    }
}

/// What a round is to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) dbms: Option<String>,
    pub(crate) table: Option<String>,
    /// Only this member's copies of these files: a mate found that they differ.
    pub(crate) files: Option<Files>,
    /// Leaves most of the machine to others.
    pub(crate) gentle: bool,
}

/// What a round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// This member.
    pub(crate) member: i64,
    /// Tables that were compared.
    pub(crate) tables: u64,
    /// Their partitions, and tables without.
    pub(crate) partitions: u64,
    /// The members that were compared with.
    pub(crate) members: Vec<i64>,
    /// Members that did not answer, with the reasons.
    pub(crate) silent: Vec<String>,
    /// What differed.
    pub(crate) differences: Vec<Difference>,
    /// What was not compared, and why.
    pub(crate) skipped: Vec<String>,
}

impl Outcome {
    /// Whether all differences are mended, or there were none.
    pub(crate) fn is_mended(&self) -> bool {
        self.differences.iter().all(|difference| difference.mended)
    }
}

/// Whether the members' rows of a table are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Members whose rows differ from this one's.
    pub(crate) differs: Vec<i64>,
    /// Members that did not answer.
    pub(crate) unknown: Vec<i64>,
}

/// A file that members hold differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) producer: i64,
    pub(crate) file: i64,
    /// Rows by member, in the partitions that all compare.
    pub(crate) rows: Vec<(i64, u64)>,
    /// Who was right.
    pub(crate) right: Vec<i64>,
    /// Who was wrong.
    pub(crate) wrong: Vec<i64>,
    /// What was done.
    pub(crate) done: String,
    /// Whether that mended it.
    pub(crate) mended: bool,
}

/// Another member, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mate {
    pub(crate) member: i64,
    pub(crate) name: String,
    pub(crate) address: String,
}

/// A running member of a cluster, as comparing needs it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) divergence: Arc<Divergence>,
    pub(crate) replication: Arc<Replication>,
    pub(crate) own: OperatorNode,
    /// Where dropped partitions are noted.
    pub(crate) dropped: PathBuf,
}

impl Member {
    /// The other members of the cluster, by number.
    pub(crate) fn mates(&self) -> Vec<Mate> {
        mates(&self.ledger, &self.own)
    }

    /// Answers a question about this member's rows. One at a time: it is for the sake of comparing, not of the data.
    pub(crate) async fn tell(&self, question: Question) -> Result<Told, OperatorError> {
        let _reading = self.divergence.digests.reading.lock().await;
        if question.by == By::Source {
            return self.tell_sources(question).await;
        }
        let me = self.clone();
        blocking(move || {
            let dropped = || me.divergence.drops.all(&me.dropped);
            tell(&me.shared, &me.divergence.digests, dropped, &question)
        })
        .await
    }

    /// Asks another member; why there is no answer otherwise.
    async fn ask(&self, mate: &Mate, question: &Question, deadline: Duration) -> Result<Told, String> {
        answer(&self.ask_text(mate, &question.command(), deadline).await?)
    }

    async fn ask_text(&self, mate: &Mate, command: &str, deadline: Duration) -> Result<String, String> {
        let addresses = [mate.address.clone()];
        let mut answers = Box::pin(self.ledger.ask_nodes(&addresses, command, deadline));
        match answers.next().await.map(|answer| answer.reply) {
            Some(Ok(text)) => Ok(text),
            Some(Err(error)) => Err(error.message),
            None => Err("it was not asked".to_owned()),
        }
    }

    /// What each mate has; those that do not answer in time with the reason.
    async fn holdings(&self) -> (Vec<(Mate, Told)>, Vec<String>) {
        let question = Question { by: By::Holdings, ..Question::default() };
        let asked = self.mates().into_iter().map(|mate| {
            let question = question.clone();
            async move {
                let told = self.ask(&mate, &question, PATIENCE).await;
                (mate, told)
            }
        });
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for (mate, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(answer) if answer.member == Some(mate.member) => told.push((mate, answer)),
                Ok(answer) => silent.push(format!(
                    "member {} ({}): member {} answered",
                    mate.member,
                    mate.address,
                    answer.member.unwrap_or_default()
                )),
                Err(reason) => silent.push(format!("member {} ({}): {reason}", mate.member, mate.address)),
            }
        }
        (told, silent)
    }

    /// Compares, and mends what differs.
    ///
    /// # Errors
    /// [`OperatorError::RepairRuns`] when another round does not end within a minute, [`OperatorError::NotRegistered`], and of this member's databases.
    pub(crate) async fn repair(&self, scope: Scope) -> Result<Outcome, OperatorError> {
        if scope.files.is_some() {
            return self.repair_own(scope).await;
        }
        // One that came by itself is waited for: this one was asked for because of something that it may not have seen.
        let round = tokio::time::timeout(WAITING, self.divergence.round.lock()).await;
        let _round = round.map_err(|_| OperatorError::RepairRuns)?;
        let outcome = self.round(&scope).await?;
        self.report(&outcome);
        *self.divergence.last.write() = Some(outcome.clone());
        Ok(outcome)
    }

    /// Writes into the event log what differed, and who did not answer.
    fn report(&self, outcome: &Outcome) {
        if outcome.differences.is_empty() {
            return;
        }
        const FEW: usize = 10;
        let shown: Vec<String> = outcome.differences.iter().take(FEW).map(ToString::to_string).collect();
        let more = outcome.differences.len().saturating_sub(FEW);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let text = format!("{} files differed: {}{more}", outcome.differences.len(), shown.join("; "));
        if outcome.is_mended() {
            tracing::info!("{text}")
        } else {
            tracing::warn!("{text}")
        }
        self.shared.node.events.add(self.shared.node.clock.now(), "cluster", "Members differed", text);
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dbms, table, producer, file, wrong, done, .. } = self;
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        write!(f, "file {file} of member {producer} ({dbms}.{table}) was wrong at {}: {done}", wrong.join(", "))
    }
}

/// The other members of a member's cluster, by number, with their addresses as they are reached from here.
pub(crate) fn mates(ledger: &Ledger, own: &OperatorNode) -> Vec<Mate> {
    let (view, addresses) = (ledger.view(), ledger.own_addresses());
    let others = view.operators_of(&own.cluster).filter(|other| other.id != own.id && other.member != own.member);
    let mut mates: Vec<Mate> = others
        .map(|other| {
            let reached = ledger.policy(&other.id).and_then(|policy| addresses.reach(&policy));
            let address = reached.unwrap_or_else(|| other.address());
            Mate { member: other.member, name: other.name.clone(), address }
        })
        .collect();
    mates.sort_by_key(|mate| mate.member);
    mates
}

/// What another member answered. An answer with a digest or a set of files that makes no sense is none: members would be called
/// wrong because of it.
fn answer(text: &str) -> Result<Told, String> {
    let told: Told =
        serde_json::from_str(text.trim()).map_err(|error| format!("its answer cannot be read: {error}"))?;
    let files = std::iter::once(&told.files).chain(told.dropped.iter().map(|drop| &drop.files));
    if !files.into_iter().all(|files| Files::parse(files).is_some()) {
        return Err("its answer names files in a form that is not known".to_owned());
    }
    if told.digests.iter().any(|row| row.counted().is_none()) {
        return Err("its answer has a digest in a form that is not known".to_owned());
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let row = |digest: &str| {
            format!(
                r#"{{"member": 7, "files": "7:1", "digests": [{{"dbms": "d", "table": "t", "partition": "t", "producer": 7,
                "files": 1, "rows": 2, "digest": "{digest}"}}]}}"#
            )
        };
        assert_eq!(answer(&row("00ff")).unwrap().digests[0].counted().unwrap().sum, 255);
        assert!(answer(&row("xyz")).is_err());
        assert!(answer(r#"{"member": 7, "files": "seven"}"#).is_err());
        assert!(answer("no JSON").is_err());
    }
}
