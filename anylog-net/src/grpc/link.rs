//! Links over gRPC, both sides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::client::{Failure, client, endpoint};
use super::proto::LinkFrame;
use super::{MESSAGE_BYTES, Patience};
use crate::links::{FRAMES_AHEAD, Link, LinkHandler, LinkReceiver, LinkSender};
use crate::peers::{PeerError, not_text, within};

/// Asks for a link. It has a connection of its own: long frames hold no questions up, and its keep-alive is quicker than theirs.
pub(super) async fn dial(
    address: &str,
    purpose: &str,
    deadline: Duration,
    patience: Patience,
) -> Result<Link, PeerError> {
    let connection = CancellationToken::new();
    let tasks = Tasks(connection.clone());
    let mut client = client(endpoint(address, patience)?.executor(tasks).connect_lazy());
    let ending = Ending(connection);
    let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
    let greeting = LinkFrame { purpose: purpose.to_owned(), ..LinkFrame::default() };
    let requests = stream::iter([greeting]).chain(sent(frames));
    let begin = async {
        let failed = |status| Failure::Transport(status).at(address, deadline);
        let mut replies = client.link(Request::new(requests)).await.map_err(failed)?.into_inner();
        match replies.message().await.map_err(failed)? {
            Some(LinkFrame { failure: Some(failure), .. }) => {
                Err(PeerError::Refused { address: address.to_owned(), error: failure.into() })
            }
            Some(LinkFrame { data, .. }) if data.is_empty() => Ok(replies),
            _ => Err(not_text(address)),
        }
    };
    let replies = within(deadline, address, begin).await?;
    let address = address.to_owned();
    let received = received(replies, move |status| Failure::Transport(status).at(&address, deadline));
    // Kept by the half that receives: without it nobody hears of the other side any more.
    let received = received.map(move |frame| {
        let _ = &ending;
        frame
    });
    let received = received.boxed();
    Ok(Link { sender: LinkSender::new(sender), receiver: LinkReceiver::new(received) })
}

/// How long what was sent last may take to arrive after a link was dropped.
const LINGER: Duration = Duration::from_secs(2);

/// Runs what belongs to a connection, until that is ended. A side that takes no frames would hold the connection of a dropped link forever.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let ended = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

/// Ends a connection a while after its link was dropped.
struct Ending(CancellationToken);

impl Drop for Ending {
    fn drop(&mut self) {
        let connection = self.0.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    connection.cancel();
                });
            }
            Err(_) => connection.cancel(),
        }
    }
}

/// Frames from the channel that the sending half fills.
fn sent(frames: mpsc::Receiver<Bytes>) -> impl futures_util::Stream<Item = LinkFrame> {
    let frames = stream::unfold(frames, |mut frames| async { Some((frames.recv().await?, frames)) });
    frames.map(|data| LinkFrame { data, ..LinkFrame::default() })
}

/// Frames of the other side; nothing follows an error.
fn received(
    frames: Streaming<LinkFrame>,
    error: impl Fn(Status) -> PeerError + Send + 'static,
) -> BoxStream<'static, Result<Bytes, PeerError>> {
    let frames = stream::unfold(Some((frames, error)), |state| async {
        let (mut frames, error) = state?;
        match frames.message().await {
            Ok(Some(frame)) => Some((Ok(frame.data), Some((frames, error)))),
            Ok(None) => None,
            Err(status) => Some((Err(error(status)), None)),
        }
    });
    frames.boxed()
}

/// Serves a link that was asked for: the frames to the other side, the first of which says that the link is taken. The work ends with the
/// link, and with `stop`.
pub(super) fn serve(
    handler: Arc<dyn LinkHandler>,
    from: std::net::SocketAddr,
    requests: Streaming<LinkFrame>,
    place: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> BoxStream<'static, Result<LinkFrame, Status>> {
    let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
    let address = from.to_string();
    let received = received(requests, move |status| PeerError::Unreachable {
        address: address.clone(),
        reason: status.message().to_owned(),
    });
    let link = Link { sender: LinkSender::new(sender), receiver: LinkReceiver::new(received) };
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = handler.serve(from, link) => {}
            () = stop.cancelled() => {}
        }
    });
    stream::iter([LinkFrame::default()]).chain(sent(frames)).map(Ok).boxed()
}

/// The first frame of a caller, which says what the link is for.
pub(super) async fn purpose(requests: &mut Streaming<LinkFrame>, deadline: Duration) -> Result<String, Status> {
    match tokio::time::timeout(deadline, requests.message()).await {
        Ok(Ok(Some(frame))) => Ok(frame.purpose),
        Ok(Ok(None)) => Err(Status::cancelled("The caller ended the link before it began")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("The caller did not say what the link is for")),
    }
}

// A frame and what is around it fit into a message.
const _: () = assert!(crate::links::FRAME_BYTES + 1024 < MESSAGE_BYTES);
