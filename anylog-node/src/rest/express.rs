//! Requests that bring a few rows of a stream, and nothing else, are served without the HTTP library.
//!
//! Devices and gateways send such requests one after the other on a connection that they keep, each with the same head. What one
//! of them costs decides how many a node takes, so they take a short way: a connection whose first request is a `PUT` is read here,
//! and its rows go to their lane ([`super::together`]) at once. The task that stored a group writes the answers of all of its
//! requests itself; a connection's task wakes only for what its client sends.
//!
//! The express knows one kind of request ([`request::find`]). A connection that sends anything else, or that does not end a request
//! soon, is handed over for the rest of its life, with the bytes that came: every rule of HTTP and every message about a wrong
//! request has one place, which is not here.

mod line;
mod reply;
mod request;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_core::{CommandError, Node};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::statistics::CallStatistics;
use super::together::{Answer, Outcome, Together};
use super::{IDLE, Sender, answer, data};
use line::Line;
use request::{Found, Target};

/// How long clients are waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For the next request, and for a client that does not take its answer.
    idle: Duration,
    /// For the whole of a request that began to come, before the connection is handed over.
    hesitation: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: IDLE, hesitation: Duration::from_secs(1) }
    }
}

/// How a connection goes on.
pub(super) enum Next {
    /// It is over.
    Ended,
    /// The express did not touch it.
    Whole(TcpStream),
    /// The bytes that came and were not served, and the connection.
    Begun(Bytes, OwnedReadHalf, OwnedWriteHalf),
}

/// A connection that the express began to read, as a stream of its bytes.
pub(super) fn rejoin(begun: Bytes, read: OwnedReadHalf, write: OwnedWriteHalf) -> impl AsyncRead + AsyncWrite + Unpin {
    tokio::io::join(io::Cursor::new(begun).chain(read), write)
}

/// What the connections share.
#[derive(Debug)]
pub(super) struct Express {
    node: Arc<Node>,
    together: Together,
    calls: Arc<CallStatistics>,
    success: reply::Success,
    patience: Patience,
}

/// Why a connection is left.
#[derive(PartialEq, Eq)]
enum Left {
    /// It is over when what is under way is answered.
    Ended,
    /// It is over now.
    Broken,
    /// Others are to read on.
    Other,
}

impl Express {
    pub(super) fn new(node: Arc<Node>, together: Together, calls: Arc<CallStatistics>) -> Arc<Self> {
        Arc::new(Self { node, together, calls, success: reply::Success::default(), patience: Patience::default() })
    }

    /// Serves a connection as long as its requests are of the kind that it knows.
    pub(super) async fn serve(self: &Arc<Self>, stream: TcpStream, sender: &Sender, stop: &CancellationToken) -> Next {
        const METHOD: &[u8] = b"PUT ";
        let mut first = [0; METHOD.len()];
        // The listener saw this many.
        if !matches!(stream.peek(&mut first).await, Ok(count) if first[..count] == *METHOD) {
            return Next::Whole(stream);
        }
        let (mut read, write) = stream.into_split();
        let line = Line::new(write, self.patience.idle);
        let buffer = Vec::with_capacity(1024);
        let mut conversation = Conversation { express: self, sender, line, buffer, target: None };
        let left = conversation.requests(&mut read, stop).await;
        let Conversation { line, buffer, .. } = conversation;
        // What is under way is answered first.
        let free = left != Left::Broken && line.is_free().await;
        match line.take().filter(|_| free && left == Left::Other) {
            Some(write) => Next::Begun(buffer.into(), read, write),
            None => Next::Ended,
        }
    }

    fn answer(&self, line: &Line, target: &Target, peer: SocketAddr, outcome: Outcome) {
        let now = self.node.clock.now();
        let result = outcome.map_err(|error| Failure::from(CommandError::from(error)));
        let result = result.and_then(|taken| match taken.refused.is_empty() {
            true => Ok(None),
            false => answer::of_rows("0", taken.stored, &taken.refused).map(Some),
        });
        let result = result.map_err(|failure| data::explain_missing(&self.node, failure));
        let failed = result.as_ref().err().map(|failure| failure.error.to_string());
        self.calls.note(&target.product, "PUT", peer, now, failed);
        match result {
            Ok(None) => line.answer(&self.success.at(now)),
            Ok(Some(response)) => line.answer(&reply::encode(response, now)),
            Err(failure) => line.answer(&reply::encode(failure.response("PUT", peer.ip()), now)),
        }
    }
}

