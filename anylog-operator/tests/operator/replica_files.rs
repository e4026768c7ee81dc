//! Complete files on their way from one member to another: two members in one process, and a hand that carries bytes between them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anylog_dbms::{NewFile, SqlValue, TsdUpdate};
use anylog_ingest::SourceFile;
use anylog_operator::OperatorError;
use anylog_operator::replica::{Content, Receiving};
use anylog_replica::FileKey;
use anylog_replica::message::{Form, Piece, RowsHeld};

use crate::harness::{TestNode, numbered, rows};
use crate::replica_open::{Mates, rest};

const FIRST: FileKey = FileKey { producer: 7, file: 1 };

/// A member with everything connected.
async fn member(home: &Path, number: i64) -> TestNode {
    let node = TestNode::start(home);
    node.connect();
    node.run_as(number).await;
    node
}

/// The bytes of a content from a place on, in pieces of some length.
fn pieces(content: &Content, file: FileKey, mut offset: u64, length: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    loop {
        let (mut bytes, mut filled) = (vec![0; length], 0);
        while filled < length {
            match content.read_at(offset + filled as u64, &mut bytes[filled..]).unwrap() {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        let end = offset + filled as u64;
        let about = pieces.is_empty().then(|| content.about.clone());
        let last = end == content.length;
        let FileKey { producer, file } = file;
        pieces.push(Piece { producer, file, content: content.content, offset, bytes, last, about });
        if last {
            return pieces;
        }
        offset = end;
    }
}

/// Takes what a receiver wants of a file of `from`, up to `most` pieces.
fn carry(from: &TestNode, receiving: &mut Receiving, file: FileKey, most: usize) -> Result<bool, OperatorError> {
    let (content, want) = (from.operator.give_file(file)?, receiving.want());
    let offset = if want.content == content.content { want.offset } else { 0 };
    let mut whole = false;
    for piece in pieces(&content, file, offset, 100).into_iter().take(most) {
        whole = receiving.take(piece)?;
    }
    Ok(whole)
}

async fn copy(from: &TestNode, to: &TestNode, file: FileKey) -> Result<(), OperatorError> {
    let mut receiving = to.operator.receive_file(file)?;
    assert!(carry(from, &mut receiving, file, usize::MAX)?);
    to.operator.store_file(receiving).await
}

/// All rows of a table with the columns that the node adds, save its own count, and where they lie.
fn everything(node: &TestNode, table: &str) -> Vec<String> {
    let database = node.catalog.get("d").unwrap();
    let Some(schema) = database.dbms().schema(table).unwrap() else { return Vec::new() };
    let columns: Vec<String> = schema.columns[1..].iter().map(|column| format!("\"{}\"", column.name)).collect();
    let mut all = Vec::new();
    for target in node.targets(table) {
        let sql = format!("SELECT {} FROM {}", columns.join(","), target.physical());
        let visit = &mut |_: &[String], row: Vec<SqlValue>| {
            all.push(format!("{} {row:?}", target.physical()));
            std::ops::ControlFlow::Continue(())
        };
        database.dbms().query(Some(&target), &sql, visit).unwrap();
    }
    all.sort();
    all
}

/// Sends messages and seals what they came to.
async fn sealed(node: &TestNode, table: &str, messages: impl IntoIterator<Item = Vec<String>>) {
    for message in messages {
        let _ = node.slot.append(rows(table, message)).await.unwrap();
    }
    node.operator.flush().await.unwrap();
}

fn day(day: u32, n: i64) -> String {
    format!("{{\"timestamp\": \"2026-03-{day:02} 10:00:00\", \"n\": {n}}}")
}

// DUR-6, R21: a copy is the same row by row, with times, places, names and hash, and it is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_file_is_the_same_on_another_member() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    for node in [&seven, &eight] {
        node.partitioned("timestamp");
    }
    let messages = (0..40).map(|n| vec![day(1 + (n % 3) as u32, n), day(2, 100 + n)]);
    sealed(&seven, "t", messages).await;
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    assert_eq!(everything(&eight, "t").len(), 80);
    assert_eq!(eight.archived(), seven.archived());
    assert_eq!(eight.registered_in("tsd_7"), seven.registered());
    assert_eq!(eight.registered(), []);
    // Once more, also when it comes from somewhere else.
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    let third = tempfile::tempdir().unwrap();
    let nine = member(third.path(), 9).await;
    nine.partitioned("timestamp");
    copy(&eight, &nine, FIRST).await.unwrap();
    copy(&seven, &nine, FIRST).await.unwrap();
    assert_eq!(everything(&nine, "t"), everything(&seven, "t"));
    let held = nine.operator.complete_files(None).unwrap();
    let ranges: Vec<(i64, Vec<(i64, i64)>)> =
        held.into_iter().map(|(member, files)| (member, files.ranges().collect())).collect();
    assert_eq!(ranges, [(9, vec![]), (7, vec![(1, 1)])]);
    // Nothing stays of the way.
    assert_eq!(std::fs::read_dir(nine.directory("prep_dir").join(".incoming")).unwrap().count(), 0);
}

