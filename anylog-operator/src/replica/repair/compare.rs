//! From digests to the files that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anylog_dbms::partition::PartitionName;
use anylog_replica::FileKey;

use super::ask::{By, Question, Row, TableParts, Told, files_of, key_of};
use super::drops::retired;
use super::files::Files;
use super::judge::{Held, Verdict, judge};
use super::{AT_MOST, Agreement, Difference, Mate, Member, Outcome, READING, Scope, TOGETHER};
use crate::OperatorError;
use crate::replica::digest::Digest;

/// How much longer than it read a gentle round rests.
const REST: u32 = 3;

/// A table.
pub(super) type Name = (String, String);

/// What members dropped, and have, of one table.
#[derive(Debug, Default)]
pub(super) struct Presence {
    // By member: the parts that it has, and the files that are gone by part.
    members: BTreeMap<i64, (Vec<String>, BTreeMap<String, Files>)>,
}

impl Presence {
    /// Of one table, from what members told.
    pub(super) fn of<'a>(name: &Name, all: impl IntoIterator<Item = &'a Told>) -> Self {
        let mut members = BTreeMap::new();
        for told in all {
            let has = told.tables.iter().find(|table| table.dbms == name.0 && table.table == name.1);
            let mut gone: BTreeMap<String, Files> = BTreeMap::new();
            for drop in told.dropped.iter().filter(|drop| drop.dbms == name.0 && drop.table == name.1) {
                gone.insert(drop.partition.clone(), files_of(&drop.files));
            }
            let Some(member) = told.member else { continue };
            members.insert(member, (has.map(|table| table.parts.clone()).unwrap_or_default(), gone));
        }
        Self { members }
    }

    /// Whether one of the members let go of what a part had of a file.
    pub(super) fn skips(&self, part: &str, key: FileKey, members: &[i64]) -> bool {
        members
            .iter()
            .filter_map(|member| self.members.get(member))
            .any(|(parts, gone)| gone.get(part).is_some_and(|files| files.contains(key)) || retired(part, parts))
    }

    /// The files that one of two members let go of in a part; none when it did of the whole part.
    fn compared(&self, part: &str, files: &Files, members: [i64; 2]) -> Option<Files> {
        let mut left = files.clone();
        for (parts, gone) in members.iter().filter_map(|member| self.members.get(member)) {
            if retired(part, parts) {
                return None;
            }
            if let Some(gone) = gone.get(part) {
                left = left.without(gone);
            }
        }
        Some(left)
    }

    /// Whether a file's rows may lie in a part that is skipped.
    fn skips_any(&self, key: FileKey, members: &[i64]) -> bool {
        let parts: BTreeSet<&String> =
            self.members.values().flat_map(|(parts, gone)| parts.iter().chain(gone.keys())).collect();
        parts.into_iter().any(|part| self.skips(part, key, members))
    }
}

/// How a table is split: count, unit and column of its partitions.
fn split(parts: &[String]) -> BTreeSet<(u32, &'static str, String)> {
    let names = parts.iter().filter_map(|part| PartitionName::parse(part));
    names.map(|name| (name.count, name.unit.word(), name.column)).collect()
}

impl Member {
    pub(super) async fn round(&self, scope: &Scope) -> Result<Outcome, OperatorError> {
        let mine = self.tell(Question { by: By::Holdings, ..Question::default() }).await?;
        let mut outcome = Outcome { member: self.own.member, ..Outcome::default() };
        let (told, silent) = self.holdings().await;
        outcome.members = told.iter().map(|(mate, _)| mate.member).collect();
        outcome.silent = silent;
        let wanted = |table: &&TableParts| {
            scope.dbms.as_ref().is_none_or(|dbms| *dbms == table.dbms)
                && scope.table.as_ref().is_none_or(|name| *name == table.table)
        };
        for table in mine.tables.iter().filter(wanted) {
            let name = (table.dbms.clone(), table.table.clone());
            if !table.connected {
                outcome.skipped.push(format!("{}.{}: its database is not connected here", name.0, name.1));
                continue;
            }
            let presence = Presence::of(&name, told.iter().map(|(_, told)| told).chain([&mine]));
            let mut suspects = BTreeSet::new();
            for (mate, theirs) in &told {
                suspects.extend(self.suspects(scope, table, &mine, (mate, theirs), &presence, &mut outcome).await?);
            }
            outcome.tables += 1;
            if suspects.len() > AT_MOST {
                outcome.skipped.push(format!(
                    "{}.{}: {} of {} files that differ wait for the next round",
                    name.0,
                    name.1,
                    suspects.len() - AT_MOST,
                    suspects.len()
                ));
            }
            let suspects: Vec<FileKey> = suspects.into_iter().take(AT_MOST).collect();
            let mates: Vec<Mate> = told.iter().map(|(mate, _)| mate.clone()).collect();
            for some in suspects.chunks(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
                let found = self.judged(&name, some, &mates, &presence, &mut outcome).await?;
                outcome.differences.extend(self.mend(&name, found, &mates, &presence).await);
            }
        }
        outcome.skipped.sort();
        outcome.skipped.dedup();
        Ok(outcome)
    }

