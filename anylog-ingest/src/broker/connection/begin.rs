//! How a connection begins: its first packet, and what is made of it.

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Ended;
use crate::broker::codec::{self, CodecError, Connect, Outgoing, Version};

/// The first packet of a client that has not connected yet.
const MAX_CONNECT_BYTES: usize = 256 * 1024;

/// The longest client identifier: it is part of every record of its session.
const MAX_CLIENT_ID: usize = 1024;

pub(super) async fn first_packet(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Connect, Ended> {
    loop {
        if let Some(&first) = buffer.first()
            && first >> 4 != 1
        {
            return Err(CodecError::NotConnect.into());
        }
        if let Some(frame) = codec::frame(buffer, MAX_CONNECT_BYTES)? {
            return Ok(codec::connect(frame)?);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Ended::Closed);
        }
    }
}

pub(super) type Refusal = (Option<(Version, Outgoing)>, Ended);

/// Checks what a client asks for, and names one that has no name.
pub(super) fn accept(mut connect: Connect) -> Result<(Connect, Option<String>), Refusal> {
    if connect.will.as_ref().is_some_and(|will| !crate::topic::valid_topic(&will.topic)) {
        let ended = Ended::Violation(0x90, "the will's topic holds wildcards or is empty");
        return Err((Some((connect.version, Outgoing::Refuse(5, 0x90))), ended));
    }
    if connect.client_id.len() > MAX_CLIENT_ID {
        let ended = Ended::Violation(0x85, "a client id of more than 1024 bytes");
        return Err((Some((connect.version, Outgoing::Refuse(2, 0x85))), ended));
    }
    if !connect.client_id.is_empty() {
        return Ok((connect, None));
    }
    if connect.version == Version::V4 && !connect.clean {
        // MQTT-3.1.3-8
        let ended = Ended::Violation(0x85, "no client id, but a session that is to be kept");
        return Err((Some((connect.version, Outgoing::Refuse(2, 0x85))), ended));
    }
    let id = crate::broker::fresh_client_id();
    connect.client_id.clone_from(&id);
    Ok((connect, Some(id)))
}

/// What a client is told whose first packet was no good (MQTT-3.1.2-2).
pub(super) fn refusal(ended: &Ended) -> Option<(Version, Outgoing)> {
    match ended {
        Ended::Codec(CodecError::Protocol { level, .. }) => {
            let version = if *level > 4 { Version::V5 } else { Version::V4 };
            Some((version, Outgoing::Refuse(1, 0x84)))
        }
        _ => None,
    }
}
