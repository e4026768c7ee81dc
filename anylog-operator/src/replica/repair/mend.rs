//! Wrong copies are fetched anew, and stay until those take their place.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anylog_replica::FileKey;

use super::ask::{By, Question, complete};
use super::compare::{Name, Presence};
use super::files::Files;
use super::{Difference, MENDING, Mate, Member, Outcome, Scope};
use crate::OperatorError;
use crate::replica::digest::Digest;
use crate::replica::holdings::Registry;
use crate::replica::receive::take_away;
use crate::tables::blocking;

/// How long copies that were taken away may take to be there again.
const FETCHING: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOKING: Duration = Duration::from_millis(50);

impl Member {
    /// Mends files that differ, here and at mates. Says what was done.
    pub(super) async fn mend(
        &self,
        name: &Name,
        found: Vec<(Difference, Digest)>,
        mates: &[Mate],
        presence: &Presence,
    ) -> Vec<Difference> {
        let (mine, theirs): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(difference, _)| difference.wrong.contains(&self.own.member));
        // Own copies first: a mate may fetch from here what this member had wrong.
        let mut done = self.mend_own(name, mine, presence).await;
        let mut others: Vec<Difference> = theirs.into_iter().map(|(difference, _)| difference).collect();
        for mate in mates {
            self.ask_to_mend(name, mate, &mut others).await;
        }
        done.append(&mut others);
        done.sort_by_key(|difference| (difference.producer, difference.file));
        done
    }

    /// Takes wrong copies of this member away and has them fetched from members that are right.
    async fn mend_own(&self, name: &Name, found: Vec<(Difference, Digest)>, presence: &Presence) -> Vec<Difference> {
        if found.is_empty() {
            return Vec::new();
        }
        let _mending = self.divergence.mending.lock().await;
        let mut waiting = Vec::new();
        let mut done = Vec::new();
        // Somebody else's judgement may have come first.
        let now = self.here(name, &found, presence).await;
        for (mut difference, right) in found {
            if now.as_ref().is_ok_and(|now| now.get(&key(&difference)).copied().unwrap_or_default() == right) {
                difference.mended = true;
                difference.done = "mended here meanwhile".to_owned();
                done.push(difference);
                continue;
            }
            match self.fetch_anew(&difference).await {
                Ok(()) => waiting.push((difference, right)),
                Err(reason) => {
                    difference.done = format!("it stays here for now: {reason}");
                    done.push(difference);
                }
            }
        }
        let keys: Vec<FileKey> = waiting.iter().map(|(difference, _)| key(difference)).collect();
        let arrived = self.arrived(&keys).await;
        let now = self.here(name, &waiting, presence).await;
        for (mut difference, right) in waiting {
            let arrived = arrived.contains(key(&difference));
            let digest = now.as_ref().map(|now| now.get(&key(&difference)).copied().unwrap_or_default());
            difference.mended = arrived && digest == Ok(right);
            difference.done = match digest {
                _ if !arrived => "its rows stay here until it is fetched anew".to_owned(),
                Ok(digest) if digest == right => "fetched anew, in the place of what was here".to_owned(),
                Ok(digest) => format!("fetched anew with {} rows, which still differ", digest.rows),
                Err(error) => format!("fetched anew, but cannot be read: {error}"),
            };
            done.push(difference);
        }
        done
    }

    /// What this member has now of files that differ, in the partitions that all compare.
    async fn here(
        &self,
        name: &Name,
        found: &[(Difference, Digest)],
        presence: &Presence,
    ) -> Result<BTreeMap<FileKey, Digest>, OperatorError> {
        let question = Question {
            dbms: Some(name.0.clone()),
            table: Some(name.1.clone()),
            files: Some(Files::just(found.iter().map(|(difference, _)| key(difference)))),
            by: By::File,
            ..Question::default()
        };
        let rows = self.tell(question).await?.digests;
        let mut digests: BTreeMap<FileKey, Digest> = BTreeMap::new();
        for (difference, _) in found {
            let key = key(difference);
            let members: Vec<i64> = difference.rows.iter().map(|(member, _)| *member).collect();
            for row in rows.iter().filter(|row| super::ask::key_of(row) == Some(key)) {
                if !presence.skips(&row.partition, key, &members) {
                    digests.entry(key).or_default().add(row.counted().unwrap_or_default());
                }
            }
        }
        Ok(digests)
    }

    /// Takes a copy away, when somebody who has it right can be asked for it.
    async fn fetch_anew(&self, difference: &Difference) -> Result<(), String> {
        let status = self.replication.status();
        if !status.consumer.is_some_and(|consumer| consumer.active) {
            return Err("the consumer does not fetch: run data consumer, or set consumer mode = active".to_owned());
        }
        let linked = status.mates.iter().any(|mate| mate.link.is_up() && difference.right.contains(&mate.member));
        if !linked {
            let right: Vec<String> = difference.right.iter().map(ToString::to_string).collect();
            return Err(format!("no member that has it right is linked ({})", right.join(", ")));
        }
        take_away(&self.shared, key(difference)).await.map_err(|error| error.to_string())?;
        self.replication.refetch(key(difference));
        Ok(())
    }

    /// Waits until files are complete here again; those that are in time.
    async fn arrived(&self, keys: &[FileKey]) -> Files {
        let deadline = Instant::now() + FETCHING;
        let wanted = Files::just(keys.iter().copied());
        loop {
            let shared = std::sync::Arc::clone(&self.shared);
            let there = blocking(move || complete(&shared)).await.unwrap_or_default().both(&wanted);
            if there == wanted || Instant::now() > deadline {
                return there;
            }
            tokio::time::sleep(LOOKING).await;
        }
    }

    /// Asks a mate to mend what it has wrong.
    async fn ask_to_mend(&self, name: &Name, mate: &Mate, differences: &mut [Difference]) {
        let wrong = |difference: &&mut Difference| difference.wrong.contains(&mate.member);
        let files = Files::just(differences.iter_mut().filter(wrong).map(|difference| key(difference)));
        if files.is_empty() {
            return;
        }
        let command = format!(
            "repair cluster where dbms = \"{}\" and table = \"{}\" and files = \"{files}\" and format = json",
            name.0, name.1
        );
        let answer = self.ask_text(mate, &command, MENDING).await;
        let outcome: Result<Outcome, String> = answer.and_then(|text| {
            serde_json::from_str(text.trim()).map_err(|error| format!("its answer cannot be read: {error}"))
        });
        for difference in differences.iter_mut().filter(wrong) {
            let (done, mended) = match &outcome {
                Err(reason) => (format!("member {} did not mend it: {reason}", mate.member), false),
                Ok(outcome) => match outcome.differences.iter().find(|other| key(other) == key(difference)) {
                    Some(theirs) => (format!("member {}: {}", mate.member, theirs.done), theirs.mended),
                    None => (format!("member {} found nothing wrong", mate.member), false),
                },
            };
            // With several wrong members it is mended when all of them did.
            difference.mended = mended && (difference.done.is_empty() || difference.mended);
            let before = std::mem::take(&mut difference.done);
            difference.done = if before.is_empty() { done } else { format!("{before}; {done}") };
        }
    }

    /// A mate found that this member's copies of some files differ: judges for itself, and mends its own.
    pub(super) async fn repair_own(&self, scope: Scope) -> Result<Outcome, OperatorError> {
        let mine = self.tell(Question { by: By::Holdings, ..Question::default() }).await?;
        let (told, silent) = self.holdings().await;
        let mut outcome = Outcome { member: self.own.member, silent, ..Outcome::default() };
        outcome.members = told.iter().map(|(mate, _)| mate.member).collect();
        let mates: Vec<Mate> = told.iter().map(|(mate, _)| mate.clone()).collect();
        for (name, keys) in self.by_table(&scope).await? {
            let presence = Presence::of(&name, told.iter().map(|(_, told)| told).chain([&mine]));
            let mut found = self.judged(&name, &keys, &mates, &presence, &mut outcome).await?;
            found.retain(|(difference, _)| difference.wrong.contains(&self.own.member));
            outcome.tables += 1;
            outcome.differences.extend(self.mend_own(&name, found, &presence).await);
        }
        self.report(&outcome);
        Ok(outcome)
    }

    /// The files of a scope by their tables, as the registry tells them.
    async fn by_table(&self, scope: &Scope) -> Result<Vec<(Name, Vec<FileKey>)>, OperatorError> {
        let (shared, scope) = (std::sync::Arc::clone(&self.shared), scope.clone());
        blocking(move || {
            let registry = Registry::of(&shared.settings())?;
            let mut tables: Vec<(Name, Vec<FileKey>)> = Vec::new();
            let files = scope.files.unwrap_or_default();
            for key in files.keys().take(usize::try_from(super::TOGETHER).unwrap_or(usize::MAX)) {
                let Some(file) = registry.get(key)? else { continue };
                let name = (file.dbms, file.table);
                let other =
                    |wanted: &Option<String>, name: &String| wanted.as_ref().is_some_and(|wanted| wanted != name);
                if other(&scope.dbms, &name.0) || other(&scope.table, &name.1) {
                    continue;
                }
                match tables.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, keys)) => keys.push(key),
                    None => tables.push((name, vec![key])),
                }
            }
            Ok::<_, OperatorError>(tables)
        })
        .await
    }
}

fn key(difference: &Difference) -> FileKey {
    FileKey { producer: difference.producer, file: difference.file }
}
