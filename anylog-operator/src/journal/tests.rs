use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::record::{Place, SegmentHeader};
use super::*;
use crate::disk::MemoryDisk;

fn directory() -> &'static Path {
    Path::new("/journal")
}

fn segment(number: u128) -> Arc<SegmentHeader> {
    Arc::new(SegmentHeader {
        id: SegmentId(number),
        dbms: "d".into(),
        table: format!("t{number}"),
        source: "0".into(),
        instructions: "0".into(),
        member: "7".into(),
        file_id: Some(1),
        opened: Timestamp::UNIX_EPOCH,
    })
}

fn frame(segment: &Arc<SegmentHeader>, first: u64, rows: &[String]) -> Entries {
    let mut entries = Entries::default();
    let place = Place { partition: None, zone: "UTC", received: Timestamp::UNIX_EPOCH };
    entries.rows(segment, place, first, rows);
    entries
}

fn open(disk: &MemoryDisk, limits: JournalLimits) -> (Journal, Recovery) {
    Journal::open(Arc::new(disk.clone()), directory(), limits, &mut |_, _| {}).unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Ordinals of all rows that a journal gives back, by segment number.
fn ordinals(journal: &Journal, recovery: &Recovery) -> BTreeSet<(u128, u64)> {
    let mut found = BTreeSet::new();
    for segment in &recovery.segments {
        let (rows, lost) = journal.rows_of(segment.header.id, &segment.positions);
        assert_eq!(lost, 0);
        for (_, entry) in rows {
            for (index, row) in entry.rows.iter().enumerate() {
                let ordinal = entry.first_ordinal + index as u64;
                assert_eq!(*row, format!("{{\"n\":{ordinal}}}"), "a row keeps its ordinal");
                assert!(found.insert((segment.header.id.0, ordinal)), "no row twice");
            }
        }
    }
    found
}

fn row(ordinal: u64) -> String {
    format!("{{\"n\":{ordinal}}}")
}

#[test]
fn rows_come_back_after_a_restart() {
    let disk = MemoryDisk::default();
    let limits = JournalLimits { file_bytes: 300, write_bytes: 1000, ..JournalLimits::default() };
    let (journal, _) = open(&disk, limits);
    let (a, b) = (segment(1), segment(2));
    block(async {
        for ordinal in 1..=10 {
            journal.write(frame(&a, ordinal, &[row(ordinal)])).await.unwrap();
            journal.write(frame(&b, ordinal * 2 - 1, &[row(ordinal * 2 - 1), row(ordinal * 2)])).await.unwrap();
        }
    });
    journal.close();
    assert!(disk.list(directory()).unwrap().len() > 3, "files follow each other");
    disk.crash(|_| 0);
    let (journal, recovery) = open(&disk, limits);
    assert!(recovery.damages.is_empty());
    assert_eq!(ordinals(&journal, &recovery).len(), 30);
    assert_eq!(recovery.segments.iter().map(|segment| segment.rows).collect::<Vec<_>>(), [10, 20]);
}

#[test]
fn sealed_segments_give_their_space_back_oldest_first() {
    let disk = MemoryDisk::default();
    let limits = JournalLimits { file_bytes: 1, write_bytes: 1, ..JournalLimits::default() };
    let (journal, _) = open(&disk, limits);
    let (a, b) = (segment(1), segment(2));
    block(async {
        journal.write(frame(&a, 1, &[row(1)])).await.unwrap();
        journal.write(frame(&b, 1, &[row(1)])).await.unwrap();
        journal.write(frame(&a, 2, &[row(2)])).await.unwrap();
        let mut sealed = Entries::default();
        sealed.sealed(b.id);
        journal.write(sealed).await.unwrap();
    });
    journal.release(b.id);
    assert!(journal.removable().is_empty(), "the oldest file still holds a row of the first segment");
    let (again, recovery) = open(&disk.copy(), limits);
    assert_eq!(ordinals(&again, &recovery), BTreeSet::from([(1, 1), (1, 2)]), "a sealed segment is not replayed");
    journal.release(a.id);
    let removable = journal.removable();
    assert_eq!(removable.len(), 3, "all but the file that is being written");
    let forgotten: Vec<u128> = removable.iter().flat_map(|file| file.forget.iter().map(|(id, _)| id.0)).collect();
    assert_eq!(forgotten, [2, 1], "marks go with the last file that has rows of the segment");
    for file in &removable {
        journal.remove(file);
    }
    assert_eq!(disk.list(directory()).unwrap().len(), 1);
}

#[test]
fn a_dropped_partition_voids_earlier_rows_only() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk, JournalLimits::default());
    block(async {
        journal.write(frame(&segment(1), 1, &[row(1)])).await.unwrap();
        let mut dropped = Entries::default();
        dropped.dropped("d", "t1", "par_t1_x");
        journal.write(dropped).await.unwrap();
    });
    let (_, recovery) = open(&disk.copy(), JournalLimits::default());
    assert!(recovery.tombstones.covers("d", "t1", "par_t1_x", 1));
    assert!(!recovery.tombstones.covers("d", "t1", "par_t1_x", 2));
    assert!(!recovery.tombstones.covers("d", "t1", "par_t1_y", 1));
    // With the files of all earlier rows it is not needed any more.
    let mut tombstones = recovery.tombstones.clone();
    tombstones.forget(0);
    assert_eq!(tombstones.len(), recovery.tombstones.len());
    tombstones.forget(u32::MAX);
    assert!(tombstones.is_empty() && !tombstones.covers("d", "t1", "par_t1_x", 1));
}