    /// The files of a table that this member and a mate seem to hold differently.
    async fn suspects(
        &self,
        scope: &Scope,
        table: &TableParts,
        mine: &Told,
        (mate, theirs): (&Mate, &Told),
        presence: &Presence,
        outcome: &mut Outcome,
    ) -> Result<BTreeSet<FileKey>, OperatorError> {
        let name = format!("{}.{}", table.dbms, table.table);
        let common = files_of(&mine.files).both(&files_of(&theirs.files));
        let theirs_of = theirs.tables.iter().find(|other| other.dbms == table.dbms && other.table == table.table);
        if theirs_of.is_some_and(|other| !other.connected) {
            outcome.skipped.push(format!("{name}: its database is not connected at member {}", mate.member));
            return Ok(BTreeSet::new());
        }
        let their_parts = theirs_of.map(|other| other.parts.clone()).unwrap_or_default();
        let parts: Vec<Option<String>> = if split(&table.parts) == split(&their_parts) || their_parts.is_empty() {
            table.parts.iter().chain(&their_parts).collect::<BTreeSet<_>>().into_iter().cloned().map(Some).collect()
        } else {
            // Rows lie elsewhere where the table is split in another way; in sum they are the same.
            vec![None]
        };
        let mut suspects = BTreeSet::new();
        for part in parts {
            let files = match &part {
                Some(part) => presence.compared(part, &common, [self.own.member, mate.member]),
                None => Some(common.clone()),
            };
            let Some(files) = files.filter(|files| !files.is_empty()) else {
                if let Some(part) = part.filter(|part| *part != table.table) {
                    outcome.skipped.push(format!("{name}: partition {part} was dropped at a member"));
                }
                continue;
            };
            outcome.partitions += 1;
            let question = Question {
                dbms: Some(table.dbms.clone()),
                table: Some(table.table.clone()),
                partition: part,
                files: Some(files),
                ..Question::default()
            };
            match self.differing(scope, question, mate).await? {
                Ok(keys) => suspects.extend(keys),
                Err(reason) => {
                    outcome.silent.push(format!("member {} ({}): {reason}", mate.member, mate.address));
                    break;
                }
            }
            if suspects.len() > AT_MOST {
                break;
            }
        }
        Ok(suspects)
    }

