//! Which protocol a connection speaks, told by its first bytes without taking them.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Protocol;

/// How long a connection may take to send the bytes that tell its protocol.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A known protocol.
    Known(Protocol),
    /// A TLS handshake, which no server offers yet.
    Tls,
    /// Nothing known.
    Unknown,
    /// More bytes are needed.
    Undecided,
}

/// The verdict over the first bytes.
pub(super) fn judge(bytes: &[u8]) -> Verdict {
    match bytes {
        [] => Verdict::Undecided,
        [0x10, ..] => Verdict::Known(Protocol::Mqtt),
        [0x16, ..] => Verdict::Tls,
        [b'P', b'R', b'I', b' ', ..] => Verdict::Known(Protocol::Grpc),
        // A method name: at least three capitals, then a blank or more of them.
        [a, b, c, d, ..] => {
            let method = [a, b, c].iter().all(|byte| byte.is_ascii_uppercase());
            if method && (d.is_ascii_uppercase() || *d == b' ') {
                Verdict::Known(Protocol::Http)
            } else {
                Verdict::Unknown
            }
        }
        short if short.iter().all(u8::is_ascii_uppercase) => Verdict::Undecided,
        _ => Verdict::Unknown,
    }
}

/// Looks at the first bytes until they tell the protocol, at most until the deadline.
pub(super) async fn look(stream: &TcpStream, deadline: Duration) -> io::Result<Verdict> {
    peek(stream, 4, deadline, |bytes| Some(judge(bytes)).filter(|verdict| *verdict != Verdict::Undecided)).await
}

/// Waits until so many bytes have come, without taking them, at most until the deadline.
pub(crate) async fn has_sent(stream: &TcpStream, count: usize, deadline: Duration) -> io::Result<()> {
    peek(stream, count, deadline, |bytes| (bytes.len() >= count).then_some(())).await
}

/// Looks at the first `count` bytes, or those of them that have come, until `found` finds what it looks for.
async fn peek<T>(
    stream: &TcpStream,
    count: usize,
    deadline: Duration,
    found: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let end = Instant::now() + deadline;
    let mut first = vec![0_u8; count];
    // A socket with some bytes stays readable, so a slow sender is looked at again after a pause that grows.
    let mut pause = Duration::from_millis(1);
    loop {
        let seen = tokio::time::timeout_at(end, stream.peek(&mut first)).await??;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(found) = found(&first[..seen]) {
            return Ok(found);
        }
        if Instant::now() + pause > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: &[(&[u8], Verdict)] = &[
            (b"", Verdict::Undecided),
            (b"G", Verdict::Undecided),
            (b"PRI", Verdict::Undecided),
            (b"PRI ", Verdict::Known(Protocol::Grpc)),
            (b"PRIV", Verdict::Known(Protocol::Http)),
            (b"GET ", Verdict::Known(Protocol::Http)),
            (b"PUT ", Verdict::Known(Protocol::Http)),
            (b"OPTI", Verdict::Known(Protocol::Http)),
            (b"GET/", Verdict::Unknown),
            (b"get ", Verdict::Unknown),
            (&[0x10], Verdict::Known(Protocol::Mqtt)),
            (&[0x10, 0x20, 0, 4], Verdict::Known(Protocol::Mqtt)),
            (&[0x16, 3, 1, 2], Verdict::Tls),
            (&[0, 0, 0, 0], Verdict::Unknown),
            (&[0xff], Verdict::Unknown),
        ];
        for (bytes, verdict) in cases {
            assert_eq!(judge(bytes), *verdict, "{bytes:?}");
        }
    }
}
