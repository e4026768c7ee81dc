//! The asking side: one connection per peer, kept and watched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::proto::node_client::NodeClient;
use super::proto::{
    ExecuteRequest, FollowLedgerRequest, LedgerChangesRequest, LedgerRequest, execute_reply, ledger_changes_reply,
    ledger_reply, stream_reply,
};
use super::{ANSWER_BYTES, MESSAGE_BYTES, Patience};
use crate::links::Link;
use crate::peers::{PeerError, PeerReply, PeerRequest, PeerStream, Peers, StreamDeadlines, begun, within};

/// Peers whose connections are kept; the one unused for longest leaves first.
const POOL_SIZE: usize = 256;

/// Pause after a peer could not be reached; doubles with each failure up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks other nodes over gRPC. Connections are opened on demand, shared by all callers, reopened after a failure.
///
/// After a failure further calls to the same peer wait out a growing pause, at most for half of their own time, so that a peer
/// that is down costs little and each call can still tell why it failed. After an answer that did not come in time the next call
/// opens a new connection: the old one may lead nowhere, which TCP notices late or never.
#[derive(Debug)]
pub struct GrpcPeers {
    pool: Arc<Pool>,
}

/// The connections.
#[derive(Debug)]
struct Pool {
    peers: Mutex<HashMap<String, Pooled>>,
    patience: Patience,
    linking: Patience,
}

#[derive(Debug)]
struct Pooled {
    client: NodeClient<Channel>,
    used: Instant,
    failures: u32,
    pause_until: Option<Instant>,
}

impl GrpcPeers {
    /// A pool without connections.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Patience::ASKING, Patience::LINKING)
    }

    /// The same with times of its own, for networks that are slower or faster than most.
    #[must_use]
    pub fn with_patience(patience: Patience) -> Arc<Self> {
        Self::with(patience, patience)
    }

    fn with(patience: Patience, linking: Patience) -> Arc<Self> {
        Arc::new(Self { pool: Arc::new(Pool { peers: Mutex::default(), patience, linking }) })
    }

    /// Number of peers whose connections are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pool.peers.lock().len()
    }

    /// True when no connection is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pool {
    /// The client of a peer, and until when its last failure asks to wait.
    fn client(&self, address: &str) -> Result<(NodeClient<Channel>, Option<Instant>), PeerError> {
        let mut peers = self.peers.lock();
        if let Some(pooled) = peers.get_mut(address) {
            pooled.used = Instant::now();
            return Ok((pooled.client.clone(), pooled.pause_until));
        }
        let client = open(address, self.patience)?;
        if peers.len() >= POOL_SIZE
            && let Some(oldest) = peers.iter().min_by_key(|(_, pooled)| pooled.used).map(|(address, _)| address.clone())
        {
            peers.remove(&oldest);
        }
        let pooled = Pooled { client: client.clone(), used: Instant::now(), failures: 0, pause_until: None };
        peers.insert(address.to_owned(), pooled);
        Ok((client, None))
    }

    /// Remembers how a call ended.
    fn note<T>(&self, address: &str, outcome: &Result<T, PeerError>) {
        let mut peers = self.peers.lock();
        let Some(pooled) = peers.get_mut(address) else { return };
        match outcome {
            // Calls that are under way keep the old connection, until its keep-alive finds out.
            Err(PeerError::TimeOut { .. }) => match open(address, self.patience) {
                Ok(client) => pooled.client = client,
                Err(error) => tracing::debug!(%error, "No new connection"),
            },
            Err(PeerError::Unreachable { .. }) => {
                pooled.failures = pooled.failures.saturating_add(1);
                let pause = FIRST_PAUSE.saturating_mul(1 << pooled.failures.min(10)).min(LONGEST_PAUSE);
                pooled.pause_until = Some(Instant::now() + pause);
            }
            _ => (pooled.failures, pooled.pause_until) = (0, None),
        }
    }
}

/// Waits for the end of a pause, and leaves half of `deadline` for the call itself.
async fn pause(until: Option<Instant>, deadline: Duration) {
    if let Some(until) = until {
        // A deadline may be longer than clocks can count.
        let latest = Instant::now().checked_add(deadline / 2);
        tokio::time::sleep_until(latest.map_or(until, |latest| until.min(latest))).await;
    }
}

#[async_trait]
impl Peers for GrpcPeers {
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError> {
        let (client, pause_until) = self.pool.client(address)?;
        let asking = async {
            pause(pause_until, deadline).await;
            ask(client, request).await.map_err(|failure| failure.at(address, deadline))
        };
        let outcome = within(deadline, address, asking).await;
        self.pool.note(address, &outcome);
        outcome
    }

    async fn stream(
        &self,
        address: &str,
        request: PeerRequest,
        deadlines: StreamDeadlines,
    ) -> Result<PeerStream, PeerError> {
        let (client, pause_until) = self.pool.client(address)?;
        let asking = async {
            pause(pause_until, deadlines.first).await;
            pieces(client, request, address, deadlines).await
        };
        let outcome = begun(address, asking, deadlines).await;
        self.pool.note(address, &outcome);
        let (pool, address) = (Arc::clone(&self.pool), address.to_owned());
        let noted = move |piece: &Result<Bytes, PeerError>| {
            if piece.is_err() {
                pool.note(&address, piece);
            }
        };
        outcome.map(|pieces| pieces.inspect(noted).boxed())
    }

    async fn link(&self, address: &str, purpose: &str, deadline: Duration) -> Result<Link, PeerError> {
        super::link::dial(address, purpose, deadline, self.pool.linking).await
    }
}