// R13, R21: rows that its producer refused are its affair alone.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_refused_are_not_judged_again() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..3)]).await;
    let mut content = numbered(10..20);
    (content[0], content[5]) = ("{\"n\": \"x\"}".into(), "{\"n\": []}".into());
    let file = SourceFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        instructions: "0".into(),
        rows: content,
        origin: "rest".into(),
    };
    let stored = seven.slot.store_file(file).await.unwrap();
    assert_eq!(stored.receipt.stored(), 8);
    for file in [1, 2] {
        copy(&seven, &eight, FileKey { producer: 7, file }).await.unwrap();
    }
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    assert_eq!(eight.integers("t", "n"), [0, 1, 2, 11, 12, 13, 14, 16, 17, 18, 19]);
    assert_eq!(eight.archived(), seven.archived());
    assert_eq!((seven.operator.quarantined().unwrap().len(), eight.operator.quarantined().unwrap().len()), (2, 0));
}

// R7: what is there of a file is not sent again, over a restart either; unless it is another content.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_broken_off_goes_on() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", (0..90).map(|n| numbered(n * 7..n * 7 + 3))).await;
    let mut receiving = eight.operator.receive_file(FIRST).unwrap();
    assert_eq!((receiving.want().offset, receiving.want().content), (0, 0));
    assert!(!carry(&seven, &mut receiving, FIRST, 2).unwrap());
    assert!(matches!(eight.operator.receive_file(FIRST), Err(OperatorError::Busy { .. })));
    drop(receiving);
    eight.kill().await;
    let eight = member(other.path(), 8).await;
    let mut receiving = eight.operator.receive_file(FIRST).unwrap();
    let content = seven.operator.give_file(FIRST).unwrap();
    assert_eq!((receiving.want().offset, receiving.want().content), (200, content.content));
    // A piece that does not follow.
    let astray = pieces(&content, FIRST, 300, 100).remove(0);
    assert!(matches!(receiving.take(astray), Err(OperatorError::BadCopy { .. })));
    assert!(!carry(&seven, &mut receiving, FIRST, 2).unwrap());
    // The archive is gone meanwhile: it is another content, which begins anew.
    std::fs::remove_dir_all(seven.directory("archive_dir")).unwrap();
    let made = seven.operator.give_file(FIRST).unwrap();
    assert_ne!(made.content, content.content);
    assert!(carry(&seven, &mut receiving, FIRST, usize::MAX).unwrap());
    eight.operator.store_file(receiving).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
}

