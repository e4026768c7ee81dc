//! A link to a mate: what goes out in two queues, the greeting, what comes in.
//!
//! Messages and rows of open files go before pieces of files, so that a mate that catches up does not hold acknowledgements up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anylog_net::{Link, LinkReceiver, LinkSender};
use anylog_replica::message::{Body, Hello, Message, Refused};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What links between members are asked for with.
pub(crate) const PURPOSE: &str = "replica";

/// How long a mate may take to greet.
pub(super) const GREETING: Duration = Duration::from_secs(5);

/// Bytes of messages and rows that may wait for a mate. One that takes none of them for so long is as good as gone.
const WAITING_BYTES: usize = 64 << 20;
/// The same in messages.
const WAITING_MESSAGES: usize = 200_000;

/// Pieces of files that wait.
const PIECES_AHEAD: usize = 2;

/// How long what is said last may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// A link whose other end is known.
pub(super) struct Session {
    /// The mate's number.
    pub(super) mate: i64,
    /// Whether this side dialled it.
    pub(super) dialled: bool,
    pub(super) began: Instant,
    /// How this side greeted while it dialled: it need not do so again.
    greeted: Mutex<Option<Hello>>,
    messages: Mutex<Waiting>,
    wake: Notify,
    pieces: mpsc::Sender<Bytes>,
    /// Nothing more is to be sent: ends when what waits has left.
    finished: CancellationToken,
    /// The link is at its end.
    pub(super) closed: CancellationToken,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Session {
    /// Begins to send what is put into the queues.
    pub(super) fn begin(mate: i64, sender: LinkSender, greeted: Option<Hello>) -> Arc<Self> {
        let (pieces, waiting) = mpsc::channel(PIECES_AHEAD);
        let session = Arc::new(Self {
            mate,
            dialled: greeted.is_some(),
            began: Instant::now(),
            greeted: Mutex::new(greeted),
            messages: Mutex::default(),
            wake: Notify::new(),
            pieces,
            finished: CancellationToken::new(),
            closed: CancellationToken::new(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        tokio::spawn(write(Arc::clone(&session), sender, waiting));
        session
    }

    /// Sends a message before all pieces. Never waits; a mate that leaves too much untaken loses the link.
    pub(super) fn send(&self, message: &Message) {
        if let Some(Body::Hello(hello)) = &message.body
            && self.greeted.lock().take().is_some_and(|greeted| greeted == *hello)
        {
            return;
        }
        let frame = Bytes::from(message.to_bytes());
        let mut waiting = self.messages.lock();
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        let full = waiting.bytes > WAITING_BYTES || waiting.frames.len() > WAITING_MESSAGES;
        drop(waiting);
        if full {
            tracing::warn!(mate = self.mate, "The link is ended: the mate does not take what is sent to it");
            self.close();
        }
        self.wake.notify_one();
    }

    /// Sends a piece of a file when nothing else waits. Returns false when the link is at its end.
    pub(super) async fn send_piece(&self, message: &Message) -> bool {
        let frame = Bytes::from(message.to_bytes());
        tokio::select! {
            sent = self.pieces.send(frame) => sent.is_ok(),
            () = self.closed.cancelled() => false,
        }
    }

    /// Ends the link when what waits has left.
    pub(super) fn finish(&self) {
        self.finished.cancel();
        self.wake.notify_one();
    }

    /// Ends the link.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn next(&self) -> Option<Bytes> {
        let mut waiting = self.messages.lock();
        let frame = waiting.frames.pop_front()?;
        waiting.bytes -= frame.len();
        Some(frame)
    }
}

/// Sends what waits, until the link ends.
async fn write(session: Arc<Session>, sender: LinkSender, mut pieces: mpsc::Receiver<Bytes>) {
    let writing = async {
        loop {
            let frame = match session.next() {
                Some(frame) => frame,
                None if session.finished.is_cancelled() => return,
                None => tokio::select! {
                    biased;
                    () = session.wake.notified() => continue,
                    piece = pieces.recv() => match piece {
                        Some(piece) => piece,
                        None => return,
                    },
                },
            };
            session.sent.fetch_add(frame.len() as u64, Ordering::Relaxed);
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = session.closed.cancelled() => {}
    }
    session.close();
}

/// The next message; none at the end. What cannot be read ends the link, and says why.
pub(super) async fn receive(receiver: &mut LinkReceiver) -> Result<Option<(Message, usize)>, String> {
    match receiver.next().await {
        None => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(frame)) => {
            let message = Message::from_bytes(&frame).map_err(|error| error.to_string())?;
            Ok(Some((message, frame.len())))
        }
    }
}

/// The greeting of the other side, which comes first.
pub(super) async fn greeting(receiver: &mut LinkReceiver) -> Result<Hello, String> {
    let first = tokio::time::timeout(GREETING, receive(receiver));
    match first.await {
        Err(_) => Err(format!("it did not greet within {} seconds", GREETING.as_secs())),
        Ok(Err(error)) => Err(error),
        Ok(Ok(None)) => Err("it ended the link before it greeted".to_owned()),
        Ok(Ok(Some((message, _)))) => match message.body {
            Some(Body::Hello(hello)) => Ok(hello),
            Some(Body::Refused(Refused { reason })) => Err(reason),
            _ => Err("it did not greet first: both nodes must be of one version".to_owned()),
        },
    }
}

/// Says why a link is not taken, and ends it.
pub(super) async fn refuse(link: Link, reason: String) {
    let message: Message = Body::Refused(Refused { reason }).into();
    let farewell = async {
        // A mate that is gone needs no reason.
        if link.sender.send(message.to_bytes().into()).await.is_ok() {
            link.sender.ended().await;
        }
    };
    tokio::time::timeout(FAREWELL, farewell).await.ok();
}
