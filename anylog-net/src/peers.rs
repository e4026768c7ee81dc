//! The seam to other nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::reply::Chunks;
use anylog_core::{CommandError, Status};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::links::{Link, LinkHandler, unknown};
pub use crate::local::LocalPeers;

/// What a node asks of another. More questions may come; a node that does not know one refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerRequest {
    /// Run a command there.
    Command {
        /// The command's text.
        text: String,
    },
    /// Give the ledger, unless it is still this version.
    Ledger {
        /// The version that the asking node holds; empty when it holds none.
        known_version: String,
    },
    /// Give what is new in the ledger.
    LedgerChanges(LedgerQuestion),
    /// Say when the ledger changes. Only streamed: each piece means that there may be something new, some come to say that
    /// the node is alive. Silence longer than [`FOLLOW_SILENCE`] means that it is not.
    FollowLedger,
}

/// The longest time between two pieces of [`PeerRequest::FollowLedger`].
pub const FOLLOW_SILENCE: Duration = Duration::from_secs(15);

/// What a node that asks for [`PeerRequest::LedgerChanges`] holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerQuestion {
    /// The version of its copy; empty when it holds nothing.
    pub known_version: String,
    /// Digests of the parts of its copy, parted by id into as many parts as there are digests; none when it sends them only if
    /// the version is not known.
    pub digests: Vec<u64>,
    /// Whether it wants all policies, whatever it holds.
    pub whole: bool,
}

/// What is new in a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDifference {
    /// The version now.
    pub version: String,
    /// What the difference is to be put on.
    pub basis: LedgerBasis,
    /// Policies that are new or have new content, one JSON text each.
    pub policies: Vec<String>,
    /// Ids of policies that were deleted, each with the date of the deletion.
    pub deleted: Vec<(String, String)>,
}

/// What a [`LedgerDifference`] is to be put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerBasis {
    /// The version that the asking node named: policies are added or exchanged, deleted ones taken away.
    Known,
    /// These parts of the asking node's copy, which are exchanged whole.
    Parts(Vec<u32>),
    /// Nothing: the difference is the whole ledger.
    Whole,
    /// There is no difference yet: the version is not known, and the digests of the parts are needed.
    Unknown,
}

/// What another node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerReply {
    /// The text of a command's answer.
    Text(String),
    /// The ledger: its version, and the policies in order as JSON texts, or none when the version did not change.
    Ledger {
        /// The version now.
        version: String,
        /// The policies, one JSON text each.
        policies: Option<Vec<String>>,
    },
    /// What is new in the ledger.
    LedgerChanges(LedgerDifference),
}

/// Why another node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Nobody listens there, or the connection broke.
    #[error("node {address} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// The cause.
        reason: String,
    },
    /// It did not answer in time.
    #[error("node {address} did not answer within {} seconds", .after.as_secs())]
    TimeOut {
        /// Its address.
        address: String,
        /// The time that it was given.
        after: Duration,
    },
    /// It answered with an error.
    #[error("node {address} answered: {error}")]
    Refused {
        /// Its address.
        address: String,
        /// Its error.
        error: CommandError,
    },
}

impl From<PeerError> for CommandError {
    fn from(error: PeerError) -> Self {
        let status = match &error {
            PeerError::Unreachable { .. } => Status::REFUSED,
            PeerError::TimeOut { .. } => Status::TIME_OUT,
            PeerError::Refused { error, .. } => error.status,
        };
        let hint = match &error {
            PeerError::Refused { error, .. } => error.hint.clone(),
            _ => Some("check that the node runs and that its TCP server listens at this address".to_owned()),
        };
        let message = match &error {
            PeerError::Refused { address, error } => format!("node {address} answered: {}", error.message),
            other => other.to_string(),
        };
        CommandError { status, message, hint }
    }
}

/// How long a streamed answer may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDeadlines {
    /// From the question to the first piece, or to the end of an answer without pieces.
    pub first: Duration,
    /// From the moment at which the caller asks for a further piece to that piece, or to the end.
    pub next: Duration,
}

impl StreamDeadlines {
    /// The same time for each piece.
    #[must_use]
    pub fn each(deadline: Duration) -> Self {
        Self { first: deadline, next: deadline }
    }
}

/// The pieces of an answer in order, as they arrive. It ends after the last piece or after the first error. An answer of any
/// length takes bounded memory: the other node is held up while no piece is asked for. Dropping it cancels the work there.
pub type PeerStream = BoxStream<'static, Result<Bytes, PeerError>>;

/// The way to other nodes.
#[async_trait]
pub trait Peers: Send + Sync + std::fmt::Debug {
    /// Asks the node at `address` (`host:port` of its TCP server) and waits at most `deadline`.
    ///
    /// A command that began runs to its end, also when the caller gives up.
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError>;