// DUR-5: a full disk refuses rows, and takes them again when there is space.
#[test]
fn a_full_disk_recovers_without_a_restart() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk, JournalLimits::default());
    let a = segment(1);
    block(async {
        journal.write(frame(&a, 1, &[row(1)])).await.unwrap();
        disk.set_capacity(disk.length(&directory().join(file_name(1))).unwrap_or(0) as usize + 20);
        let refused = journal.write(frame(&a, 2, &[row(2)])).await.unwrap_err();
        assert!(matches!(refused, JournalError::Full { .. }));
        disk.set_capacity(usize::MAX);
        journal.write(frame(&a, 3, &[row(3)])).await.unwrap();
    });
    journal.close();
    let (journal, recovery) = open(&disk, JournalLimits::default());
    assert!(recovery.damages.is_empty());
    assert_eq!(ordinals(&journal, &recovery), BTreeSet::from([(1, 1), (1, 3)]));
}

fn small_journal() -> (MemoryDisk, Vec<u8>) {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk, JournalLimits::default());
    block(async {
        for ordinal in 1..=4 {
            journal.write(frame(&segment(1), ordinal, &[row(ordinal)])).await.unwrap();
        }
    });
    journal.close();
    let bytes = disk.read(&directory().join(file_name(1))).unwrap();
    (disk, bytes)
}

// R8, DUR-4: any byte of a file may be wrong; the node starts, names the place, keeps the bytes and all other frames.
#[test]
fn every_flipped_byte_costs_one_frame() {
    let (disk, bytes) = small_journal();
    let frame_bytes = bytes.len() / 4;
    for at in 0..bytes.len() {
        for flip in [0x01u8, 0x80, 0xFF] {
            let disk = disk.copy();
            disk.damage(&directory().join(file_name(1)), |bytes| bytes[at] ^= flip);
            let mut kept = Vec::new();
            let (journal, recovery) =
                Journal::open(Arc::new(disk.clone()), directory(), JournalLimits::default(), &mut |damage, bytes| {
                    kept.push((damage.clone(), bytes.to_vec()))
                })
                .unwrap();
            let hurt = (at / frame_bytes) as u64 + 1;
            let expected = (1..=4).filter(|ordinal| *ordinal != hurt).map(|ordinal| (1, ordinal)).collect();
            assert_eq!(ordinals(&journal, &recovery), expected, "byte {at} flipped by {flip:#x}");
            assert_eq!(recovery.damages.len(), 1);
            assert_eq!(kept[0].1.len(), frame_bytes, "the damaged bytes are put aside");
            block(journal.write(frame(&segment(1), 5, &[row(5)]))).unwrap();
        }
    }
}

#[test]
fn every_truncation_keeps_the_frames_before_it() {
    let (disk, bytes) = small_journal();
    let frame_bytes = bytes.len() / 4;
    // Behind the end of a file there may be room: zeros.
    for (length, room) in (0..bytes.len()).flat_map(|length| [(length, 0), (length, 3000)]) {
        let disk = disk.copy();
        disk.damage(&directory().join(file_name(1)), |bytes| {
            bytes.truncate(length);
            bytes.extend(std::iter::repeat_n(0, room));
        });
        let (journal, recovery) = open(&disk, JournalLimits::default());
        assert_eq!(ordinals(&journal, &recovery).len(), length / frame_bytes);
        assert_eq!(recovery.damages.len(), usize::from(length % frame_bytes != 0), "{length} and {room} zeros");
        assert!(recovery.damages.iter().all(|damage| damage.at_end && damage.length <= (length % frame_bytes) as u64));
        let (_, again) = open(&disk, JournalLimits::default());
        assert!(again.damages.is_empty(), "a torn end is reported once");
    }
}

