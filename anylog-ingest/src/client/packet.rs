//! Packets between this node, as a client, and another broker, for protocol versions 3.1.1 (level 4) and 5.
//!
//! CONNECT, SUBSCRIBE and PUBLISH go through rumqttc's packet codec. What a broker answers is read here, because the codec takes short
//! forms and codes that it does not know for errors, and here their meaning is what a person has to be told.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use crate::broker::codec::{CodecError, Version};

/// The largest packet that another broker may send.
pub(super) const MAX_PACKET_BYTES: usize = crate::broker::MAX_PACKET_BYTES;

/// Publishes with QoS 1 and 2 that a version 5 broker may send without acknowledgement. A broker of version 3.1.1 has a window of
/// its own, commonly 20.
pub const RECEIVE_MAXIMUM: u16 = 1024;

/// What the client says first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello<'h> {
    pub(super) client_id: &'h str,
    pub(super) login: Option<(&'h str, &'h str)>,
    /// Seconds.
    pub(super) keep_alive: u16,
}

/// A packet from a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The answer to CONNECT; `code` 0 for yes.
    ConnAck {
        session_present: bool,
        code: u8,
        /// Seconds that the broker wants instead of those that it was told.
        keep_alive: Option<u16>,
        reason: Option<String>,
    },
    Publish(Publish),
    PubRel(u16),
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    /// Version 5: the broker says why it goes.
    Disconnect {
        code: u8,
        reason: Option<String>,
    },
}

/// A message from a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// 0 with QoS 0.
    pub(super) id: u16,
}

impl Publish {
    /// About what it takes in memory.
    pub(super) fn cost(&self) -> usize {
        128 + self.topic.len() + self.payload.len()
    }
}

/// Which acknowledgement a packet id gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// PUBACK.
    Stored,
    /// PUBREC.
    Received,
    /// PUBCOMP.
    Complete,
}

/// Appends a CONNECT for a lasting session.
pub(super) fn connect(version: Version, hello: Hello<'_>, out: &mut BytesMut) -> Result<(), CodecError> {
    let client_id = hello.client_id.to_owned();
    match version {
        Version::V4 => {
            let mut packet = v4::Connect::new(client_id);
            packet.clean_session = false;
            packet.keep_alive = hello.keep_alive;
            if let Some((user, password)) = hello.login {
                packet.set_login(user, password);
            }
            packet.write(out).map_err(malformed)?;
        }
        Version::V5 => {
            let properties = v5::ConnectProperties {
                // Never, as in version 3.1.1.
                session_expiry_interval: Some(u32::MAX),
                receive_maximum: Some(RECEIVE_MAXIMUM),
                max_packet_size: u32::try_from(MAX_PACKET_BYTES).ok(),
                ..v5::ConnectProperties::new()
            };
            let packet = v5::Connect {
                keep_alive: hello.keep_alive,
                client_id,
                clean_start: false,
                properties: Some(properties),
            };
            let login = hello.login.map(|(user, password)| v5::Login::new(user, password));
            packet.write(&None, &login, out).map_err(malformed)?;
        }
    }
    Ok(())
}

/// Appends a SUBSCRIBE of filters with their QoS. In version 5 retained messages come for a new subscription only, not each time
/// that it is confirmed.
pub(super) fn subscribe(
    version: Version,
    id: u16,
    filters: &[(&str, u8)],
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    match version {
        Version::V4 => {
            let filters = filters.iter().map(|(path, qos)| {
                let qos = rumqttc::mqttbytes::qos(*qos).unwrap_or(rumqttc::QoS::AtLeastOnce);
                v4::SubscribeFilter::new((*path).to_owned(), qos)
            });
            let mut packet = v4::Subscribe::new_many(filters);
            packet.pkid = id;
            packet.write(out).map_err(malformed)?;
        }
        Version::V5 => {
            let filters = filters.iter().map(|(path, qos)| {
                let qos = rumqttc::v5::mqttbytes::qos(*qos).unwrap_or(rumqttc::v5::mqttbytes::QoS::AtLeastOnce);
                let mut filter = v5::Filter::new((*path).to_owned(), qos);
                filter.retain_forward_rule = v5::RetainForwardRule::OnNewSubscribe;
                filter
            });
            let mut packet = v5::Subscribe::new_many(filters, None);
            packet.pkid = id;
            packet.write(out).map_err(malformed)?;
        }
    }
    Ok(())
}

