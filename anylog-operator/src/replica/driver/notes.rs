//! What is counted and remembered for those who look.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anylog_replica::FileKey;
use anylog_replica::message::{Body, Message};
use jiff::Timestamp;

use super::lacking::Lacking;
use crate::replica::status::{LinkStatus, MateCounts};

/// How far back rates look.
const MINUTE: Duration = Duration::from_secs(60);

/// Counters of the last minute.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When, and how much was counted up to then.
    marks: VecDeque<(Instant, f64)>,
    total: f64,
}

impl Rate {
    pub(super) fn add(&mut self, count: f64) {
        self.total += count;
        let now = Instant::now();
        match self.marks.back_mut() {
            Some((at, total)) if now.duration_since(*at) < Duration::from_secs(1) => *total = self.total,
            _ => self.marks.push_back((now, self.total)),
        }
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(at, _)| now.duration_since(*at) > MINUTE) {
            self.marks.pop_front();
        }
    }

    /// How much came a second, over the last minute or since the first came.
    pub(super) fn per_second(&self) -> f64 {
        let now = Instant::now();
        let recent = self.marks.iter().find(|(at, _)| now.duration_since(*at) <= MINUTE);
        let Some((first, at_first)) = recent else { return 0.0 };
        // The first mark stands for what came in the second that it closed.
        let before = self.marks.iter().rev().find(|(at, _)| at < first).map_or(0.0, |(_, total)| *total);
        let counted = if self.marks.len() > 1 { self.total - before.min(*at_first) } else { self.total };
        let seconds = now.duration_since(*first).as_secs_f64().max(1.0);
        counted / seconds
    }
}

/// What is remembered of a mate.
#[derive(Debug, Default)]
pub(super) struct MateNotes {
    pub(super) up: Option<Timestamp>,
    pub(super) down: Option<Timestamp>,
    pub(super) error: Option<(Timestamp, String)>,
    pub(super) version: Option<u32>,
    pub(super) counts: MateCounts,
    pub(super) sent: Rate,
    pub(super) received: Rate,
    /// Traffic of links that ended.
    ended: (u64, u64),
}

impl MateNotes {
    pub(super) fn link(&self) -> LinkStatus {
        match self.up {
            Some(since) => LinkStatus::Up(since),
            None => LinkStatus::Down { since: self.down, error: self.error.clone() },
        }
    }
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) mates: BTreeMap<i64, MateNotes>,
    pub(super) parked: BTreeMap<FileKey, Timestamp>,
    pub(super) files: Rate,
    pub(super) rows: Rate,
    pub(super) done: (u64, u64),
    pub(super) lacking: Lacking,
    /// Files that were reported to be open without their producers.
    pub(super) orphans: BTreeSet<FileKey>,
}

impl Notes {
    fn mate(&mut self, mate: i64) -> &mut MateNotes {
        self.mates.entry(mate).or_default()
    }

    pub(super) fn up(&mut self, mate: i64, now: Timestamp) {
        let notes = self.mate(mate);
        notes.up = Some(now);
        notes.error = None;
        notes.counts.links += 1;
    }

    pub(super) fn down(&mut self, mate: i64, now: Timestamp, reason: String) {
        let notes = self.mate(mate);
        notes.up = None;
        notes.down = Some(now);
        notes.error.get_or_insert((now, reason));
    }

    /// Notes what went wrong with a mate; true when it is not what was known.
    pub(super) fn trouble(&mut self, mate: i64, now: Timestamp, reason: String) -> bool {
        let notes = self.mate(mate);
        let is_new = notes.error.as_ref().is_none_or(|(_, known)| *known != reason);
        notes.error = Some((now, reason));
        is_new
    }

    pub(super) fn version(&mut self, mate: i64, version: u32) {
        self.mate(mate).version = Some(version);
    }

    pub(super) fn message(&mut self, to: i64, message: &Message) {
        if let Some(Body::Offer(_)) = message.body {
            self.mate(to).counts.offered += 1;
        }
    }

    pub(super) fn sent(&mut self, to: i64) {
        self.mate(to).counts.sent += 1;
    }

    pub(super) fn rows_sent(&mut self, to: i64, rows: u64) {
        self.mate(to).counts.rows_sent += rows;
    }

    pub(super) fn rows_stored(&mut self, from: i64, rows: u64) {
        self.mate(from).counts.rows_stored += rows;
    }

    pub(super) fn failed(&mut self, mate: i64) {
        self.mate(mate).counts.failed += 1;
    }

    pub(super) fn stored(&mut self, file: FileKey, from: Option<i64>, rows: u64) {
        self.parked.remove(&file);
        self.done = (self.done.0 + 1, self.done.1 + rows);
        self.files.add(1.0);
        self.rows.add(rows as f64);
        if let Some(from) = from {
            self.mate(from).counts.fetched += 1;
        }
    }

    /// A file cannot be had; true when that was not known.
    pub(super) fn parked(&mut self, file: FileKey, now: Timestamp) -> bool {
        self.parked.insert(file, now).is_none()
    }

    /// Bytes to a mate and from it over a link that is up.
    pub(super) fn traffic(&mut self, mate: i64, traffic: (u64, u64)) {
        let notes = self.mate(mate);
        let now = (notes.ended.0 + traffic.0, notes.ended.1 + traffic.1);
        notes.sent.add(now.0.saturating_sub(notes.counts.bytes_sent) as f64);
        notes.received.add(now.1.saturating_sub(notes.counts.bytes_received) as f64);
        (notes.counts.bytes_sent, notes.counts.bytes_received) = now;
    }

    pub(super) fn traffic_of_ended(&mut self, mate: i64, traffic: (u64, u64)) {
        self.traffic(mate, traffic);
        let notes = self.mate(mate);
        notes.ended = (notes.counts.bytes_sent, notes.counts.bytes_received);
    }
}
