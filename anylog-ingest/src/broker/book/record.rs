//! One frame of the book: its bytes, and what they mean.
//!
//! ```text
//! frame    as frames have it ([`crate::frames`]), with the marker FF FE 42 4B and bodies of at most 64 MiB
//! body     version 1, then records until its end
//! record   kind        1   then as below; texts and bytes: length 4 and content
//!  1 session      client, expiry 4 (seconds), ends 8 (microseconds since 1970, 0 while connected)
//!  2 ended        client
//!  3 subscribed   client, filter, options 1
//!  4 unsubscribed client, filter
//!  5 message      flags 1 (QoS, 4 retain, 8 expires, 16 properties), expires 8, topic, payload, properties
//!  6 queued       client, sequence 8, options 1 (QoS, 4 retain): the last message of the frame waits for the client
//!  7 done         client, sequence 8
//!  8 taken        client, sequence 8: PUBREC came, PUBREL goes
//!  9 retained     the last message of the frame
//! 10 removed      topic
//! 11 received     client, packet id 2: routed, not released
//! 12 released     client, packet id 2
//! 13 complete     everything before it in this file is the whole state at one moment
//! ```
//!
//! A client stands here for one session of it ([`super::Key`]), so that nothing of an earlier one is taken for its own.
//! A frame is there whole or not at all: a message, whom it waits for, and the packet id that it came with.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::broker::codec::{Retained, SubscribeOptions};
use crate::broker::message::Message;
use crate::frames::{Cursor, Form, FrameError, HEADER_BYTES, put_bytes};

/// The book's frames.
pub(crate) const FORM: Form = Form { marker: [0xFF, 0xFE, b'B', b'K'], least: 1, most: 64 << 20 };
const VERSION: u8 = 1;

/// A change to what the broker keeps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// A session began, or its connection did or ended.
    Session {
        client: Arc<str>,
        /// Seconds for which it waits for its client.
        expiry: u32,
        /// When it ends; none while the client is connected.
        ends: Option<Timestamp>,
    },
    Ended(Arc<str>),
    Subscribed(Arc<str>, String, SubscribeOptions),
    Unsubscribed(Arc<str>, String),
    /// What the records behind it in the frame speak of.
    Message(Arc<Message>),
    Queued {
        client: Arc<str>,
        sequence: u64,
        qos: u8,
        retain: bool,
    },
    Done(Arc<str>, u64),
    Taken(Arc<str>, u64),
    Retained,
    Removed(String),
    Received(Arc<str>, u16),
    Released(Arc<str>, u16),
    Complete,
}

impl Record {
    /// About how many bytes it takes in a frame.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Record::Message(message) => message.cost(),
            Record::Subscribed(client, filter, _) | Record::Unsubscribed(client, filter) => {
                client.len() + filter.len() + 32
            }
            Record::Removed(topic) => topic.len() + 32,
            Record::Session { client, .. }
            | Record::Ended(client)
            | Record::Queued { client, .. }
            | Record::Done(client, _)
            | Record::Taken(client, _)
            | Record::Received(client, _)
            | Record::Released(client, _) => client.len() + 32,
            Record::Retained | Record::Complete => 32,
        }
    }
}

/// Appends a frame.
pub(crate) fn put_frame<'r>(records: impl IntoIterator<Item = &'r Record>, out: &mut Vec<u8>) {
    FORM.put(out, |out| {
        out.push(VERSION);
        records.into_iter().for_each(|record| put_record(record, out));
    });
}

