//! How connections end.

use super::{CONNECT_DEADLINE, WRITE_DEADLINE};
use crate::broker::codec::CodecError;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::broker) enum Ended {
    #[error("the client disconnected")]
    Goodbye { will: bool },
    #[error("the connection was closed without DISCONNECT")]
    Closed,
    #[error("the client sent nothing for 1.5 times its keep-alive of {0} s")]
    Silent(u16),
    #[error("the client took nothing for {} s", WRITE_DEADLINE.as_secs())]
    Stuck,
    #[error("another connection took over its client id")]
    TakenOver,
    #[error("the broker stops")]
    Stopped,
    #[error("nobody takes the topic '{0}', and the start script of the node did not come to its end")]
    Early(String),
    #[error("{1}")]
    Violation(u8, &'static str),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no CONNECT within {} s", CONNECT_DEADLINE.as_secs())]
    NoConnect,
}

impl Ended {
    /// Whether the will of the client is published (MQTT-3.1.2-8): not after a DISCONNECT without that wish, and not because the
    /// broker itself stops.
    pub(super) fn publishes_will(&self) -> bool {
        !matches!(self, Ended::Goodbye { will: false } | Ended::Stopped)
    }

    /// The reason that a version 5 client is told.
    pub(super) fn reason(&self) -> Option<u8> {
        match self {
            Ended::Violation(reason, _) => Some(*reason),
            Ended::Codec(CodecError::TooLarge(_)) => Some(0x95),
            Ended::Codec(_) => Some(0x81),
            Ended::TakenOver => Some(0x8e),
            Ended::Stopped => Some(0x8b),
            // Implementation specific error.
            Ended::Early(_) => Some(0x83),
            Ended::Silent(_) => Some(0x8d),
            _ => None,
        }
    }

    /// Whether it is worth an entry in the error log.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Ended::Violation(..) | Ended::Codec(_) | Ended::NoConnect | Ended::Stuck | Ended::Early(_))
    }
}