    /// The files that differ in what a question is about; or why the mate does not say.
    async fn differing(
        &self,
        scope: &Scope,
        question: Question,
        mate: &Mate,
    ) -> Result<Result<BTreeSet<FileKey>, String>, OperatorError> {
        let begun = Instant::now();
        let mine = self.tell(question.clone()).await?;
        if scope.gentle {
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
        let theirs = match self.ask(mate, &question, READING).await {
            Ok(theirs) => theirs,
            Err(reason) => return Ok(Err(reason)),
        };
        let (mine, theirs) = (by_producer(&mine.digests), by_producer(&theirs.digests));
        let producers: BTreeSet<i64> = mine.keys().chain(theirs.keys()).copied().collect();
        let mut keys = BTreeSet::new();
        for producer in producers.into_iter().filter(|producer| mine.get(producer) != theirs.get(producer)) {
            let question = Question { producer: Some(producer), by: By::File, ..question.clone() };
            let mine = self.tell(question.clone()).await?;
            let theirs = match self.ask(mate, &question, READING).await {
                Ok(theirs) => theirs,
                Err(reason) => return Ok(Err(reason)),
            };
            let both = files_of(&mine.files).both(&files_of(&theirs.files));
            let (mine, theirs) = (by_file(&mine.digests), by_file(&theirs.digests));
            let all: BTreeSet<FileKey> = mine.keys().chain(theirs.keys()).copied().collect();
            keys.extend(all.into_iter().filter(|key| both.contains(*key) && mine.get(key) != theirs.get(key)));
        }
        Ok(Ok(keys))
    }

    /// Whether the rows of the files that all members have completely are the same, by table. Reads them.
    ///
    /// # Errors
    /// Of this member's registry and databases.
    pub(crate) async fn agreement(&self) -> Result<BTreeMap<String, Agreement>, OperatorError> {
        let mine = self.tell(Question { by: By::Holdings, ..Question::default() }).await?;
        let (told, _) = self.holdings().await;
        let all: Vec<i64> = self.mates().iter().map(|mate| mate.member).collect();
        let mut agreement = BTreeMap::new();
        for table in mine.tables.iter().filter(|table| table.connected) {
            let presence = Presence::of(
                &(table.dbms.clone(), table.table.clone()),
                told.iter().map(|(_, told)| told).chain([&mine]),
            );
            let mut found = Agreement::default();
            for member in &all {
                let Some((mate, theirs)) = told.iter().find(|(mate, _)| mate.member == *member) else {
                    found.unknown.push(*member);
                    continue;
                };
                let mut outcome = Outcome::default();
                let suspects =
                    self.suspects(&Scope::default(), table, &mine, (mate, theirs), &presence, &mut outcome).await?;
                if !outcome.silent.is_empty() {
                    found.unknown.push(*member);
                } else if !suspects.is_empty() {
                    found.differs.push(*member);
                }
            }
            agreement.insert(format!("{}.{}", table.dbms, table.table), found);
        }
        Ok(agreement)
    }

    /// What members have of files in all of a table, and who is right. Files that are the same after all are left out.
    pub(super) async fn judged(
        &self,
        name: &Name,
        keys: &[FileKey],
        mates: &[Mate],
        presence: &Presence,
        outcome: &mut Outcome,
    ) -> Result<Vec<(Difference, Digest)>, OperatorError> {
        let question = Question {
            dbms: Some(name.0.clone()),
            table: Some(name.1.clone()),
            files: Some(Files::just(keys.iter().copied())),
            by: By::File,
            ..Question::default()
        };
        let mut all = vec![(self.own.member, self.tell(question.clone()).await?)];
        for mate in mates {
            match self.ask(mate, &question, READING).await {
                Ok(told) => all.push((mate.member, told)),
                Err(reason) => outcome.silent.push(format!("member {} ({}): {reason}", mate.member, mate.address)),
            }
        }
        let all: Vec<(i64, Files, Vec<Row>)> =
            all.into_iter().map(|(member, told)| (member, files_of(&told.files), told.digests)).collect();
        let first: Vec<_> = keys.iter().filter_map(|key| verdict(name, *key, &all, presence, &[])).collect();
        if first.is_empty() {
            return Ok(first);
        }
        // Reading source files is only worth while for files that differ.
        let files = Files::just(first.iter().map(|(found, _)| FileKey { producer: found.producer, file: found.file }));
        let question = Self::proofs(&question, files);
        let mut proven: BTreeMap<FileKey, Vec<Digest>> = BTreeMap::new();
        let mut proofs = vec![self.tell(question.clone()).await.map_err(|error| error.to_string())];
        for mate in mates {
            proofs.push(self.ask(mate, &question, READING).await);
        }
        // Without proofs it is judged all the same.
        for row in proofs.into_iter().flatten().flat_map(|told| told.digests) {
            if let (Some(key), Some(digest)) = (key_of(&row), row.counted()) {
                proven.entry(key).or_default().push(digest);
            }
        }
        let judged = |key: &FileKey| {
            let proven = proven.get(key).map_or(&[][..], Vec::as_slice);
            verdict(name, *key, &all, presence, proven)
        };
        Ok(keys.iter().filter_map(judged).collect())
    }
}

/// The judgement about one file; none when all have the same.
fn verdict(
    name: &Name,
    key: FileKey,
    all: &[(i64, Files, Vec<Row>)],
    presence: &Presence,
    proven: &[Digest],
) -> Option<(Difference, Digest)> {
    let complete: Vec<_> = all.iter().filter(|(_, files, _)| files.contains(key)).collect();
    let members: Vec<i64> = complete.iter().map(|(member, ..)| *member).collect();
    let held: Vec<Held> = complete
        .iter()
        .map(|(member, _, rows)| {
            let of_file = || rows.iter().filter(|row| key_of(row) == Some(key));
            let mut digest = Digest::default();
            for row in of_file().filter(|row| !presence.skips(&row.partition, key, &members)) {
                digest.add(row.counted().unwrap_or_default());
            }
            Held { member: *member, digest, registered: of_file().find_map(|row| row.registered).unwrap_or(0) }
        })
        .collect();
    let whole = !presence.skips_any(key, &members);
    match judge(key.producer, &held, whole, proven) {
        Verdict::Same => None,
        Verdict::Differ { right, by, wrong } => {
            let difference = Difference {
                dbms: name.0.clone(),
                table: name.1.clone(),
                producer: key.producer,
                file: key.file,
                rows: held.iter().map(|held| (held.member, held.digest.rows)).collect(),
                right: by,
                wrong,
                done: String::new(),
                mended: false,
            };
            Some((difference, right))
        }
    }
}

fn by_producer(rows: &[Row]) -> BTreeMap<i64, Digest> {
    let mut sums: BTreeMap<i64, Digest> = BTreeMap::new();
    for row in rows {
        sums.entry(row.producer).or_default().add(row.counted().unwrap_or_default());
    }
    sums.retain(|_, digest| *digest != Digest::default());
    sums
}

pub(super) fn by_file(rows: &[Row]) -> BTreeMap<FileKey, Digest> {
    let mut sums: BTreeMap<FileKey, Digest> = BTreeMap::new();
    for row in rows {
        if let Some(key) = key_of(row) {
            sums.entry(key).or_default().add(row.counted().unwrap_or_default());
        }
    }
    sums.retain(|_, digest| *digest != Digest::default());
    sums
}
