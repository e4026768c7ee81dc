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

mod reply;
mod request;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_core::{CommandError, Node};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::statistics::CallStatistics;
use super::together::{Answer, Outcome, Together};
use super::{IDLE, Sender, answer, data};
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

/// The connection as those see it who answer.
#[derive(Debug)]
struct Line {
    sending: Mutex<Sending>,
    /// Told when the connection's task is to look.
    turned: Notify,
    /// How long a client may take nothing of an answer.
    patience: Duration,
}

#[derive(Debug)]
struct Sending {
    /// None when the connection was handed over.
    write: Option<OwnedWriteHalf>,
    /// A request is not answered yet.
    busy: bool,
    /// The connection ends with the answer to that request.
    last: bool,
    /// What the system did not take of an answer.
    unsent: Vec<u8>,
    /// The connection broke.
    broken: bool,
    /// The connection's task waits for the answer.
    awaited: bool,
}

impl Line {
    /// Sends an answer, as much of it as the system takes; the connection's task sends the rest.
    fn answer(&self, bytes: &[u8]) {
        let mut sending = self.sending.lock();
        let closing = sending.last.then(|| reply::closing(bytes));
        let bytes = closing.as_deref().unwrap_or(bytes);
        let sent = match &sending.write {
            Some(write) => write.try_write(bytes),
            None => Ok(bytes.len()),
        };
        match sent {
            Ok(count) => sending.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sending.unsent.extend_from_slice(bytes),
            Err(_) => sending.broken = true,
        }
        sending.busy = false;
        if sending.awaited || sending.broken || !sending.unsent.is_empty() {
            self.turned.notify_one();
        }
    }

    /// Returns when no request is under way and all is sent; false when the connection broke.
    async fn is_free(&self) -> bool {
        loop {
            {
                let mut sending = self.sending.lock();
                if sending.broken || (!sending.busy && sending.unsent.is_empty()) {
                    sending.awaited = false;
                    return !sending.broken;
                }
                sending.awaited = true;
            }
            self.turned.notified().await;
            if !self.send_rest().await {
                return false;
            }
        }
    }

    /// Waits for the answer to the request under way, after which the connection is over.
    async fn ends(&self) -> Left {
        self.is_free().await;
        Left::Ended
    }

    /// Sends what the system did not take at once; false when the connection broke. Nobody answers meanwhile: the next request is
    /// taken when all is sent.
    async fn send_rest(&self) -> bool {
        let taken = {
            let mut sending = self.sending.lock();
            let unsent = std::mem::take(&mut sending.unsent);
            if unsent.is_empty() {
                return !sending.broken;
            }
            sending.write.take().map(|write| (write, unsent))
        };
        let Some((mut write, unsent)) = taken else { return false };
        let sent = self.write(&mut write, &unsent).await;
        self.sending.lock().write = Some(write);
        sent
    }

    /// False when the connection broke, or the client takes nothing any more.
    async fn write(&self, write: &mut OwnedWriteHalf, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match tokio::time::timeout(self.patience, write.write(bytes)).await {
                Ok(Ok(count @ 1..)) => bytes = bytes.get(count..).unwrap_or_default(),
                _ => return false,
            }
        }
        true
    }
}

/// Why a connection is left.
enum Left {
    /// It is over.
    Ended,
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
        let sending =
            Sending { write: Some(write), busy: false, last: false, unsent: Vec::new(), broken: false, awaited: false };
        let patience = self.patience.idle;
        let line = Arc::new(Line { sending: Mutex::new(sending), turned: Notify::new(), patience });
        let mut buffer = Vec::with_capacity(1024);
        match self.requests(&line, &mut read, &mut buffer, sender, stop).await {
            Left::Other if line.is_free().await => {}
            _ => return Next::Ended,
        }
        let write = line.sending.lock().write.take();
        write.map_or(Next::Ended, |write| Next::Begun(buffer.into(), read, write))
    }

    async fn requests(
        self: &Arc<Self>,
        line: &Arc<Line>,
        read: &mut OwnedReadHalf,
        buffer: &mut Vec<u8>,
        sender: &Sender,
        stop: &CancellationToken,
    ) -> Left {
        let Patience { idle, hesitation } = self.patience;
        let mut stopped = pin!(stop.cancelled());
        let mut stopping = false;
        // Set anew when it ends, so that a request costs no timer.
        let mut silence = pin!(tokio::time::sleep(idle));
        let mut target: Option<Arc<Target>> = None;
        // Since when the request that is coming, or the next one, is waited for.
        let mut since = Instant::now();
        loop {
            match request::find(buffer) {
                Found::Other => return Left::Other,
                Found::Part if buffer.is_empty() => {}
                Found::Part => silence.as_mut().reset((since + hesitation).into()),
                Found::Rows(mut request) => {
                    let known = target.take().filter(|known| known.is_of(&request));
                    let Some(known) = known.or_else(|| Target::of(&request, &sender.origin).map(Arc::new)) else {
                        return Left::Other;
                    };
                    // A client that sends before it was answered has its answers one after the other.
                    if !line.is_free().await {
                        return Left::Ended;
                    }
                    let (rows, length) = (std::mem::take(&mut request.rows), request.length);
                    buffer.drain(..length);
                    self.submit(line, sender, &known, rows, stopping);
                    if stopping {
                        return line.ends().await;
                    }
                    if !buffer.is_empty() {
                        since = Instant::now();
                    }
                    target = Some(known);
                    continue;
                }
            }
            let begins = buffer.is_empty();
            tokio::select! {
                count = read.read_buf(buffer) => match count {
                    // A request that comes in many pieces is not waited for anew with each.
                    Ok(1..) => if begins {
                        since = Instant::now();
                    },
                    // A client that closes its sending side still reads the answer.
                    Ok(0) if begins => return line.ends().await,
                    Ok(0) => return Left::Other,
                    Err(_) => return Left::Ended,
                },
                () = line.turned.notified() => {
                    if !line.send_rest().await {
                        return Left::Ended;
                    }
                    // Nothing was read meanwhile.
                    since = Instant::now();
                }
                () = &mut stopped, if !stopping => {
                    if begins {
                        line.sending.lock().last = true;
                        return line.ends().await;
                    }
                    // The request that is coming is the last one.
                    stopping = true;
                }
                () = &mut silence => {
                    let patience = if begins { idle } else { hesitation };
                    if line.sending.lock().busy {
                        since = Instant::now();
                    } else if since.elapsed() >= patience {
                        return if begins || stopping { Left::Ended } else { Left::Other };
                    }
                    silence.as_mut().reset((since + patience).into());
                }
            }
        }
    }

    /// Hands rows to their lane; whoever stores them answers.
    fn submit(
        self: &Arc<Self>,
        line: &Arc<Line>,
        sender: &Sender,
        target: &Arc<Target>,
        rows: Vec<String>,
        last: bool,
    ) {
        {
            let mut sending = line.sending.lock();
            (sending.busy, sending.last) = (true, last);
        }
        let (own, line, known, peer) = (Arc::clone(self), Arc::clone(line), Arc::clone(target), sender.address);
        let answer = Answer::new(move |outcome| own.answer(&line, &known, peer, outcome));
        self.together.submit(&target.lane, rows, answer);
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

#[cfg(test)]
mod tests;
