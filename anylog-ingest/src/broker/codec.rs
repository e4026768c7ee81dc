//! MQTT packets on the wire, for protocol versions 3.1.1 (level 4) and 5.
//!
//! Packets with a body are read by rumqttc's packet codec. In front of it stands what a broker must check itself: the length of a
//! packet before its bytes are waited for, the reserved flags of the fixed header (MQTT-2.2.2-2), and the short forms of version
//! 5 (a DISCONNECT or an acknowledgement without reason and properties).

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::message::Message;

/// The largest packet that a client may send. Devices that send files use REST.
pub const MAX_PACKET_BYTES: usize = 16 * 1024 * 1024;

/// Publishes with QoS 1 and 2 that a version 5 client may have without acknowledgement.
pub(crate) const RECEIVE_MAXIMUM: u16 = 1024;

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    V4,
    /// 5.
    V5,
}

/// What is wrong with bytes that a client sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("a packet of {0} bytes is larger than this broker takes")]
    TooLarge(usize),
    #[error("malformed packet: {0}")]
    Malformed(String),
    #[error("protocol '{name}' level {level} is not spoken here")]
    Protocol { name: String, level: u8 },
    #[error("the first packet is not CONNECT")]
    NotConnect,
}

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Seconds; 0 for none.
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Message>,
    /// Seconds for which the will waits for the client to come back; version 5 only.
    pub(crate) will_delay: u32,
    /// Seconds for which the session is wanted after the connection; version 5 only.
    pub(crate) session_expiry: u32,
    /// Publishes that the client takes without having acknowledged them.
    pub(crate) receive_maximum: u16,
    /// Largest packet that the client takes.
    pub(crate) max_packet: Option<u32>,
}

/// A filter in a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) path: String,
    pub(crate) options: SubscribeOptions,
}

/// How a client wants the messages of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubscribeOptions {
    pub(crate) qos: u8,
    /// Not those that it published itself.
    pub(crate) no_local: bool,
    /// With the retain flag as published.
    pub(crate) retain_as_published: bool,
    pub(crate) retained: Retained,
}

/// When retained messages are sent for a new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Retained {
    #[default]
    Always,
    IfNew,
    Never,
}

/// A packet from a client, after CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Publish {
        message: Message,
        dup: bool,
        id: u16,
        alias: bool,
    },
    PubAck(u16),
    /// With whether the client took the message.
    PubRec(u16, bool),
    PubRel(u16),
    PubComp(u16),
    Subscribe {
        id: u16,
        filters: Vec<Filter>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    PingReq,
    /// `will`: the client asks for its will nevertheless.
    Disconnect {
        will: bool,
    },
}

/// A packet to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outgoing {
    ConnAck {
        session_present: bool,
        assigned_id: Option<String>,
        session_expiry: Option<u32>,
    },
    /// The connection is not accepted: the code for version 3.1.1, the code for version 5.
    Refuse(u8, u8),
    Publish {
        message: std::sync::Arc<Message>,
        qos: u8,
        retain: bool,
        dup: bool,
        id: u16,
    },
    PubAck(u16),
    PubRec(u16),
    /// With whether the packet id is known.
    PubRel(u16, bool),
    PubComp(u16, bool),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    /// Version 5 only: why the connection ends.
    Disconnect(u8),
}

/// Takes the next whole packet out of what was read; `None` when more bytes are needed.
pub(crate) fn frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, CodecError> {
    let mut length = 0usize;
    // The remaining length takes one to four bytes, seven bits each (2.2.3).
    for at in 0..4 {
        let Some(byte) = buffer.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + length;
            if whole > limit {
                return Err(CodecError::TooLarge(whole));
            }
            if buffer.len() < whole {
                // Trust grows with what was sent: no buffer of the announced size for a client that sent five bytes.
                buffer.reserve((whole - buffer.len()).min(64 * 1024));
                return Ok(None);
            }
            return Ok(Some(buffer.split_to(whole)));
        }
    }
    Err(malformed("remaining length"))
}

fn malformed(what: impl ToString) -> CodecError {
    CodecError::Malformed(what.to_string())
}