/// Appends an acknowledgement.
pub(super) fn acknowledge(ack: Ack, id: u16, out: &mut BytesMut) {
    out.put_u8(match ack {
        Ack::Stored => 0x40,
        Ack::Received => 0x50,
        Ack::Complete => 0x70,
    });
    out.put_u8(2);
    out.put_u16(id);
}

/// Appends a PINGREQ.
pub(super) fn ping(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// Appends a DISCONNECT; the session stays.
pub(super) fn disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

/// Reads one whole packet.
pub(super) fn decode(version: Version, frame: BytesMut) -> Result<Incoming, CodecError> {
    let rest = body(&frame);
    match frame[0] {
        0x20 => connack(rest),
        first if first >> 4 == 3 => publish(version, frame),
        0x62 => Ok(Incoming::PubRel(packet_id(rest)?)),
        0x90 => suback(version, rest),
        0xd0 => Ok(Incoming::PingResp),
        0xe0 if version == Version::V5 => {
            let code = rest.first().copied().unwrap_or(0);
            let reason = properties(rest.get(1..).unwrap_or_default()).map(|properties| properties.reason);
            Ok(Incoming::Disconnect { code, reason: reason.unwrap_or_default() })
        }
        first => Err(malformed(format!("first byte {first:#04x} from a broker"))),
    }
}

fn malformed(what: impl ToString) -> CodecError {
    CodecError::Malformed(what.to_string())
}

/// What follows the fixed header.
fn body(frame: &[u8]) -> &[u8] {
    let length_bytes = frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    frame.get(1 + length_bytes..).unwrap_or_default()
}

fn packet_id(rest: &[u8]) -> Result<u16, CodecError> {
    match rest {
        [high, low, ..] if (*high, *low) != (0, 0) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(malformed("packet id")),
    }
}

fn connack(rest: &[u8]) -> Result<Incoming, CodecError> {
    let [flags, code, rest @ ..] = rest else { return Err(malformed("CONNACK")) };
    // A broker that speaks only 3.1.1 answers in its own form, without properties.
    let properties = if rest.is_empty() { Properties::default() } else { properties(rest)? };
    Ok(Incoming::ConnAck {
        session_present: flags & 1 == 1,
        code: *code,
        keep_alive: properties.keep_alive,
        reason: properties.reason,
    })
}

fn suback(version: Version, rest: &[u8]) -> Result<Incoming, CodecError> {
    let id = packet_id(rest)?;
    let mut codes = &rest[2..];
    if version == Version::V5 {
        let (length, used) = variable_length(codes)?;
        codes = codes.get(used + length..).ok_or_else(|| malformed("properties"))?;
    }
    Ok(Incoming::SubAck { id, codes: codes.to_vec() })
}

fn publish(version: Version, mut frame: BytesMut) -> Result<Incoming, CodecError> {
    let publish = match version {
        Version::V4 => {
            let v4::Packet::Publish(packet) = v4::Packet::read(&mut frame, MAX_PACKET_BYTES).map_err(malformed)? else {
                return Err(malformed("PUBLISH"));
            };
            Publish {
                topic: packet.topic,
                // A slice of the read buffer would keep all of it alive.
                payload: Bytes::copy_from_slice(&packet.payload),
                qos: packet.qos as u8,
                retain: packet.retain,
                dup: packet.dup,
                id: packet.pkid,
            }
        }
        Version::V5 => {
            let v5::Packet::Publish(packet) = v5::Packet::read(&mut frame, None).map_err(malformed)? else {
                return Err(malformed("PUBLISH"));
            };
            if packet.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some()) {
                // None was allowed in CONNECT (MQTT5 3.3.2.3.4).
                return Err(malformed("a topic alias that was not allowed"));
            }
            Publish {
                topic: std::str::from_utf8(&packet.topic).map_err(|_| malformed("a topic is not UTF-8"))?.to_owned(),
                payload: Bytes::copy_from_slice(&packet.payload),
                qos: packet.qos as u8,
                retain: packet.retain,
                dup: packet.dup,
                id: packet.pkid,
            }
        }
    };
    if publish.qos > 0 && publish.id == 0 {
        return Err(malformed("packet id"));
    }
    Ok(Incoming::Publish(publish))
}