    /// Asks a node for an answer of any length: the pieces of a command's reply as the command makes them.
    ///
    /// Returns with the first piece or the end of an empty answer at hand, so that an error before that is an error here and the
    /// question can be put to another node. The boundaries of pieces mean nothing. Dropping the future or the stream
    /// cancels the command, so this is for commands that read, and for [`PeerRequest::FollowLedger`].
    ///
    /// Ways to other nodes that hold only whole answers may leave this out: the answer then comes as one piece.
    ///
    /// # Errors
    /// What happened before the first piece; later errors end the stream.
    async fn stream(
        &self,
        address: &str,
        request: PeerRequest,
        deadlines: StreamDeadlines,
    ) -> Result<PeerStream, PeerError> {
        match self.call(address, request, deadlines.first).await? {
            PeerReply::Text(text) if text.is_empty() => Ok(stream::empty().boxed()),
            PeerReply::Text(text) => Ok(stream::iter([Ok(Bytes::from(text))]).boxed()),
            _ => Err(not_text(address)),
        }
    }

    /// Asks a node for a link of a purpose, and waits at most `deadline` until it is taken.
    ///
    /// # Errors
    /// Nobody listens there, nobody answers in time, or the node takes no link of this purpose. Ways to other nodes that carry no
    /// links refuse it.
    async fn link(&self, address: &str, purpose: &str, deadline: Duration) -> Result<Link, PeerError> {
        let _ = deadline;
        Err(PeerError::Refused { address: address.to_owned(), error: unknown(purpose) })
    }
}

/// What a node answers to others; implemented where the node is put together.
#[async_trait]
pub trait PeerService: Send + Sync {
    /// Answers one request from `from`.
    async fn answer(&self, from: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError>;

    /// Answers one request with pieces of any number. The future and the pieces are dropped when the caller gives up, and
    /// pieces are asked for only as fast as the caller takes them.
    async fn stream(&self, from: SocketAddr, request: PeerRequest) -> Result<Chunks, CommandError> {
        match self.answer(from, request).await? {
            PeerReply::Text(text) => Ok(stream::iter([Ok(Bytes::from(text))]).boxed()),
            _ => Err(CommandError::process("Only the answer of a command can be streamed")),
        }
    }

    /// Who serves a link of this purpose that `from` asks for.
    ///
    /// # Errors
    /// Why the link is not taken: the purpose is unknown here, or the caller may not ask for it.
    fn link(&self, from: SocketAddr, purpose: &str) -> Result<Arc<dyn LinkHandler>, CommandError> {
        let _ = from;
        Err(unknown(purpose))
    }
}

pub(crate) fn not_text(address: &str) -> PeerError {
    PeerError::Refused { address: address.to_owned(), error: CommandError::process("It answered another question") }
}

/// What another node is asked for, unless it takes longer than `deadline`.
///
/// # Errors
/// Of the question; [`PeerError::TimeOut`].
pub(crate) async fn within<T>(
    deadline: Duration,
    address: &str,
    asking: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    let late = |_| PeerError::TimeOut { address: address.to_owned(), after: deadline };
    tokio::time::timeout(deadline, asking).await.map_err(late)?
}

/// Asks for pieces and takes the first one, then gives all of them, each within its deadline. Empty pieces are left out.
///
/// # Errors
/// The first error when it comes before the first piece.
pub(crate) async fn begun(
    address: &str,
    asking: impl Future<Output = Result<PeerStream, PeerError>>,
    deadlines: StreamDeadlines,
) -> Result<PeerStream, PeerError> {
    let beginning = async {
        let is_full = |piece: &Result<Bytes, PeerError>| !matches!(piece, Ok(piece) if piece.is_empty());
        let mut pieces = asking.await?.filter(move |piece| std::future::ready(is_full(piece))).boxed();
        Ok((pieces.next().await.transpose()?, pieces))
    };
    let (first, pieces) = within(deadlines.first, address, beginning).await?;
    let Some(first) = first else { return Ok(stream::empty().boxed()) };
    let late = PeerError::TimeOut { address: address.to_owned(), after: deadlines.next };
    let rest = stream::unfold(Some(pieces), move |pieces| {
        let late = late.clone();
        async move {
            // After an error there is nothing to ask for.
            let mut pieces = pieces?;
            match tokio::time::timeout(deadlines.next, pieces.next()).await {
                Err(_) => Some((Err(late), None)),
                Ok(None) => None,
                Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
                Ok(Some(Err(error))) => Some((Err(error), None)),
            }
        }
    });
    Ok(stream::iter([Ok(first)]).chain(rest).boxed())
}
