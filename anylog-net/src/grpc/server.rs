//! The answering side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use anylog_core::reply::Chunks;
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

use super::proto::node_server::{Node, NodeServer};
use super::proto::{
    ExecuteReply, ExecuteRequest, FollowLedgerRequest, Ledger, LedgerChangesReply, LedgerChangesRequest, LedgerReply,
    LedgerRequest, LinkFrame, StreamReply, execute_reply, ledger_changes_reply, ledger_reply, stream_reply,
};
use super::{MESSAGE_BYTES, PIECE_BYTES, Patience, link};
use crate::listener::{ConnectionHandler, has_sent};
use crate::peers::{PeerReply, PeerRequest, PeerService};

/// The bytes that an HTTP/2 connection begins with.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Requests at work at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 128;

/// Requests at work at once, from all peers together; further ones are refused and may come again.
const MOST_AT_WORK: usize = 256;

/// How long a caller may leave a piece of a streamed answer untaken before the work for it is given up.
const STALLED: Duration = Duration::from_secs(120);

/// Pieces of a streamed answer that wait for the caller.
const PIECES_AHEAD: usize = 4;

/// Nodes that are told of changes of the ledger at once.
const MOST_FOLLOWERS: usize = 4096;

/// Links that are served at once.
const MOST_LINKS: usize = 512;

/// Serves `service` over gRPC to the connections of a listener.
#[must_use]
pub fn node_service(service: Arc<dyn PeerService>) -> Arc<dyn ConnectionHandler> {
    node_service_with(service, Patience::ANSWERING)
}

/// The same with times of its own, for links that are slower or faster than most.
#[must_use]
pub fn node_service_with(service: Arc<dyn PeerService>, patience: Patience) -> Arc<dyn ConnectionHandler> {
    let node = NodeServer::new(Answering {
        service,
        places: Arc::new(Semaphore::new(MOST_AT_WORK)),
        followers: Arc::new(Semaphore::new(MOST_FOLLOWERS)),
        links: Arc::new(Semaphore::new(MOST_LINKS)),
        patience,
    })
    .max_decoding_message_size(MESSAGE_BYTES)
    .max_encoding_message_size(MESSAGE_BYTES);
    Arc::new(GrpcHandler { router: tonic::service::Routes::new(node).prepare().into_axum_router(), patience })
}

struct GrpcHandler {
    router: axum::Router,
    patience: Patience,
}

/// The address a request came from, put beside it by the connection.
#[derive(Clone, Copy)]
struct From(SocketAddr);

/// Ends what would otherwise never end when the server stops.
#[derive(Clone)]
struct Stop(CancellationToken);

#[async_trait]
impl ConnectionHandler for GrpcHandler {
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        // Keep-alives begin with the connection's preface, so that has a deadline of its own.
        let begun = tokio::select! {
            begun = has_sent(&stream, PREFACE, self.patience.open) => begun,
            () = stop.cancelled() => return,
        };
        if let Err(error) = begun {
            tracing::debug!(%error, %peer, "A peer connection ended before it began");
            return;
        }
        let asked_to_stop = stop.clone();
        let service = self.router.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(From(peer));
            request.extensions_mut().insert(Stop(asked_to_stop.clone()));
            request
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.patience.silence)
            .keep_alive_timeout(self.patience.answer)
            .max_concurrent_streams(STREAMS_PER_CONNECTION);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "A peer connection ended with an error");
        }
    }
}

struct Answering {
    service: Arc<dyn PeerService>,
    places: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    links: Arc<Semaphore>,
    patience: Patience,
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, CommandError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        CommandError::new(anylog_core::Status::OVERLOADED, "The node works on too many requests of peers")
            .hint("send the same request again later")
    })
}

impl Answering {
    /// Answers in a task of its own: a caller that goes away does not stop a command half-way.
    async fn answer(&self, from: SocketAddr, request: PeerRequest) -> Result<Result<PeerReply, CommandError>, Status> {
        let place = match place(&self.places) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let service = Arc::clone(&self.service);
        let work = async move {
            let _place = place;
            service.answer(from, request).await
        };
        tokio::spawn(work).await.map_err(|error| Status::internal(format!("The command ended abnormally: {error}")))
    }
}

fn caller<T>(request: &Request<T>) -> Result<SocketAddr, Status> {
    let from = request.extensions().get::<From>();
    from.map(|from| from.0).ok_or_else(|| Status::internal("The caller's address is unknown"))
}

fn unexpected() -> Status {
    Status::internal("The node answered another question")
}