/// The properties of version 5 that a client acts on or passes on to a person.
#[derive(Debug, Default)]
struct Properties {
    keep_alive: Option<u16>,
    reason: Option<String>,
}

fn variable_length(bytes: &[u8]) -> Result<(usize, usize), CodecError> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((length, at + 1));
        }
    }
    Err(malformed("a length"))
}

/// Reads properties, the length of which stands in front (MQTT5 2.2.2).
fn properties(bytes: &[u8]) -> Result<Properties, CodecError> {
    let mut found = Properties::default();
    if bytes.is_empty() {
        return Ok(found);
    }
    let short = || malformed("properties");
    let (length, used) = variable_length(bytes)?;
    let mut rest = bytes.get(used..used + length).ok_or_else(short)?;
    while let [kind, value @ ..] = rest {
        let text = |at: usize| -> Result<usize, CodecError> {
            let length = value.get(at..at + 2).ok_or_else(short)?;
            Ok(at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])))
        };
        let size = match kind {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => 1,
            0x13 | 0x21..=0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x0b => variable_length(value)?.1,
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text(0)?,
            0x26 => text(text(0)?)?,
            _ => return Err(malformed(format!("property {kind:#04x}"))),
        };
        let (value, next) = value.split_at_checked(size).ok_or_else(short)?;
        match (kind, value) {
            (0x13, [high, low]) => found.keep_alive = Some(u16::from_be_bytes([*high, *low])),
            (0x1f, [_, _, text @ ..]) => found.reason = Some(String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
        rest = next;
    }
    Ok(found)
}

/// What a code of CONNACK means, and what to do.
pub(super) fn refusal(version: Version, code: u8) -> String {
    let text = match (version, code) {
        (Version::V4, 1) | (_, 0x84) => "it does not speak MQTT 3.1.1 or 5",
        (Version::V4, 2) | (_, 0x85) => "it does not take the client id; name another with client_id",
        (Version::V4, 3) | (_, 0x88) => "it is not available at the moment",
        (Version::V4, 4) | (_, 0x86) => "user or password is wrong",
        (Version::V4, 5) | (_, 0x87) => "user and password do not permit a connection",
        (_, 0x89) => "it is busy",
        (_, 0x8a) => "this client is banned",
        (_, 0x8c) => "it wants another kind of login",
        (_, 0x97) => "a quota is used up",
        (_, 0x9c | 0x9d) => "it wants another server to be used",
        (_, 0x9f) => "too many connections in a short time",
        _ => return format!("the broker refused the connection with code {code:#04x}"),
    };
    format!("the broker refused the connection: {text} (code {code:#04x})")
}

/// Whether a refusal is about the state of the broker, and not about the client.
pub(super) fn is_passing(version: Version, code: u8) -> bool {
    matches!((version, code), (Version::V4, 3) | (_, 0x88 | 0x89 | 0x97 | 0x9f))
}

/// What a code of DISCONNECT means.
pub(super) fn farewell(code: u8) -> String {
    let text = match code {
        0x00 => "the broker ended the connection",
        0x81 | 0x82 => "the broker says that this client broke the protocol",
        0x87 => "the broker says that this client has no permission",
        0x89 => "the broker is busy",
        0x8b => "the broker shuts down",
        0x8d => "the broker heard nothing in time",
        0x8e => "another connection took over the client id; two clients must not have the same one",
        0x93 => "the broker says that too much is unacknowledged",
        0x95 => "the broker says that a packet is too large",
        0x97 => "a quota of the broker is used up",
        0x98 => "the broker's administration ended the connection",
        0x9c | 0x9d => "the broker wants another server to be used",
        _ => return format!("the broker ended the connection with code {code:#04x}"),
    };
    format!("{text} (code {code:#04x})")
}

/// What a code of SUBACK from 0x80 on means.
pub(super) fn refused_filter(code: u8) -> &'static str {
    match code {
        0x87 => "no permission",
        0x8f => "not a filter to the broker",
        0x97 => "a quota of the broker is used up",
        0x9e => "the broker has no shared subscriptions",
        0xa2 => "the broker has no wildcards",
        _ => "no reason given",
    }
}

#[cfg(test)]
mod tests;
