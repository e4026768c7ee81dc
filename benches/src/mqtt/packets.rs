//! Packets as bytes.

/// First byte of a packet with its fixed flags.
pub mod kind {
    /// CONNACK.
    pub const CONNACK: u8 = 0x20;
    /// PUBLISH at QoS 1 without flags.
    pub const PUBLISH: u8 = 0x30;
    /// PUBACK.
    pub const PUBACK: u8 = 0x40;
    /// PUBREC.
    pub const PUBREC: u8 = 0x50;
    /// PUBREL.
    pub const PUBREL: u8 = 0x62;
    /// PUBCOMP.
    pub const PUBCOMP: u8 = 0x70;
    /// SUBACK.
    pub const SUBACK: u8 = 0x90;
    /// PINGREQ.
    pub const PINGREQ: u8 = 0xc0;
    /// PINGRESP.
    pub const PINGRESP: u8 = 0xd0;
}

/// Appends a CONNECT with a clean session and no keep-alive.
pub fn connect(out: &mut Vec<u8>, client: &str) {
    out.push(0x10);
    length(out, 10 + 2 + client.len());
    out.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00");
    string(out, client);
}

/// Appends a SUBSCRIBE of one filter.
pub fn subscribe(out: &mut Vec<u8>, filter: &str, qos: u8) {
    out.push(0x82);
    length(out, 2 + 2 + filter.len() + 1);
    out.extend_from_slice(&[0, 1]);
    string(out, filter);
    out.push(qos);
}

/// Appends a PUBACK, PUBREL or the like: a packet of a packet id alone.
pub fn short(out: &mut Vec<u8>, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

/// Appends the head of a PUBLISH; the payload of `payload` bytes is to follow.
pub fn publish(out: &mut Vec<u8>, topic: &str, qos: u8, id: u16, payload: usize) {
    out.push(kind::PUBLISH | qos << 1);
    length(out, 2 + topic.len() + if qos > 0 { 2 } else { 0 } + payload);
    string(out, topic);
    if qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// What matters of a received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Its first byte: type and flags.
    pub first: u8,
    /// The packet id, of a PUBLISH with QoS too; the return code of a CONNACK; zero where there is none.
    pub id: u16,
}

/// The first packet of a buffer and the bytes that it takes; `None` while it is not there as a whole.
#[must_use]
pub fn next(buffer: &[u8]) -> Option<(Packet, usize)> {
    let first = *buffer.first()?;
    let mut length = 0;
    let mut at = 1;
    loop {
        let byte = *buffer.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let body = buffer.get(at..at + length)?;
    let word = |at: usize| body.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let id = match first & 0xf0 {
        kind::PUBLISH if first & 0x06 == 0 => 0,
        kind::PUBLISH => word(2 + usize::from(word(0))),
        _ => word(0),
    };
    Some((Packet { first, id }, at + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_were_written() {
        let mut out = Vec::new();
        publish(&mut out, "a/b", 1, 700, 200);
        out.resize(out.len() + 200, b'x');
        short(&mut out, kind::PUBREL, 9);
        publish(&mut out, "a", 0, 5, 0);
        let (packet, taken) = next(&out).expect("whole");
        assert_eq!((packet, taken), (Packet { first: 0x32, id: 700 }, 1 + 2 + 5 + 2 + 200));
        let rest = &out[taken..];
        assert_eq!(next(rest), Some((Packet { first: kind::PUBREL, id: 9 }, 4)));
        assert_eq!(next(&rest[4..]), Some((Packet { first: kind::PUBLISH, id: 0 }, 5)));
        for cut in 0..taken {
            assert_eq!(next(&out[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn connect_and_subscribe_have_the_bytes_of_the_standard() {
        let mut out = Vec::new();
        connect(&mut out, "c");
        assert_eq!(out, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c");
        out.clear();
        subscribe(&mut out, "t", 1);
        assert_eq!(out, b"\x82\x06\x00\x01\x00\x01t\x01");
    }
}