#[async_trait]
impl Node for Answering {
    type ExecuteStream = BoxStream<'static, Result<ExecuteReply, Status>>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let from = caller(&request)?;
        let command = PeerRequest::Command { text: request.into_inner().command };
        let pieces = match self.answer(from, command).await? {
            Ok(PeerReply::Text(text)) => pieces(&text).into_iter().map(execute_reply::Piece::Text).collect(),
            Ok(_) => return Err(unexpected()),
            Err(error) => vec![execute_reply::Piece::Failure(error.into())],
        };
        let replies = pieces.into_iter().map(|piece| Ok(ExecuteReply { piece: Some(piece) }));
        Ok(Response::new(stream::iter(replies).boxed()))
    }

    type StreamStream = BoxStream<'static, Result<StreamReply, Status>>;

    async fn stream(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let from = caller(&request)?;
        let command = PeerRequest::Command { text: request.into_inner().command };
        // Not in a task of its own: when the caller goes away this future is dropped, and the command with it.
        let begun = match place(&self.places) {
            Ok(place) => self.service.stream(from, command).await.map(|chunks| (place, chunks)),
            Err(error) => Err(error),
        };
        Ok(Response::new(streamed(begun, None)))
    }

    type FollowLedgerStream = BoxStream<'static, Result<StreamReply, Status>>;

    async fn follow_ledger(
        &self,
        request: Request<FollowLedgerRequest>,
    ) -> Result<Response<Self::FollowLedgerStream>, Status> {
        let from = caller(&request)?;
        let stop = request.extensions().get::<Stop>().map(|stop| stop.0.clone());
        let begun = match place(&self.followers) {
            Ok(place) => self.service.stream(from, PeerRequest::FollowLedger).await.map(|chunks| (place, chunks)),
            Err(error) => Err(error),
        };
        Ok(Response::new(streamed(begun, stop)))
    }

    type LinkStream = BoxStream<'static, Result<LinkFrame, Status>>;

    async fn link(&self, request: Request<Streaming<LinkFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        let from = caller(&request)?;
        let stop = request.extensions().get::<Stop>().map(|stop| stop.0.clone()).unwrap_or_default();
        let mut requests = request.into_inner();
        let purpose = link::purpose(&mut requests, self.patience.open).await?;
        let taken = self.service.link(from, &purpose).and_then(|handler| Ok((handler, place(&self.links)?)));
        Ok(Response::new(match taken {
            Ok((handler, place)) => link::serve(handler, from, requests, place, stop),
            Err(error) => {
                let refusal = LinkFrame { failure: Some(error.into()), ..LinkFrame::default() };
                stream::iter([Ok(refusal)]).boxed()
            }
        }))
    }

    async fn ledger_changes(
        &self,
        request: Request<LedgerChangesRequest>,
    ) -> Result<Response<LedgerChangesReply>, Status> {
        let from = caller(&request)?;
        let question = PeerRequest::LedgerChanges(request.into_inner().into());
        let outcome = match self.answer(from, question).await? {
            Ok(PeerReply::LedgerChanges(difference)) => ledger_changes_reply::Outcome::Difference(difference.into()),
            Ok(_) => return Err(unexpected()),
            Err(error) => ledger_changes_reply::Outcome::Failure(error.into()),
        };
        Ok(Response::new(LedgerChangesReply { outcome: Some(outcome) }))
    }

    async fn ledger(&self, request: Request<LedgerRequest>) -> Result<Response<LedgerReply>, Status> {
        let from = caller(&request)?;
        let wanted = PeerRequest::Ledger { known_version: request.into_inner().known_version };
        let outcome = match self.answer(from, wanted).await? {
            Ok(PeerReply::Ledger { version, policies }) => ledger_reply::Outcome::Ledger(Ledger {
                version,
                changed: policies.is_some(),
                policies: policies.unwrap_or_default(),
            }),
            Ok(_) => return Err(unexpected()),
            Err(error) => ledger_reply::Outcome::Failure(error.into()),
        };
        Ok(Response::new(LedgerReply { outcome: Some(outcome) }))
    }
}

/// The messages of an answer that is made piece by piece, until `stop`.
fn streamed(
    begun: Result<(OwnedSemaphorePermit, Chunks), CommandError>,
    stop: Option<CancellationToken>,
) -> BoxStream<'static, Result<StreamReply, Status>> {
    let (place, chunks) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let failure = stream_reply::Piece::Failure(error.into());
            return stream::iter([Ok(StreamReply { piece: Some(failure) })]).boxed();
        }
    };
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        let _place = place;
        let stopped = async {
            match stop {
                Some(stop) => stop.cancelled_owned().await,
                None => std::future::pending().await,
            }
        };
        // A caller that has gone ends the work also while the next piece is being made.
        tokio::select! {
            () = sender.closed() => {}
            () = stopped => {}
            () = send_pieces(chunks, &sender) => {}
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    pieces.map(|piece| Ok(StreamReply { piece: Some(piece) })).boxed()
}

/// Passes pieces on, cut to [`PIECE_BYTES`], as fast as they are taken.
async fn send_pieces(mut chunks: Chunks, to: &mpsc::Sender<stream_reply::Piece>) {
    while let Some(chunk) = chunks.next().await {
        let mut rest = match chunk {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = stream_reply::Piece::Failure(error.into());
                // A caller that is gone needs no reason.
                to.send_timeout(failure, STALLED).await.ok();
                return;
            }
        };
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            if to.send_timeout(stream_reply::Piece::Data(piece), STALLED).await.is_err() {
                tracing::debug!("A caller took no more of a streamed answer");
                return;
            }
        }
    }
}

/// `text` in pieces of at most [`PIECE_BYTES`], cut between characters.
fn pieces(mut text: &str) -> Vec<String> {
    let mut pieces = Vec::with_capacity(text.len() / PIECE_BYTES + 1);
    while text.len() > PIECE_BYTES {
        let cut = (0..=PIECE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (piece, rest) = text.split_at(cut);
        pieces.push(piece.to_owned());
        text = rest;
    }
    if !text.is_empty() {
        pieces.push(text.to_owned());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_whole_and_keep_characters() {
        for text in [String::new(), "a".into(), "ä€".repeat(PIECE_BYTES / 2), "x".repeat(PIECE_BYTES)] {
            let pieces = pieces(&text);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
            assert_eq!(pieces.concat(), text);
        }
    }
}
