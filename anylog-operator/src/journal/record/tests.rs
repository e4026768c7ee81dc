use proptest::prelude::*;

use anylog_ingest::Delivery;

use super::decode::{read_body, rows_in_body};
use super::*;

fn header() -> impl Strategy<Value = SegmentHeader> {
    (any::<u128>(), "[a-z]{1,8}", "\\PC{0,8}", any::<Option<i64>>(), 0i64..4_000_000_000_000_000).prop_map(
        |(id, dbms, table, file_id, opened)| SegmentHeader {
            id: SegmentId(id),
            dbms,
            table,
            source: "0".into(),
            instructions: "0".into(),
            member: "7".into(),
            file_id: file_id.filter(|id| *id != 0),
            opened: Timestamp::from_microsecond(opened).unwrap(),
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (header(), "[a-z_0-9]{0,9}", 0u64..1 << 40, proptest::collection::vec("\\PC{0,20}", 0..5)).prop_map(
            |(segment, partition, first_ordinal, rows)| Entry::Rows(RowsEntry {
                received: segment.opened,
                zone: "UTC".into(),
                segment: Arc::new(segment),
                partition: Some(partition).filter(|name| !name.is_empty()),
                first_ordinal,
                rows,
            })
        ),
        any::<u128>().prop_map(|id| Entry::Sealed(SegmentId(id))),
        ("[a-z]{0,5}", "[a-z]{0,5}", "[a-z]{0,5}").prop_map(|(dbms, table, partition)| Entry::Dropped {
            dbms,
            table,
            partition
        }),
        ("\\PC{1,5}", proptest::collection::vec(any::<u16>(), 1..5))
            .prop_map(|(client, ids)| Entry::Delivered(client.into(), ids)),
        ("\\PC{1,5}", proptest::collection::vec(any::<u16>(), 1..5))
            .prop_map(|(client, ids)| Entry::Released(client.into(), ids)),
        "\\PC{1,5}".prop_map(|client| Entry::Forgotten(client.into())),
        "[0-9a-f]{1,8}:[0-9]{1,3}".prop_map(Entry::Left),
        "\\PC{0,9}".prop_map(Entry::Came),
        any::<u128>().prop_map(|id| Entry::Copy(SegmentId(id))),
        any::<u128>().prop_map(|id| Entry::Followed(SegmentId(id))),
        ("[a-z]{0,5}", "[a-z]{0,5}", any::<(i64, i64, u64)>()).prop_map(|(dbms, table, (producer, file, ordinal))| {
            Entry::Promised(Promised { dbms, table, file: FileKey { producer, file }, ordinal })
        }),
    ]
}

fn deliveries(client: &Arc<str>, ids: &[u16]) -> Vec<Delivery> {
    ids.iter().map(|packet| Delivery { client: Arc::clone(client), packet: *packet }).collect()
}

fn encode(sequence: u64, entries: &[Entry]) -> Vec<u8> {
    let mut encoded = Entries::default();
    for entry in entries {
        match entry {
            Entry::Rows(rows) => encoded.rows(
                &rows.segment,
                Place { partition: rows.partition.as_deref(), zone: &rows.zone, received: rows.received },
                rows.first_ordinal,
                &rows.rows,
            ),
            Entry::Sealed(id) => encoded.sealed(*id),
            Entry::Dropped { dbms, table, partition } => encoded.dropped(dbms, table, partition),
            Entry::Delivered(client, ids) => encoded.delivered(&deliveries(client, ids)),
            Entry::Released(client, ids) => encoded.released(&deliveries(client, ids)),
            Entry::Forgotten(client) => encoded.forgotten(client),
            Entry::Left(key) => encoded.left(key),
            Entry::Came(record) => encoded.came(record),
            Entry::Copy(id) => encoded.copy(*id),
            Entry::Followed(id) => encoded.followed(*id),
            Entry::Promised(promised) => encoded.promised(promised),
        }
    }
    let mut bytes = Vec::new();
    encoded.frame_into(sequence, &mut bytes);
    assert_eq!(bytes.len(), encoded.frame_bytes());
    bytes
}

proptest! {
    #[test]
    fn what_was_written_is_read(sequence: u64, entries in proptest::collection::vec(entry(), 0..4)) {
        let bytes = encode(sequence, &entries);
        let (frame, length) = read_frame(&bytes).unwrap();
        prop_assert_eq!(length, bytes.len());
        prop_assert_eq!(frame, Frame { sequence, entries });
    }

    #[test]
    fn rows_are_found_without_copies(sequence: u64, entries in proptest::collection::vec(entry(), 1..4), which: prop::sample::Index) {
        let bytes = encode(sequence, &entries);
        let id = match which.get(&entries) {
            Entry::Rows(rows) => rows.segment.id,
            _ => SegmentId(0),
        };
        let own = entries.iter().filter_map(|entry| match entry {
            Entry::Rows(rows) if rows.segment.id == id => Some(rows),
            _ => None,
        });
        let texts = |rows: &RowsEntry| (rows.first_ordinal..).zip(rows.rows.clone()).collect::<Vec<_>>();
        let expected: Vec<(u64, Timestamp, String, String)> = own
            .flat_map(|rows| {
                let row = |(ordinal, text)| (ordinal, rows.received, rows.zone.clone(), text);
                texts(rows).into_iter().map(row).collect::<Vec<_>>()
            })
            .collect();
        let mut found = Vec::new();
        each_row(&bytes, id, |row| found.push((row.ordinal, row.received, row.zone.to_owned(), row.text.to_owned())))
            .unwrap();
        prop_assert_eq!(found, expected);
    }

    // R8: any flipped byte is seen.
    #[test]
    fn a_flipped_byte_is_seen(entries in proptest::collection::vec(entry(), 1..3), at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = encode(1, &entries);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(read_frame(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_survived(mut bytes: Vec<u8>) {
        drop(read_frame(&bytes));
        bytes.splice(0..0, FORM.marker);
        drop(read_frame(&bytes));
        drop(read_body(&bytes));
        let _ = rows_in_body(&bytes, SegmentId(1), &mut |_| {});
    }

    #[test]
    fn any_body_is_survived(tail: Vec<u8>) {
        let mut body = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0, KIND_ROWS];
        body.extend(tail);
        drop(read_body(&body));
    }
}