fn not_streamed() -> CommandError {
    CommandError::process("Only the answer of a command can be streamed")
}

/// Asks, and gives the pieces of the answer.
async fn pieces(
    mut client: NodeClient<Channel>,
    request: PeerRequest,
    address: &str,
    deadlines: StreamDeadlines,
) -> Result<PeerStream, PeerError> {
    let address = address.to_owned();
    let replies = match request {
        PeerRequest::Command { text } => client.stream(Request::new(ExecuteRequest { command: text })).await,
        PeerRequest::FollowLedger => client.follow_ledger(Request::new(FollowLedgerRequest {})).await,
        _ => return Err(PeerError::Refused { address, error: not_streamed() }),
    };
    let replies = replies.map_err(|status| Failure::Transport(status).at(&address, deadlines.first))?.into_inner();
    let pieces = replies.map(move |reply| match reply {
        Ok(reply) => match reply.piece {
            Some(stream_reply::Piece::Data(data)) => Ok(data),
            Some(stream_reply::Piece::Failure(failure)) => {
                Err(PeerError::Refused { address: address.clone(), error: failure.into() })
            }
            None => Ok(Bytes::new()),
        },
        Err(status) => Err(Failure::Transport(status).at(&address, deadlines.next)),
    });
    Ok(pieces.boxed())
}

pub(super) fn open(address: &str, patience: Patience) -> Result<NodeClient<Channel>, PeerError> {
    Ok(client(endpoint(address, patience)?.connect_lazy()))
}

pub(super) fn client(channel: Channel) -> NodeClient<Channel> {
    NodeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES)
}

/// Where a peer is, and how its connection is watched.
pub(super) fn endpoint(address: &str, patience: Patience) -> Result<Endpoint, PeerError> {
    let unreachable = |reason: String| PeerError::Unreachable { address: address.to_owned(), reason };
    let well_formed =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !well_formed {
        return Err(unreachable("the address is not host:port".into()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| unreachable(error.to_string()))?
        .connect_timeout(patience.open)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(patience.silence)
        .keep_alive_timeout(patience.answer)
        .keep_alive_while_idle(false);
    Ok(endpoint)
}

/// Why a question got no answer, before the address is known.
pub(super) enum Failure {
    Transport(Status),
    Command(CommandError),
}

impl Failure {
    pub(super) fn at(self, address: &str, deadline: Duration) -> PeerError {
        let address = address.to_owned();
        match self {
            Failure::Command(error) => PeerError::Refused { address, error },
            Failure::Transport(status) => match status.code() {
                Code::DeadlineExceeded => PeerError::TimeOut { address, after: deadline },
                Code::Internal | Code::ResourceExhausted | Code::OutOfRange | Code::InvalidArgument => {
                    PeerError::Refused { address, error: CommandError::process(status.message()) }
                }
                _ => PeerError::Unreachable { address, reason: cause(&status) },
            },
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Transport(status)
    }
}

/// The innermost cause: "Connection refused" says more than "transport error".
fn cause(status: &Status) -> String {
    let mut innermost: &dyn std::error::Error = status;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::addr_eq(innermost, status) { status.message().to_owned() } else { innermost.to_string() }
}

async fn ask(mut client: NodeClient<Channel>, request: PeerRequest) -> Result<PeerReply, Failure> {
    match request {
        PeerRequest::Command { text } => {
            let mut pieces = client.execute(Request::new(ExecuteRequest { command: text })).await?.into_inner();
            let mut answer = String::new();
            while let Some(reply) = pieces.message().await? {
                match reply.piece {
                    Some(execute_reply::Piece::Text(text)) => answer.push_str(&text),
                    Some(execute_reply::Piece::Failure(failure)) => return Err(Failure::Command(failure.into())),
                    None => {}
                }
                if answer.len() > ANSWER_BYTES {
                    return Err(Failure::Command(too_long()));
                }
            }
            Ok(PeerReply::Text(answer))
        }
        PeerRequest::Ledger { known_version } => {
            let reply = client.ledger(Request::new(LedgerRequest { known_version })).await?.into_inner();
            match reply.outcome {
                Some(ledger_reply::Outcome::Ledger(ledger)) => Ok(PeerReply::Ledger {
                    version: ledger.version,
                    policies: ledger.changed.then_some(ledger.policies),
                }),
                Some(ledger_reply::Outcome::Failure(failure)) => Err(Failure::Command(failure.into())),
                None => Err(Failure::Command(CommandError::process("The node answered without a ledger"))),
            }
        }
        PeerRequest::LedgerChanges(question) => {
            let request = LedgerChangesRequest::from(question);
            match client.ledger_changes(Request::new(request)).await?.into_inner().outcome {
                Some(ledger_changes_reply::Outcome::Difference(difference)) => {
                    Ok(PeerReply::LedgerChanges(difference.try_into().map_err(Failure::Command)?))
                }
                Some(ledger_changes_reply::Outcome::Failure(failure)) => Err(Failure::Command(failure.into())),
                None => Err(Failure::Command(CommandError::process("The node answered without a difference"))),
            }
        }
        PeerRequest::FollowLedger => {
            Err(Failure::Command(CommandError::process("The ledger is followed by a stream only")))
        }
    }
}

fn too_long() -> CommandError {
    CommandError::new(
        anylog_core::Status::VOLUME_EXCEEDED,
        format!("The answer is longer than {} MB", ANSWER_BYTES / 1024 / 1024),
    )
    .hint("ask for less, for example with a limit")
}