// R8: a damaged content leaves no rows.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_not_stored() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..50)]).await;
    let content = seven.operator.give_file(FIRST).unwrap();
    for at in [0, 40, content.length - 1] {
        let mut receiving = eight.operator.receive_file(FIRST).unwrap();
        let mut damaged = pieces(&content, FIRST, 0, 1 << 20);
        damaged[0].bytes[usize::try_from(at).unwrap()] ^= 1;
        let error = receiving.take(damaged.remove(0)).unwrap_err();
        assert!(matches!(error, OperatorError::BadCopy { producer: 7, file: 1, .. }), "{error}");
        assert_eq!(receiving.want().offset, 0);
        assert!(eight.operator.store_file(receiving).await.is_err());
    }
    // The archive itself is damaged, so its name is that of its bytes.
    let mut receiving = eight.operator.receive_file(FIRST).unwrap();
    let mut claimed = content.about.clone();
    claimed.hash = "0123".into();
    let mut whole = pieces(&content, FIRST, 0, 1 << 20).remove(0);
    whole.about = Some(claimed);
    assert!(receiving.take(whole).unwrap_err().to_string().contains("0123"));
    drop(receiving);
    assert_eq!(everything(&eight, "t"), Vec::<String>::new());
    assert_eq!(eight.operator.complete_files(None).unwrap().len(), 1);
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(eight.count("t"), 50);
}

// R20: where an archive is gone, the same comes from the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_of_its_rows() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    for node in [&seven, &eight] {
        node.partitioned("insert_timestamp");
    }
    let texts = [
        r#"{"a b": 1, "f": 5.0, "on": true, "at": "2026-03-01T10:00:00.5+02:00", "s": "it's \"q\" \\ ü \u0001", "j": {"x": [1, 2.50]}}"#,
        r#"{"a b": -9223372036854775808, "f": 1e-7, "on": false, "at": null, "s": "", "j": "null"}"#,
        r#"{"a b": 9223372036854775807, "f": 0.1, "on": null, "at": "2026-03-01 10:00:00", "s": "5", "j": 5}"#,
        r#"{"s": null, "f": -2.5e300}"#,
    ];
    for text in texts {
        let _ = seven.slot.append(rows("t", [text.to_owned()])).await.unwrap();
    }
    sealed(&seven, "t", [texts.iter().map(|text| (*text).to_owned()).collect()]).await;
    sealed(&seven, "t", [texts.iter().map(|text| (*text).to_owned()).collect()]).await;
    std::fs::remove_dir_all(seven.directory("archive_dir")).unwrap();
    for file in [1, 2] {
        let key = FileKey { producer: 7, file };
        assert_eq!(seven.operator.give_file(key).unwrap().about.form, i32::from(Form::Rows));
        copy(&seven, &eight, key).await.unwrap();
    }
    assert_eq!(everything(&eight, "t").len(), 12);
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    assert_eq!(eight.registered_in("tsd_7"), seven.registered());
    // From there it goes on in the same form.
    let third = tempfile::tempdir().unwrap();
    let nine = member(third.path(), 9).await;
    nine.partitioned("insert_timestamp");
    copy(&eight, &nine, FIRST).await.unwrap();
    copy(&eight, &nine, FileKey { producer: 7, file: 2 }).await.unwrap();
    assert_eq!(everything(&nine, "t"), everything(&seven, "t"));
    // Neither archive nor rows.
    seven.catalog.get("d").unwrap().dbms().drop_table("t").unwrap();
    assert!(matches!(seven.operator.give_file(FIRST), Err(OperatorError::NotGiven { .. })));
}

// R8: a run list that is damaged or missing is as good as no archive.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_run_list_a_file_is_made_of_its_rows() {
    let home = tempfile::tempdir().unwrap();
    let seven = member(home.path(), 7).await;
    sealed(&seven, "t", [numbered(0..5)]).await;
    let form = |node: &TestNode| node.operator.give_file(FIRST).unwrap().about.form;
    assert_eq!(form(&seven), i32::from(Form::Archive));
    let list = find(&seven.directory("archive_dir"), ".runs");
    let bytes = std::fs::read(&list).unwrap();
    let mut damaged = bytes.clone();
    damaged[12] ^= 1;
    std::fs::write(&list, damaged).unwrap();
    assert_eq!(form(&seven), i32::from(Form::Rows));
    std::fs::remove_file(&list).unwrap();
    assert_eq!(form(&seven), i32::from(Form::Rows));
    std::fs::write(&list, bytes).unwrap();
    assert_eq!(form(&seven), i32::from(Form::Archive));
    // It is no archived file.
    let today = seven.node.clock.now().strftime("%Y-%m-%d").to_string();
    let shown = seven.execute(&format!("get archived files {today}")).await.unwrap();
    assert!(shown.contains("d.t.0.") && !shown.contains(".runs"), "{shown}");
}

