use super::*;
use crate::disk::MemoryDisk;

fn record(ordinal: u64) -> QuarantinedRow {
    let problem = Problem { kind: "type", column: "v".into(), reason: "column 'v'".into(), ..Problem::default() };
    let key = key(SegmentId(0xab), ordinal);
    QuarantinedRow::of_row(key, "2026-11-23 00:00:00.000000".into(), ("d", "t"), &problem, "{\"v\":\"x\"}".into())
        .from("rest", 3)
}

fn quarantine(disk: &MemoryDisk) -> Quarantine {
    Quarantine::new(Arc::new(disk.clone()), "/errors")
}

// R13: what was put aside is there after a loss of power, with its reason.
#[tokio::test]
async fn records_come_back() {
    let disk = MemoryDisk::default();
    let first = quarantine(&disk);
    first.add(&[record(1), record(2)]).await.unwrap();
    assert_eq!(first.counts()[&("type".to_owned(), "d".to_owned(), "t".to_owned())], 2);
    disk.crash(|_| 0);
    let second = quarantine(&disk);
    assert_eq!(second.bytes(), first.bytes());
    second.add(&[record(3)]).await.unwrap();
    assert_eq!(second.rows().unwrap(), [record(1), record(2), record(3)]);
}

#[test]
fn a_promised_row_is_one_row_however_often_it_comes() {
    let disk = MemoryDisk::default();
    let first = quarantine(&disk);
    first.add_promised(vec![record(1)]).unwrap();
    first.add_promised(vec![record(1), record(2)]).unwrap();
    assert_eq!(first.ordinals(SegmentId(0xab)), BTreeSet::from([1, 2]));
    let second = quarantine(&disk);
    second.adopt(&HashSet::from([SegmentId(0xab)]), HashSet::new(), Vec::new());
    second.add_promised(vec![record(1), record(2)]).unwrap();
    assert_eq!(second.rows().unwrap().len(), 2);
    second.sealed(SegmentId(0xab));
    assert!(second.ordinals(SegmentId(0xab)).is_empty());
}

#[test]
fn the_journal_has_the_last_word_at_the_start() {
    let disk = MemoryDisk::default();
    quarantine(&disk).add_promised((1..=4).map(record).collect()).unwrap();
    let after = quarantine(&disk);
    let left = HashSet::from([record(2).key, record(9).key]);
    after.adopt(&HashSet::from([SegmentId(0xab)]), left, vec![record(4), record(5), record(9)]);
    assert_eq!(after.rows().unwrap(), [1, 3, 4, 5].map(record), "what left is gone, what came is there, each once");
    assert!(after.ordinals(SegmentId(0xab)).contains(&2), "a replay must not put it there again");
}

#[test]
fn while_records_are_on_their_way_the_journal_keeps_its_files() {
    let quarantine = quarantine(&MemoryDisk::default());
    let claim = quarantine.claim();
    assert!(!quarantine.lets_go());
    drop(claim);
    assert!(quarantine.lets_go());
}

// A crash at any byte of a file that is written anew leaves either the old file or the new one.
#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let count = |disk: &MemoryDisk| quarantine(disk).rows().unwrap().len();
    for room in (0..3000).step_by(97) {
        let disk = MemoryDisk::default();
        let quarantine = quarantine(&disk);
        quarantine.add_promised((0..10).map(record).collect()).unwrap();
        quarantine.files().roll();
        let file = quarantine.files().list().unwrap().remove(0);
        let kept: Vec<Vec<u8>> = (5..10).map(|n| record(n).line().unwrap()).collect();
        let used = usize::try_from(quarantine.bytes()).unwrap();
        disk.set_capacity(used + room);
        let written = quarantine.files().rewrite(&file, &kept);
        disk.crash(|pending| pending / 2);
        disk.set_capacity(usize::MAX);
        let expected = if written.is_ok() { 5 } else { 10 };
        assert_eq!(count(&disk), expected, "{room} bytes of room");
        // It can be repeated.
        let quarantine = Quarantine::new(Arc::new(disk.clone()), "/errors");
        let file = quarantine.files().list().unwrap().remove(0);
        quarantine.files().rewrite(&file, &kept).unwrap();
        assert_eq!(count(&disk), 5);
    }
}

#[tokio::test]
async fn the_limit_holds_for_what_was_not_promised() {
    let quarantine = quarantine(&MemoryDisk::default());
    quarantine.set_limit(10);
    let full = quarantine.add(&[record(1)]).await.unwrap_err();
    assert!(matches!(full, OperatorError::QuarantineFull { bytes: 0, limit: 10 }), "{full}");
    quarantine.add_promised(vec![record(1)]).unwrap();
    assert_eq!(quarantine.rows().unwrap().len(), 1);
}

#[test]
fn filters_choose_by_every_word() {
    let mut message = record(1);
    message.message = Some(KeptMessage { topic: "a/b".into(), filter: "a/#".into(), ..KeptMessage::default() });
    let fits = |filter: QuarantineFilter| filter.fits(&message);
    let some = |text: &str| Some(text.to_owned());
    assert!(fits(QuarantineFilter::default()));
    assert!(fits(QuarantineFilter { dbms: some("d"), table: some("t"), ..QuarantineFilter::default() }));
    assert!(!fits(QuarantineFilter { table: some("u"), ..QuarantineFilter::default() }));
    assert!(fits(QuarantineFilter { topic: some("a/b"), ..QuarantineFilter::default() }));
    assert!(fits(QuarantineFilter { topic: some("a/#"), ..QuarantineFilter::default() }));
    assert!(!fits(QuarantineFilter { topic: some("a"), ..QuarantineFilter::default() }));
    assert!(fits(QuarantineFilter { reason: some("type"), ..QuarantineFilter::default() }));
    assert!(fits(QuarantineFilter { reason: some("COLUMN 'v'"), ..QuarantineFilter::default() }));
    assert!(!fits(QuarantineFilter { reason: some("typ"), ..QuarantineFilter::default() }));
    let at = |text: &str| Some(text.parse().unwrap());
    assert!(fits(QuarantineFilter { from: at("2026-11-23T00:00:00Z"), ..QuarantineFilter::default() }));
    assert!(!fits(QuarantineFilter { to: at("2026-11-23T00:00:00Z"), ..QuarantineFilter::default() }));
    assert!(fits(QuarantineFilter { id: Some(message.key.clone()), ..QuarantineFilter::default() }));
}