/// The body of a packet: what follows the fixed header.
fn body(frame: &BytesMut) -> &[u8] {
    let length_bytes = frame[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &frame[1 + length_bytes..]
}

/// Reads the first packet of a connection.
pub(crate) fn connect(mut frame: BytesMut) -> Result<Connect, CodecError> {
    if frame[0] >> 4 != 1 {
        return Err(CodecError::NotConnect);
    }
    if frame[0] & 0x0f != 0 {
        return Err(malformed("flags of CONNECT"));
    }
    let packet = body(&frame);
    let name_length = usize::from(u16::from_be_bytes([*packet.first().unwrap_or(&0), *packet.get(1).unwrap_or(&0)]));
    let name = packet.get(2..2 + name_length).ok_or_else(|| malformed("protocol name"))?;
    let level = *packet.get(2 + name_length).ok_or_else(|| malformed("protocol level"))?;
    let flags = *packet.get(3 + name_length).ok_or_else(|| malformed("connect flags"))?;
    if name != b"MQTT" || !(level == 4 || level == 5) {
        return Err(CodecError::Protocol { name: String::from_utf8_lossy(name).into_owned(), level });
    }
    if flags & 1 != 0 {
        // MQTT-3.1.2-3
        return Err(malformed("reserved connect flag"));
    }
    if level == 4 { connect_v4(&mut frame) } else { connect_v5(&mut frame) }
}

fn connect_v4(frame: &mut BytesMut) -> Result<Connect, CodecError> {
    let v4::Packet::Connect(packet) = v4::Packet::read(frame, MAX_PACKET_BYTES).map_err(malformed)? else {
        return Err(CodecError::NotConnect);
    };
    let will = packet.last_will.map(|will| Message {
        topic: will.topic,
        payload: Bytes::copy_from_slice(&will.message),
        qos: will.qos as u8,
        retain: will.retain,
        expires: None,
        properties: None,
    });
    Ok(Connect {
        version: Version::V4,
        client_id: packet.client_id,
        clean: packet.clean_session,
        keep_alive: packet.keep_alive,
        will,
        will_delay: 0,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        max_packet: None,
    })
}

fn connect_v5(frame: &mut BytesMut) -> Result<Connect, CodecError> {
    let packet = v5::Packet::read(frame, Some(limit())).map_err(malformed)?;
    let v5::Packet::Connect(packet, will, _) = packet else { return Err(CodecError::NotConnect) };
    let mut will_delay = 0;
    let will = will
        .map(|mut will| {
            let properties = will.properties.take();
            will_delay = properties.as_ref().and_then(|properties| properties.delay_interval).unwrap_or(0);
            Ok(Message {
                topic: text(&will.topic)?,
                payload: Bytes::copy_from_slice(&will.message),
                qos: will.qos as u8,
                retain: will.retain,
                expires: None,
                properties: properties.map(will_properties),
            })
        })
        .transpose()?;
    let properties = packet.properties;
    let of = |read: fn(&v5::ConnectProperties) -> Option<u32>| properties.as_ref().and_then(read);
    let receive_maximum = properties.as_ref().and_then(|p| p.receive_maximum);
    if receive_maximum == Some(0) || of(|p| p.max_packet_size) == Some(0) {
        // MQTT5 3.1.2.11.3, 3.1.2.11.4: zero is a protocol error.
        return Err(malformed("a property of CONNECT is zero"));
    }
    Ok(Connect {
        version: Version::V5,
        client_id: packet.client_id,
        clean: packet.clean_start,
        keep_alive: packet.keep_alive,
        will,
        will_delay,
        session_expiry: of(|p| p.session_expiry_interval).unwrap_or(0),
        receive_maximum: receive_maximum.unwrap_or(u16::MAX),
        max_packet: of(|p| p.max_packet_size),
    })
}

/// The properties of a will that go with it to its subscribers.
fn will_properties(properties: v5::LastWillProperties) -> Box<v5::PublishProperties> {
    Box::new(v5::PublishProperties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval: properties.message_expiry_interval,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
        user_properties: properties.user_properties,
        content_type: properties.content_type,
        ..v5::PublishProperties::default()
    })
}

fn limit() -> u32 {
    u32::try_from(MAX_PACKET_BYTES).unwrap_or(u32::MAX)
}

fn text(bytes: &[u8]) -> Result<String, CodecError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed("a topic is not UTF-8"))
}