// R8, R19: an archived file that is damaged is named, and its rows are given instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_made_good_by_the_rows() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..50)]).await;
    let archive = find(&seven.directory("archive_dir"), ".gz");
    let whole = std::fs::read(&archive).unwrap();
    let pack = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let rows: String = numbered(0..50).iter().map(|row| format!("{row}\n")).collect();
    let harms = [
        ("unpacked", flipped),
        ("unpacked", whole[..whole.len() - 9].to_vec()),
        ("fewer rows", pack("{\"n\": 1}\n")),
        ("hash", pack(&rows.replace("1", "2"))),
        ("more rows", pack(&format!("{rows}{rows}"))),
    ];
    for (reason, damaged) in harms {
        std::fs::write(&archive, damaged).unwrap();
        assert_eq!(seven.operator.give_file(FIRST).unwrap().about.form, i32::from(Form::Rows), "{reason}");
        let errors = seven.node.errors.messages();
        let last = errors.iter().rfind(|error| error.kind == "Damaged archive").expect("it is named");
        assert!(last.text.contains("file 1 of member 7") && last.text.contains(reason), "{reason}: {}", last.text);
    }
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    std::fs::write(&archive, whole).unwrap();
    assert_eq!(seven.operator.give_file(FIRST).unwrap().about.form, i32::from(Form::Archive));
}

/// The one file below a directory whose name ends so.
fn find(directory: &Path, end: &str) -> std::path::PathBuf {
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                return path;
            }
        }
    }
    panic!("no file below {} ends with {end}", directory.display());
}

// R21: rows that came while the file was open are not stored again with the whole file.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_brings_what_the_rows_left_out() {
    use anylog_operator::replica::Followers;
    use std::sync::Arc;
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    let change = anylog_operator::thresholds::ThresholdChange { copies: Some(2), ..Default::default() };
    let mates = Mates::reachable(2);
    seven.operator.follow(Some(Arc::clone(&mates) as Arc<dyn Followers>)).unwrap();
    seven.operator.change_threshold(None, None, change).unwrap();
    for node in [&seven, &eight] {
        node.partitioned("insert_timestamp");
    }
    let message = |range| rows("t", numbered(range));
    let (one, two) = (seven.slot.append(message(0..5)), seven.slot.append(message(5..9)));
    let live = async {
        let held = loop {
            let open = seven.operator.open_files().unwrap();
            match open.first().filter(|held| held.ordinal == 9) {
                Some(held) => break *held,
                None => tokio::task::yield_now().await,
            }
        };
        // Only the first message comes here while the file is open.
        let mut rows = rest(&seven.operator, RowsHeld { ordinal: 0, ..held });
        for message in &mut rows {
            message.runs.retain(|run| run.first <= 5);
            for run in &mut message.runs {
                run.rows.truncate(usize::try_from(6 - run.first).unwrap());
            }
        }
        for message in rows {
            eight.operator.store_rows(message).await.unwrap();
        }
        mates.has(held);
    };
    let (one, two, ()) = tokio::join!(one, two, live);
    assert_eq!(one.unwrap().stored() + two.unwrap().stored(), 9);
    assert_eq!(eight.operator.open_files().unwrap()[0].ordinal, 5);
    seven.operator.flush().await.unwrap();
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    assert_eq!(eight.operator.open_files().unwrap(), []);
    eight.kill().await;
    let eight = member(other.path(), 8).await;
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"), "the journal repeats nothing");
}