/// A connection that the express reads.
struct Conversation<'c> {
    express: &'c Arc<Express>,
    sender: &'c Sender,
    line: Arc<Line>,
    /// What came and is not served.
    buffer: Vec<u8>,
    /// Where the last rows went.
    target: Option<Arc<Target>>,
}

impl Conversation<'_> {
    /// Reads and serves requests.
    async fn requests(&mut self, read: &mut OwnedReadHalf, stop: &CancellationToken) -> Left {
        let Patience { idle, hesitation } = self.express.patience;
        let mut stopped = pin!(stop.cancelled());
        let mut stopping = false;
        // Set anew when it ends, so that a request costs no timer.
        let mut silence = pin!(tokio::time::sleep(idle));
        // Since when the request that is coming, or the next one, is waited for.
        let mut since = Instant::now();
        loop {
            let served = match self.serve(stopping).await {
                Ok(served) => served,
                Err(left) => return left,
            };
            let begins = self.buffer.is_empty();
            if !begins {
                if served {
                    since = Instant::now();
                }
                silence.as_mut().reset((since + hesitation).into());
            }
            tokio::select! {
                count = read.read_buf(&mut self.buffer) => match count {
                    // A request that comes in many pieces is not waited for anew with each.
                    Ok(1..) => if begins {
                        since = Instant::now();
                    },
                    // A client that closes its sending side still reads the answer.
                    Ok(0) => return if begins { Left::Ended } else { Left::Other },
                    Err(_) => return Left::Broken,
                },
                () = self.line.turned() => {
                    if !self.line.send_rest().await {
                        return Left::Broken;
                    }
                    // Nothing was read meanwhile.
                    since = Instant::now();
                }
                () = &mut stopped, if !stopping => {
                    if begins {
                        self.line.ends();
                        return Left::Ended;
                    }
                    // The request that is coming is the last one.
                    stopping = true;
                }
                () = &mut silence => {
                    let patience = if begins { idle } else { hesitation };
                    if self.line.is_busy() {
                        since = Instant::now();
                    } else if since.elapsed() >= patience {
                        return if begins || stopping { Left::Ended } else { Left::Other };
                    }
                    silence.as_mut().reset((since + patience).into());
                }
            }
        }
    }

    /// Serves the requests that are there as a whole, one after the other, save that the first one is the last when the connection is
    /// `stopping`. Says whether there was one.
    async fn serve(&mut self, stopping: bool) -> Result<bool, Left> {
        let mut served = false;
        loop {
            let mut request = match request::find(&self.buffer) {
                Found::Other => return Err(Left::Other),
                Found::Part => return Ok(served),
                Found::Rows(request) => request,
            };
            let known = self.target.take().filter(|known| known.is_of(&request));
            let known = known.or_else(|| Target::of(&request, &self.sender.origin).map(Arc::new));
            let Some(target) = known else { return Err(Left::Other) };
            let (rows, length) = (std::mem::take(&mut request.rows), request.length);
            // A client that sends before it was answered has its answers one after the other.
            if !self.line.is_free().await {
                return Err(Left::Broken);
            }
            self.buffer.drain(..length);
            self.submit(&target, rows, stopping);
            if stopping {
                return Err(Left::Ended);
            }
            self.target = Some(target);
            served = true;
        }
    }

    /// Hands rows to their lane; whoever stores them answers.
    fn submit(&self, target: &Arc<Target>, rows: Vec<String>, last: bool) {
        self.line.begins(last);
        let (own, line, known) = (Arc::clone(self.express), Arc::clone(&self.line), Arc::clone(target));
        let peer = self.sender.address;
        let answer = Answer::new(move |outcome| own.answer(&line, &known, peer, outcome));
        self.express.together.submit(&target.lane, rows, answer);
    }
}

#[cfg(test)]
mod tests;