/// Reads a packet after CONNECT.
pub(crate) fn decode(version: Version, mut frame: BytesMut) -> Result<Incoming, CodecError> {
    let (kind, flags) = (frame[0] >> 4, frame[0] & 0x0f);
    let expected = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != expected {
        return Err(malformed(format!("flags {flags:#x} of packet type {kind}")));
    }
    let rest = body(&frame);
    match kind {
        4 => Ok(Incoming::PubAck(packet_id(rest)?)),
        // In version 5 a reason from 0x80 on says that the message was refused.
        5 => Ok(Incoming::PubRec(packet_id(rest)?, rest.get(2).is_none_or(|reason| *reason < 0x80))),
        6 => Ok(Incoming::PubRel(packet_id(rest)?)),
        7 => Ok(Incoming::PubComp(packet_id(rest)?)),
        12 if rest.is_empty() => Ok(Incoming::PingReq),
        14 => Ok(Incoming::Disconnect { will: version == Version::V5 && rest.first() == Some(&4) }),
        3 | 8 | 10 => match version {
            Version::V4 => decode_v4(&mut frame),
            Version::V5 => decode_v5(&mut frame),
        },
        1 => Err(malformed("a second CONNECT")),
        _ => Err(malformed(format!("packet type {kind}"))),
    }
}

/// A packet id, which is never zero (MQTT-2.3.1-1).
fn packet_id(rest: &[u8]) -> Result<u16, CodecError> {
    match rest {
        [high, low, ..] if (*high, *low) != (0, 0) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(malformed("packet id")),
    }
}

fn non_zero(id: u16) -> Result<u16, CodecError> {
    if id == 0 { Err(malformed("packet id")) } else { Ok(id) }
}

fn decode_v4(frame: &mut BytesMut) -> Result<Incoming, CodecError> {
    match v4::Packet::read(frame, MAX_PACKET_BYTES).map_err(malformed)? {
        v4::Packet::Publish(packet) => Ok(Incoming::Publish {
            dup: packet.dup,
            id: packet.pkid,
            alias: false,
            message: Message {
                topic: packet.topic,
                // A slice of the read buffer would keep all of it alive.
                payload: Bytes::copy_from_slice(&packet.payload),
                qos: packet.qos as u8,
                retain: packet.retain,
                expires: None,
                properties: None,
            },
        }),
        v4::Packet::Subscribe(packet) => Ok(Incoming::Subscribe {
            id: non_zero(packet.pkid)?,
            filters: packet
                .filters
                .into_iter()
                .map(|filter| Filter {
                    path: filter.path,
                    options: SubscribeOptions { qos: filter.qos as u8, ..SubscribeOptions::default() },
                })
                .collect(),
        }),
        v4::Packet::Unsubscribe(packet) => {
            Ok(Incoming::Unsubscribe { id: non_zero(packet.pkid)?, filters: at_least_one(packet.topics)? })
        }
        _ => Err(malformed("packet type")),
    }
}

fn decode_v5(frame: &mut BytesMut) -> Result<Incoming, CodecError> {
    match v5::Packet::read(frame, Some(limit())).map_err(malformed)? {
        v5::Packet::Publish(packet) => {
            let mut properties = packet.properties;
            let mut alias = false;
            if let Some(properties) = &mut properties {
                alias = properties.topic_alias.take().is_some();
                // A client must not send one (MQTT5 3.3.2-6); a subscriber's own would stand here.
                properties.subscription_identifiers.clear();
            }
            Ok(Incoming::Publish {
                dup: packet.dup,
                id: packet.pkid,
                alias,
                message: Message {
                    topic: text(&packet.topic)?,
                    payload: Bytes::copy_from_slice(&packet.payload),
                    qos: packet.qos as u8,
                    retain: packet.retain,
                    expires: None,
                    properties: properties.map(Box::new),
                },
            })
        }
        v5::Packet::Subscribe(packet) => Ok(Incoming::Subscribe {
            id: non_zero(packet.pkid)?,
            filters: at_least_one(packet.filters.into_iter().map(filter_v5).collect())?,
        }),
        v5::Packet::Unsubscribe(packet) => {
            Ok(Incoming::Unsubscribe { id: non_zero(packet.pkid)?, filters: at_least_one(packet.filters)? })
        }
        _ => Err(malformed("packet type")),
    }
}