// R20, DUR-6: what was taken away comes again, as it was; its marks in the journal's keeping do not hold it up. Until then its rows
// stay, and whoever asks meanwhile sees the old ones or the new ones, and never neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_taken_away_and_comes_again() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..5), numbered(5..9)]).await;
    sealed(&seven, "t", [numbered(20..22)]).await;
    for file in [1, 2] {
        copy(&seven, &eight, FileKey { producer: 7, file }).await.unwrap();
    }
    let before = everything(&seven, "t");
    // A file of this member's own, and one of another.
    for (node, from) in [(&seven, &eight), (&eight, &seven)] {
        let archived = node.archived();
        meddle(node, "t", "UPDATE {} SET n = n + 1000 WHERE n < 9");
        node.operator.take_file_away(FIRST).await.unwrap();
        node.operator.take_file_away(FIRST).await.unwrap();
        assert_eq!(node.count("t"), 11);
        assert!(matches!(node.operator.give_file(FIRST), Err(OperatorError::NotGiven { .. })));
        let held = node.operator.complete_files(None).unwrap();
        let files = &held.iter().find(|(member, _)| *member == 7).unwrap().1;
        assert_eq!(files.ranges().collect::<Vec<_>>(), [(2, 2)]);
        let comes = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                while comes.load(Ordering::Relaxed) {
                    assert_eq!(node.count("t"), 11);
                }
            });
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(copy(from, node, FIRST)))
                .unwrap();
            comes.store(false, Ordering::Relaxed);
            looks.join().unwrap();
        });
        assert_eq!(everything(node, "t"), before);
        assert_eq!(node.archived(), archived);
        assert!(node.operator.give_file(FIRST).is_ok());
    }
    assert_eq!(eight.registered_in("tsd_7"), seven.registered());
    seven.kill().await;
    let seven = member(home.path(), 7).await;
    assert_eq!(everything(&seven, "t"), before);
}

/// Does something to the rows of a table behind the node's back; `{}` stands for each place where they may lie.
fn meddle(node: &TestNode, table: &str, sql: &str) {
    let path = |target: &anylog_dbms::Target| match &target.partition {
        None => node.directory("dbms_dir").join("d.dbms"),
        Some(partition) => node.directory("dbms_dir").join("d.parts").join(table).join(format!("{partition}.dbms")),
    };
    for target in node.targets(table) {
        let database = rusqlite::Connection::open(path(&target)).unwrap();
        database.execute(&sql.replace("{}", target.physical()), []).unwrap();
    }
}

// R21, DUR-6: rows that are to be replaced by those of a content that turns out to be bad stay, and the next content brings all rows,
// whatever marks the ones before left.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_content_between_two_attempts_costs_no_rows() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..5), numbered(5..9)]).await;
    // The rows are in the tables by the time the registry refuses.
    let registry = eight.catalog.tsd().unwrap();
    let stray = NewFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        hash: seven.registered().remove(0).1,
        instructions: "0".into(),
        time: eight.node.clock.now(),
    };
    registry.register_complete("tsd_7", 99, &stray, 1).unwrap();
    assert!(matches!(copy(&seven, &eight, FIRST).await, Err(OperatorError::Tsd(_))));
    assert_eq!(eight.count("t"), 9);
    // Made of rows, and with fewer of them than it says.
    let archive = seven.directory("archive_dir");
    let aside = archive.with_extension("aside");
    std::fs::rename(&archive, &aside).unwrap();
    let mut piece = pieces(&seven.operator.give_file(FIRST).unwrap(), FIRST, 0, 1 << 20).remove(0);
    let runs = usize::try_from(piece.about.as_ref().unwrap().runs).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&piece.bytes[runs..]), &mut text).unwrap();
    let fewer: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
    let mut packed = flate2::write::GzEncoder::new(piece.bytes[..runs].to_vec(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, fewer.as_bytes()).unwrap();
    piece.bytes = packed.finish().unwrap();
    let mut name = blake3::Hasher::new();
    name.update(&i32::from(Form::Rows).to_le_bytes()).update(&piece.bytes);
    piece.content = u64::from_le_bytes(name.finalize().as_bytes()[..8].try_into().unwrap());
    let mut receiving = eight.operator.receive_file(FIRST).unwrap();
    assert!(receiving.take(piece).unwrap());
    let error = eight.operator.store_file(receiving).await.unwrap_err();
    assert!(error.to_string().contains("fewer rows"), "{error}");
    assert_eq!(eight.integers("t", "n"), (0..9).collect::<Vec<_>>());
    // The archived file after all.
    std::fs::rename(&aside, &archive).unwrap();
    let other_hash = TsdUpdate { hash: Some("another".into()), ..TsdUpdate::default() };
    assert!(registry.update("tsd_7", 99, &other_hash).unwrap());
    copy(&seven, &eight, FIRST).await.unwrap();
    assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
}

