//! Appending to the journal, on the disk of the target directory: frames of one row as messages give them, written together by
//! group commit, and one frame of many rows as a batch gives it. Each measurement ends when all of it is synced.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anylog_benches::readings;
use anylog_dbms::SegmentId;
use anylog_operator::disk::FileDisk;
use anylog_operator::journal::record::{Entries, Place, SegmentHeader};
use anylog_operator::journal::{Journal, JournalLimits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;

const FRAMES: usize = 1000;

fn frame(segment: &Arc<SegmentHeader>, first: u64, rows: &[String]) -> Entries {
    let mut entries = Entries::default();
    let place = Place { partition: Some("par_pumps"), zone: "UTC", received: Timestamp::UNIX_EPOCH };
    entries.rows(segment, place, first, rows);
    entries
}

/// Frames handed over one after the other, and the wait for all of them.
fn append(journal: &Journal, segment: &Arc<SegmentHeader>, rows: &[String]) {
    let (sender, written) = sync_channel(rows.len());
    for (ordinal, row) in (1..).zip(rows) {
        let sender = sender.clone();
        let done = move |result: Result<_, _>| sender.send(result.is_ok()).expect("the bench waits");
        journal.submit(frame(segment, ordinal, std::slice::from_ref(row)), Box::new(done));
    }
    assert!(written.iter().take(rows.len()).all(|written| written), "a frame was not written");
}

fn journal(c: &mut Criterion) {
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a directory");
    let opened = Journal::open(Arc::new(FileDisk), directory.path(), JournalLimits::default(), &mut |_, _| {});
    let (journal, _) = opened.expect("an empty journal");
    let segment = Arc::new(SegmentHeader {
        id: SegmentId(1),
        dbms: "test".into(),
        table: "pumps".into(),
        source: "0".into(),
        instructions: "0".into(),
        member: "1".into(),
        file_id: Some(1),
        opened: Timestamp::UNIX_EPOCH,
    });
    let rows = readings(FRAMES);
    let mut group = c.benchmark_group("journal");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    group.bench_function("one row, synced", |b| b.iter(|| append(&journal, &segment, &rows[..1])));
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("1000 frames of one row, synced", |b| b.iter(|| append(&journal, &segment, &rows)));
    group.bench_function("a frame of 1000 rows, synced", |b| {
        b.iter(|| journal.write_blocking(frame(&segment, 1, &rows)).expect("written"));
    });
    let mut bytes = Vec::new();
    group.bench_function("1000 frames as bytes", |b| {
        b.iter(|| {
            bytes.clear();
            for (ordinal, row) in (1..).zip(&rows) {
                frame(&segment, ordinal, std::slice::from_ref(row)).frame_into(ordinal, &mut bytes);
            }
            bytes.len()
        });
    });
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