fn filter_v5(filter: v5::Filter) -> Filter {
    Filter {
        path: filter.path,
        options: SubscribeOptions {
            qos: filter.qos as u8,
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            retained: match filter.retain_forward_rule {
                v5::RetainForwardRule::OnEverySubscribe => Retained::Always,
                v5::RetainForwardRule::OnNewSubscribe => Retained::IfNew,
                v5::RetainForwardRule::Never => Retained::Never,
            },
        },
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE names at least one filter (MQTT-3.8.3-3, MQTT-3.10.3-2).
fn at_least_one<T>(list: Vec<T>) -> Result<Vec<T>, CodecError> {
    if list.is_empty() { Err(malformed("no filters")) } else { Ok(list) }
}

/// Appends a packet to what is to be sent. Returns false when the packet cannot be sent in this version.
pub(crate) fn encode(version: Version, packet: &Outgoing, out: &mut BytesMut) -> bool {
    let v5 = version == Version::V5;
    match packet {
        Outgoing::ConnAck { session_present, assigned_id, session_expiry } if v5 => {
            let properties = v5::ConnAckProperties {
                session_expiry_interval: *session_expiry,
                receive_max: Some(RECEIVE_MAXIMUM),
                max_packet_size: Some(limit()),
                assigned_client_identifier: assigned_id.clone(),
                // Not offered: 0.
                subscription_identifiers_available: Some(0),
                shared_subscription_available: Some(0),
                max_qos: None,
                retain_available: None,
                topic_alias_max: None,
                reason_string: None,
                user_properties: Vec::new(),
                wildcard_subscription_available: None,
                server_keep_alive: None,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            };
            let packet = v5::ConnAck {
                session_present: *session_present,
                code: v5::ConnectReturnCode::Success,
                properties: Some(properties),
            };
            return packet.write(out).is_ok();
        }
        Outgoing::ConnAck { session_present, .. } => out.put_slice(&[0x20, 2, u8::from(*session_present), 0]),
        Outgoing::Refuse(_, code) if v5 => out.put_slice(&[0x20, 3, 0, *code, 0]),
        Outgoing::Refuse(code, _) => out.put_slice(&[0x20, 2, 0, *code]),
        Outgoing::Publish { message, qos, retain, dup, id } => {
            return publish(v5, message, *qos, *retain, *dup, *id, out);
        }
        Outgoing::PubAck(id) => ack(0x40, *id, None, out),
        Outgoing::PubRec(id) => ack(0x50, *id, None, out),
        Outgoing::PubRel(id, known) => ack(0x62, *id, (v5 && !known).then_some(0x92), out),
        Outgoing::PubComp(id, known) => ack(0x70, *id, (v5 && !known).then_some(0x92), out),
        Outgoing::SubAck(id, codes) => list_ack(0x90, *id, v5, codes, out),
        Outgoing::UnsubAck(id, codes) if v5 => list_ack(0xb0, *id, true, codes, out),
        Outgoing::UnsubAck(id, _) => ack(0xb0, *id, None, out),
        Outgoing::PingResp => out.put_slice(&[0xd0, 0]),
        Outgoing::Disconnect(reason) if v5 => out.put_slice(&[0xe0, 2, *reason, 0]),
        // In version 3.1.1 only a client sends DISCONNECT.
        Outgoing::Disconnect(_) => return false,
    }
    true
}

fn ack(first: u8, id: u16, reason: Option<u8>, out: &mut BytesMut) {
    out.put_u8(first);
    out.put_u8(if reason.is_some() { 3 } else { 2 });
    out.put_u16(id);
    out.put_slice(reason.as_slice());
}

fn list_ack(first: u8, id: u16, v5: bool, codes: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    remaining_length(2 + usize::from(v5) + codes.len(), out);
    out.put_u16(id);
    if v5 {
        out.put_u8(0);
    }
    out.put_slice(codes);
}

fn remaining_length(mut length: usize, out: &mut BytesMut) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        out.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

fn publish(v5: bool, message: &Message, qos: u8, retain: bool, dup: bool, id: u16, out: &mut BytesMut) -> bool {
    if let Some(properties) = message.properties.as_deref().filter(|_| v5) {
        // Properties are passed on unaltered (MQTT5 3.3.2-4, -15 to -20).
        let packet = v5::Publish {
            dup,
            qos: rumqttc::v5::mqttbytes::qos(qos).unwrap_or_default(),
            retain,
            topic: Bytes::copy_from_slice(message.topic.as_bytes()),
            pkid: id,
            payload: message.payload.clone(),
            properties: Some(properties.clone()),
        };
        return packet.write(out).is_ok();
    }
    let Ok(topic_length) = u16::try_from(message.topic.len()) else { return false };
    out.put_u8(0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain));
    remaining_length(2 + message.topic.len() + usize::from(qos > 0) * 2 + usize::from(v5) + message.payload.len(), out);
    out.put_u16(topic_length);
    out.put_slice(message.topic.as_bytes());
    if qos > 0 {
        out.put_u16(id);
    }
    if v5 {
        out.put_u8(0);
    }
    out.put_slice(&message.payload);
    true
}

#[cfg(test)]
mod tests;
