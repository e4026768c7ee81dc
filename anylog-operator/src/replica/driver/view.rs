//! What the driver shows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_replica::Event;
use anylog_replica::member::ProducerView;

use super::Driver;
use super::notes::Notes;
use crate::replica::status::{LinkStatus, MateCounts, MateStatus, Parked, ProducerStatus, Progress, ReplicationStatus};

impl Driver {
    /// What is known of the exchange.
    pub(in crate::replica) fn status(&self) -> ReplicationStatus {
        let producers = self.member.lock().producers();
        let told = *self.told.borrow();
        let mates = self.mate_statuses();
        let notes = self.notes.lock();
        let remaining = producers.iter().map(|producer| producer.missing.len()).sum();
        ReplicationStatus {
            running: true,
            member: self.own.member,
            cluster: self.own.cluster.clone(),
            distributor: told.distributor,
            consumer: told.consumer,
            conflict: None,
            mates,
            producers: producers.into_iter().map(|producer| self.producer(producer, &notes)).collect(),
            progress: progress(&notes, remaining),
        }
    }

    /// Up to which number all members have all files of each producer; none while a mate was not heard.
    pub(in crate::replica) fn committed(&self) -> Option<Vec<(i64, i64)>> {
        let member = self.member.lock();
        if !member.unheard().is_empty() {
            return None;
        }
        Some(member.producers().into_iter().map(|producer| (producer.producer, producer.consensus)).collect())
    }

    fn mate_statuses(&self) -> Vec<MateStatus> {
        let mates = Arc::clone(&self.mates.read());
        let notes = self.notes.lock();
        let status = |(member, mate): (&i64, &super::Mate)| {
            let known = notes.mates.get(member);
            MateStatus {
                member: *member,
                policy: mate.policy.clone(),
                name: mate.name.clone(),
                address: mate.address.clone(),
                link: known.map_or(LinkStatus::Down { since: None, error: None }, |notes| notes.link()),
                version: known.and_then(|notes| notes.version),
                counts: known.map_or_else(MateCounts::default, |notes| notes.counts),
                rate: known.map_or((0.0, 0.0), |notes| (notes.sent.per_second(), notes.received.per_second())),
            }
        };
        mates.iter().map(status).collect()
    }

    fn producer(&self, view: ProducerView, notes: &Notes) -> ProducerStatus {
        let now = self.shared.node.clock.now();
        let parked = view.parked.into_iter().map(|parked| Parked {
            file: parked.file,
            reason: parked.reason,
            since: notes.parked.get(&parked.file).copied().unwrap_or(now),
        });
        ProducerStatus {
            producer: view.producer,
            complete: view.complete.len(),
            highest: view.complete.last().unwrap_or(0),
            mates: view.mates.iter().map(|(mate, files)| (*mate, files.len(), files.last().unwrap_or(0))).collect(),
            consensus: view.consensus,
            missing: view.missing.len(),
            in_work: view.in_work,
            parked: parked.collect(),
        }
    }

    /// Mates that the ledger names, and how many of them are linked.
    pub(in crate::replica) fn linked(&self) -> (usize, usize) {
        (self.mates.read().len(), self.sessions.lock().len())
    }

    /// Counts what went over the links.
    pub(super) fn note_traffic(&self) {
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        let mut notes = self.notes.lock();
        for session in sessions {
            let traffic = (session.sent.load(Ordering::Relaxed), session.received.load(Ordering::Relaxed));
            notes.traffic(session.mate, traffic);
        }
    }

    /// Counts what failed.
    pub(super) fn note_event(&self, event: &Event) {
        match event {
            Event::Failed { from: Some(mate), .. }
            | Event::RowsFailed { from: mate, .. }
            | Event::CannotSend { to: mate, .. } => {
                self.notes.lock().failed(*mate);
            }
            _ => {}
        }
    }
}

fn progress(notes: &Notes, remaining: u64) -> Progress {
    let files_per_second = notes.files.per_second();
    let seconds = remaining as f64 / files_per_second;
    let known = remaining > 0 && seconds.is_finite();
    Progress {
        remaining,
        done: notes.done.0,
        rows: notes.done.1,
        files_per_second,
        rows_per_second: notes.rows.per_second(),
        estimate: known.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten(),
    }
}