// R9: NULs behind the last synced byte. They are room that was not used, so nothing was damaged.
#[test]
fn a_tail_of_nuls_is_cut() {
    let (disk, bytes) = small_journal();
    disk.damage(&directory().join(file_name(1)), |bytes| bytes.extend([0; 5000]));
    let (journal, recovery) = open(&disk, JournalLimits::default());
    assert_eq!(ordinals(&journal, &recovery).len(), 4);
    assert!(recovery.damages.is_empty());
    assert_eq!(disk.length(&directory().join(file_name(1))).unwrap(), bytes.len() as u64);
}

// DUR-1: a journal that ends with a panic acknowledges nothing more, and nobody waits for it: neither senders nor who has a
// transaction open for a frame.
#[test]
fn nobody_waits_for_a_journal_that_panicked() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk, JournalLimits::default());
    let journal = Arc::new(journal);
    let (next, told) =
        ((0..2).map(|_| Arc::<Landing>::default()).collect::<Vec<_>>(), Arc::new(Mutex::new(Vec::new())));
    let watch = |landing: &Arc<Landing>, ordinal: u64| {
        let told = Arc::clone(&told);
        let done = move |result: Result<Written, JournalError>| told.lock().push(result.map(|_| ()));
        journal.submit_watched(frame(&segment(1), ordinal, &[row(ordinal)]), Arc::clone(landing), Box::new(done));
    };
    let (own, second) = (Arc::clone(&journal), Arc::clone(&next[0]));
    journal.submit(
        frame(&segment(1), 1, &[row(1)]),
        Box::new(move |_| {
            // In the line when the thread ends.
            own.submit_watched(frame(&segment(1), 2, &[row(2)]), second, Box::new(|result| assert!(result.is_err())));
            panic!("a test ends the journal's thread");
        }),
    );
    assert_eq!(next[0].wait(), None);
    journal.close();
    watch(&next[1], 3);
    assert_eq!(next[1].wait(), None);
    assert_eq!(*told.lock(), [Err(JournalError::Closed)]);
    drop(journal);
    let (journal, recovery) = open(&disk, JournalLimits::default());
    assert_eq!(ordinals(&journal, &recovery), BTreeSet::from([(1, 1)]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // DUR-1, DUR-2: whatever was acknowledged is there after power loss, once.
    #[test]
    fn acknowledged_rows_survive_power_loss(
        writes in proptest::collection::vec((1u128..4, 1u64..5), 1..40),
        crash_after in 0usize..40,
        keep in 0usize..200,
    ) {
        let disk = MemoryDisk::default();
        let limits = JournalLimits { file_bytes: 500, write_bytes: 400, ..JournalLimits::default() };
        let (journal, _) = open(&disk, limits);
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let mut next = HashMap::new();
        let image = Arc::new(Mutex::new(None));
        for (index, (number, count)) in writes.iter().enumerate() {
            let first = next.entry(*number).or_insert(1u64);
            let rows: Vec<String> = (*first..*first + count).map(row).collect();
            let (number, range, acknowledged, image) = (*number, *first..*first + count, Arc::clone(&acknowledged), Arc::clone(&image));
            *first += count;
            let disk = disk.clone();
            journal.submit(frame(&segment(number), range.start, &rows), Box::new(move |result| {
                result.unwrap();
                let mut acknowledged = acknowledged.lock();
                if index <= crash_after {
                    acknowledged.extend(range.map(|ordinal| (number, ordinal)));
                }
                if index == crash_after {
                    // The image of the disk at the moment of this acknowledgement, with a random part of unsynced bytes.
                    let copy = disk.copy();
                    copy.crash(|pending| keep.min(pending));
                    *image.lock() = Some(copy);
                }
            }));
        }
        journal.close();
        let disk = image.lock().take().unwrap_or(disk);
        let (journal, recovery) = open(&disk, limits);
        let found = ordinals(&journal, &recovery);
        prop_assert!(acknowledged.lock().is_subset(&found));
    }
}