// R22: a member that lost its disk gets its own files back under their numbers, and counts on behind them.
#[tokio::test(flavor = "multi_thread")]
async fn own_files_come_back_after_a_loss() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    for n in 0..3 {
        sealed(&seven, "t", [numbered(n * 10..n * 10 + 4)]).await;
        copy(&seven, &eight, FileKey { producer: 7, file: n + 1 }).await.unwrap();
    }
    let (before, registered) = (everything(&seven, "t"), seven.registered());
    assert_eq!(seven.operator.highest_file().unwrap(), 3);
    drop(seven);
    let empty = tempfile::tempdir().unwrap();
    let seven = member(empty.path(), 7).await;
    assert_eq!(seven.operator.highest_file().unwrap(), 0);
    seven.operator.number_files_from(3).unwrap();
    sealed(&seven, "u", [numbered(0..1)]).await;
    for file in [2, 3, 1] {
        copy(&eight, &seven, FileKey { producer: 7, file }).await.unwrap();
    }
    assert_eq!(everything(&seven, "t"), before);
    assert_eq!(seven.registered()[..3], registered);
    assert_eq!(seven.registered()[3].0, 4, "the next one");
    assert_eq!(seven.integers("u", "tsd_id"), [4]);
}

// R19: two different files under one number: nothing is overwritten, and both are named.
#[tokio::test(flavor = "multi_thread")]
async fn another_file_under_the_same_number_is_a_conflict() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
    sealed(&seven, "t", [numbered(0..5)]).await;
    let known = NewFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        hash: "abc".into(),
        instructions: "0".into(),
        time: eight.node.clock.now(),
    };
    eight.catalog.tsd().unwrap().register_complete("tsd_7", 1, &known, 5).unwrap();
    let error = copy(&seven, &eight, FIRST).await.unwrap_err();
    assert!(matches!(&error, OperatorError::Conflict { known, .. } if known == "abc"), "{error}");
    assert_eq!(eight.count("t"), 0);
    assert_eq!(eight.registered_in("tsd_7"), [(1, "abc".to_owned(), 5)]);
}

// R21: an attempt that stopped between two steps is gone on with, and what it did is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_stopped_half_way_is_gone_on_with() {
    for made_of_rows in [false, true] {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (seven, eight) = (member(home.path(), 7).await, member(other.path(), 8).await);
        sealed(&seven, "t", [numbered(0..5), numbered(5..9)]).await;
        if made_of_rows {
            std::fs::remove_dir_all(seven.directory("archive_dir")).unwrap();
        }
        // Its hash is taken: the rows are in the tables by the time the registry refuses.
        let hash = seven.registered().remove(0).1;
        let stray = NewFile {
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            hash,
            instructions: "0".into(),
            time: eight.node.clock.now(),
        };
        let registry = eight.catalog.tsd().unwrap();
        registry.register_complete("tsd_7", 99, &stray, 1).unwrap();
        assert!(matches!(copy(&seven, &eight, FIRST).await, Err(OperatorError::Tsd(_))));
        assert_eq!(eight.count("t"), 9);
        drop(registry);
        eight.kill().await;
        let eight = member(other.path(), 8).await;
        let registry = eight.catalog.tsd().unwrap();
        let other_hash = TsdUpdate { hash: Some("another".into()), ..TsdUpdate::default() };
        assert!(registry.update("tsd_7", 99, &other_hash).unwrap());
        let mut receiving = eight.operator.receive_file(FIRST).unwrap();
        let content = seven.operator.give_file(FIRST).unwrap();
        assert_eq!(receiving.want().offset, content.length, "all bytes are here");
        assert!(carry(&seven, &mut receiving, FIRST, usize::MAX).unwrap());
        eight.operator.store_file(receiving).await.unwrap();
        assert_eq!(everything(&eight, "t"), everything(&seven, "t"));
    }
}