fn put_record(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Session { client, expiry, ends } => {
            out.push(1);
            put_bytes(out, client.as_bytes());
            out.extend_from_slice(&expiry.to_le_bytes());
            out.extend_from_slice(&ends.map_or(0, |ends| ends.as_microsecond().max(1)).to_le_bytes());
        }
        Record::Ended(client) => put_texts(out, 2, &[client]),
        Record::Subscribed(client, filter, options) => {
            put_texts(out, 3, &[client, filter]);
            out.push(options_byte(*options));
        }
        Record::Unsubscribed(client, filter) => put_texts(out, 4, &[client, filter]),
        Record::Message(message) => put_message(message, out),
        Record::Queued { client, sequence, qos, retain } => {
            put_texts(out, 6, &[client]);
            out.extend_from_slice(&sequence.to_le_bytes());
            out.push(qos | u8::from(*retain) << 2);
        }
        Record::Done(client, sequence) => {
            put_texts(out, 7, &[client]);
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        Record::Taken(client, sequence) => {
            put_texts(out, 8, &[client]);
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        Record::Retained => out.push(9),
        Record::Removed(topic) => put_texts(out, 10, &[topic]),
        Record::Received(client, packet) => {
            put_texts(out, 11, &[client]);
            out.extend_from_slice(&packet.to_le_bytes());
        }
        Record::Released(client, packet) => {
            put_texts(out, 12, &[client]);
            out.extend_from_slice(&packet.to_le_bytes());
        }
        Record::Complete => out.push(13),
    }
}

fn put_texts(out: &mut Vec<u8>, kind: u8, texts: &[&str]) {
    out.push(kind);
    texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
}

fn options_byte(options: SubscribeOptions) -> u8 {
    let retained = match options.retained {
        Retained::Always => 0,
        Retained::IfNew => 1,
        Retained::Never => 2,
    };
    options.qos | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | retained << 4
}

fn put_message(message: &Message, out: &mut Vec<u8>) {
    let flags = message.qos
        | u8::from(message.retain) << 2
        | u8::from(message.expires.is_some()) << 3
        | u8::from(message.properties.is_some()) << 4;
    out.push(5);
    out.push(flags);
    if let Some(expires) = message.expires {
        out.extend_from_slice(&expires.as_microsecond().to_le_bytes());
    }
    put_bytes(out, message.topic.as_bytes());
    put_bytes(out, &message.payload);
    if let Some(properties) = &message.properties {
        put_properties(properties, out);
    }
}

/// The properties that go with a message to its subscribers.
fn put_properties(properties: &PublishProperties, out: &mut Vec<u8>) {
    let present = [
        properties.payload_format_indicator.is_some(),
        properties.response_topic.is_some(),
        properties.correlation_data.is_some(),
        properties.content_type.is_some(),
    ];
    out.push(present.iter().enumerate().map(|(bit, present)| u8::from(*present) << bit).sum());
    out.extend(properties.payload_format_indicator);
    for text in [
        properties.response_topic.as_ref().map(String::as_bytes),
        properties.correlation_data.as_ref().map(Bytes::as_ref),
        properties.content_type.as_ref().map(String::as_bytes),
    ] {
        text.into_iter().for_each(|text| put_bytes(out, text));
    }
    out.extend_from_slice(&u32::try_from(properties.user_properties.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in &properties.user_properties {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

/// Reads the frame at the beginning of `bytes`; also returns how many bytes it takes.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<(Vec<Record>, usize), FrameError> {
    let body = FORM.body(bytes)?;
    let records = read_body(body).ok_or(FrameError::Content)?;
    Ok((records, HEADER_BYTES + body.len()))
}

fn client(cursor: &mut Cursor<'_>) -> Option<Arc<str>> {
    cursor.str().map(Arc::from)
}

fn read_body(body: &[u8]) -> Option<Vec<Record>> {
    let mut cursor = Cursor(body);
    if cursor.u8()? != VERSION {
        return None;
    }
    let mut records = Vec::new();
    while !cursor.is_empty() {
        records.push(read_record(&mut cursor)?);
    }
    Some(records)
}

fn read_record(cursor: &mut Cursor<'_>) -> Option<Record> {
    Some(match cursor.u8()? {
        1 => Record::Session {
            client: client(cursor)?,
            expiry: cursor.u32()?,
            ends: cursor.time().map(|ends| (ends != Timestamp::UNIX_EPOCH).then_some(ends))?,
        },
        2 => Record::Ended(client(cursor)?),
        3 => Record::Subscribed(client(cursor)?, cursor.text()?, read_options(cursor.u8()?)?),
        4 => Record::Unsubscribed(client(cursor)?, cursor.text()?),
        5 => Record::Message(Arc::new(read_message(cursor)?)),
        6 => {
            let (client, sequence, options) = (client(cursor)?, cursor.u64()?, cursor.u8()?);
            Record::Queued { client, sequence, qos: read_qos(options)?, retain: options & 4 != 0 }
        }
        7 => Record::Done(client(cursor)?, cursor.u64()?),
        8 => Record::Taken(client(cursor)?, cursor.u64()?),
        9 => Record::Retained,
        10 => Record::Removed(cursor.text()?),
        11 => Record::Received(client(cursor)?, cursor.u16()?),
        12 => Record::Released(client(cursor)?, cursor.u16()?),
        13 => Record::Complete,
        _ => return None,
    })
}

fn read_qos(flags: u8) -> Option<u8> {
    Some(flags & 3).filter(|qos| *qos <= 2)
}

fn read_options(byte: u8) -> Option<SubscribeOptions> {
    let retained = match byte >> 4 {
        0 => Retained::Always,
        1 => Retained::IfNew,
        2 => Retained::Never,
        _ => return None,
    };
    let (no_local, retain_as_published) = (byte & 4 != 0, byte & 8 != 0);
    Some(SubscribeOptions { qos: read_qos(byte)?, no_local, retain_as_published, retained })
}

fn read_message(cursor: &mut Cursor<'_>) -> Option<Message> {
    let flags = cursor.u8()?;
    let expires = if flags & 8 != 0 { Some(cursor.time()?) } else { None };
    let (topic, payload) = (cursor.text()?, Bytes::copy_from_slice(cursor.bytes()?));
    let properties = if flags & 16 != 0 { Some(Box::new(read_properties(cursor)?)) } else { None };
    Some(Message { topic, payload, qos: read_qos(flags)?, retain: flags & 4 != 0, expires, properties })
}

fn read_properties(cursor: &mut Cursor<'_>) -> Option<PublishProperties> {
    let present = cursor.u8()?;
    let has = |bit: u8| present & (1 << bit) != 0;
    let payload_format_indicator = if has(0) { Some(cursor.u8()?) } else { None };
    let response_topic = if has(1) { Some(cursor.text()?) } else { None };
    let correlation_data = if has(2) { Some(Bytes::copy_from_slice(cursor.bytes()?)) } else { None };
    let content_type = if has(3) { Some(cursor.text()?) } else { None };
    let count = cursor.u32()?;
    let mut user_properties = Vec::new();
    for _ in 0..count {
        user_properties.push((cursor.text()?, cursor.text()?));
    }
    Some(PublishProperties {
        payload_format_indicator,
        response_topic,
        correlation_data,
        content_type,
        user_properties,
        ..PublishProperties::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let properties =
            proptest::option::of(("\\PC{0,5}", proptest::collection::vec(("\\PC{0,5}", "\\PC{0,5}"), 0..3)));
        ("\\PC{0,9}", any::<Vec<u8>>(), 0u8..3, any::<bool>(), proptest::option::of(1i64..1 << 50), properties)
            .prop_map(|(topic, payload, qos, retain, expires, properties)| Message {
                topic,
                payload: payload.into(),
                qos,
                retain,
                expires: expires.map(|expires| Timestamp::from_microsecond(expires).unwrap()),
                properties: properties.map(|(text, user_properties)| {
                    Box::new(PublishProperties {
                        response_topic: Some(text.clone()),
                        correlation_data: Some(text.into()),
                        payload_format_indicator: Some(1),
                        user_properties,
                        ..PublishProperties::default()
                    })
                }),
            })
    }

    pub(crate) fn record() -> impl Strategy<Value = Record> {
        let client = || "\\PC{0,6}".prop_map(|client| Arc::<str>::from(client.as_str()));
        let ends = proptest::option::of(1i64..1 << 50);
        let options = (0u8..3, any::<bool>(), any::<bool>(), 0usize..3).prop_map(|(qos, no_local, kept, retained)| {
            let retained = [Retained::Always, Retained::IfNew, Retained::Never][retained];
            SubscribeOptions { qos, no_local, retain_as_published: kept, retained }
        });
        prop_oneof![
            (client(), any::<u32>(), ends).prop_map(|(client, expiry, ends)| Record::Session {
                client,
                expiry,
                ends: ends.map(|ends| Timestamp::from_microsecond(ends).unwrap()),
            }),
            client().prop_map(Record::Ended),
            (client(), "\\PC{1,9}", options)
                .prop_map(|(client, filter, options)| Record::Subscribed(client, filter, options)),
            (client(), "\\PC{1,9}").prop_map(|(client, filter)| Record::Unsubscribed(client, filter)),
            message().prop_map(|message| Record::Message(Arc::new(message))),
            (client(), any::<u64>(), 0u8..3, any::<bool>())
                .prop_map(|(client, sequence, qos, retain)| Record::Queued { client, sequence, qos, retain }),
            (client(), any::<u64>()).prop_map(|(client, sequence)| Record::Done(client, sequence)),
            (client(), any::<u64>()).prop_map(|(client, sequence)| Record::Taken(client, sequence)),
            Just(Record::Retained),
            "\\PC{0,9}".prop_map(Record::Removed),
            (client(), any::<u16>()).prop_map(|(client, packet)| Record::Received(client, packet)),
            (client(), any::<u16>()).prop_map(|(client, packet)| Record::Released(client, packet)),
            Just(Record::Complete),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in proptest::collection::vec(record(), 0..5)) {
            let mut bytes = vec![7];
            put_frame(&records, &mut bytes);
            let (read, length) = read_frame(&bytes[1..]).unwrap();
            prop_assert_eq!((read, length), (records, bytes.len() - 1));
        }

        // R8: any flipped byte is seen.
        #[test]
        fn a_flipped_byte_is_seen(records in proptest::collection::vec(record(), 1..3), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = Vec::new();
            put_frame(&records, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(read_frame(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>) {
            drop(read_frame(&bytes));
            bytes.insert(0, VERSION);
            drop(read_body(&bytes));
        }
    }
}
