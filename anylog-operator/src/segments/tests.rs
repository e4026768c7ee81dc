use std::time::Duration;

use anylog_dbms::SegmentId;

use super::segment::AHEAD_BYTES;
use super::*;
use crate::journal::record::SegmentHeader;
use crate::thresholds::Threshold;

fn segment(threshold: Threshold) -> Arc<Segment> {
    Segment::new(
        SegmentHeader {
            id: SegmentId(1),
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            instructions: "0".into(),
            member: "0".into(),
            file_id: None,
            opened: Timestamp::UNIX_EPOCH,
        },
        threshold,
    )
}

#[test]
fn volume_seals_at_most_once_a_second() {
    let segment = segment(Threshold { volume: 10, ..Threshold::default() });
    segment.departs();
    segment.written(crate::journal::Position::default(), 2, 2, 11);
    segment.landed([], true);
    let at = |millis: u64| Timestamp::UNIX_EPOCH + Duration::from_millis(millis);
    assert!(segment.due(at(1), None));
    assert!(!segment.due(at(900), Some(at(0))));
    assert!(segment.due(at(1000), Some(at(0))));
}

#[test]
fn a_busy_sealer_gets_fewer_and_larger_segments() {
    let mut segments = Segments::default();
    let filled = |number: usize, dbms: &str, opened: i64| {
        let mut header = SegmentHeader::clone(&segment(Threshold::default()).header);
        (header.dbms, header.table) = (dbms.to_owned(), format!("t{number}"));
        header.opened = Timestamp::from_second(opened).unwrap();
        let key = Key {
            dbms: header.dbms.clone(),
            table: header.table.clone(),
            source: header.source.clone(),
            instructions: header.instructions.clone(),
        };
        let segment = Segment::new(header, Threshold { volume: 10, ..Threshold::default() });
        segment.departs();
        segment.written(crate::journal::Position::default(), 1, 1, 11);
        segment.landed([], true);
        (key, segment)
    };
    segments.open.extend((0..BACKLOG + 4).map(|number| filled(number, "d", number as i64)));
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!(segments.close_due(at(30), false), BACKLOG);
    assert!(
        segments.open.keys().all(|key| key.table.len() > 2 || key.table == "t8" || key.table == "t9"),
        "the oldest first"
    );
    assert_eq!(segments.close_due(at(31), false), 0, "the sealer has enough to do");
    segments.open.extend([filled(0, "e", 31)]);
    assert_eq!(segments.close_due(at(32), false), 1, "other databases do not wait for it");
    assert_eq!(segments.close_due(at(BACKLOG as i64 + 61), false), 2, "time is time");
    segments.closing.clear();
    assert_eq!(segments.close_due(at(BACKLOG as i64 + 61), false), 2, "and what waited comes");
}

#[test]
fn behind_a_row_that_is_not_kept_none_are() {
    let segment = segment(Threshold::default());
    assert!(segment.keeps(true) && !segment.keeps(false) && !segment.keeps(true));
    assert!(!segment.is_applied(), "the seal stores what the marks do not cover");
}

#[test]
fn a_batch_that_is_not_stored_leaves_the_segment_to_the_seal() {
    let segment = segment(Threshold::default());
    segment.departs();
    segment.written(crate::journal::Position::default(), 2, 2, 11);
    segment.kept();
    assert!(segment.is_applied() && !segment.is_left());
    segment.let_go([], false);
    segment.leave();
    assert!(!segment.is_applied() && segment.is_left());
}

#[test]
fn frames_are_written_ahead_when_all_their_rows_are_settled() {
    let segment = segment(Threshold::default());
    let write = |frame: usize, runs: u64| {
        for _ in 0..runs {
            segment.departs();
            segment.written(crate::journal::Position::at(1, frame), 1, 1, AHEAD_BYTES / runs);
        }
    };
    write(1, 2);
    assert_eq!(segment.settled_frames(), None, "its rows are on their way");
    segment.landed([], true);
    segment.departs();
    segment.arrived();
    write(2, 1);
    assert_eq!(segment.settled_frames(), None, "one of its rows is on its way, and one was never written");
    segment.landed([], true);
    // The first look saw no frame that was surely complete.
    assert_eq!(segment.settled_frames(), Some(0));
    segment.landed([], true);
    write(3, 1);
    segment.landed([], true);
    assert_eq!(segment.settled_frames(), Some(1), "as many as the look before saw");
    assert_eq!(segment.settled_frames(), Some(2));
    assert_eq!(segment.settled_frames(), None, "there is nothing new");
    write(4, 1);
    segment.landed([], false);
    assert_eq!(segment.settled_frames(), None, "the seal has to store rows first");
}

#[test]
fn frames_are_found_by_ordinals() {
    let open = |copies| segment(Threshold { copies, ..Threshold::default() });
    assert_eq!(open(1).frames_after(0, 100), None, "nobody follows it");
    let mut header = SegmentHeader::clone(&open(2).header);
    header.file_id = Some(1);
    let segment = Segment::new(header, Threshold { copies: 2, ..Threshold::default() });
    let at = |frame| crate::journal::Position::at(1, frame);
    // Two entries in the first frame, and a frame between the others was not written.
    for (frame, last) in [(1, 2), (1, 4), (2, 5), (3, 9)] {
        segment.departs();
        segment.written(at(frame), last, 1, 1);
        segment.landed([], true);
    }
    let all = |ordinal, bytes| segment.frames_after(ordinal, bytes).unwrap();
    assert_eq!(all(0, 100), (0, vec![at(1), at(2), at(3)]));
    assert_eq!(all(3, 100), (0, vec![at(1), at(2), at(3)]), "a frame of which a part is needed");
    assert_eq!(all(4, 2), (4, vec![at(2), at(3)]));
    assert_eq!(all(7, 0), (5, vec![at(3)]), "one at least");
    assert_eq!(all(9, 100), (9, vec![]));
    assert_eq!(segment.written_ordinal(), 9);
}

#[test]
fn time_seals_small_segments() {
    let segment = segment(Threshold::default());
    assert!(!segment.due(Timestamp::UNIX_EPOCH + Duration::from_secs(59), None));
    assert!(segment.due(Timestamp::UNIX_EPOCH + Duration::from_secs(60), None));
}

#[test]
fn a_failed_row_of_an_immediate_segment_is_applied_at_the_seal() {
    let segment = segment(Threshold { immediate: true, ..Threshold::default() });
    assert!(segment.is_applied());
    segment.departs();
    segment.landed([3], false);
    assert!(!segment.is_applied() && segment.refused().contains(&3));
}
