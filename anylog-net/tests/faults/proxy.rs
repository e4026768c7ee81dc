//! A TCP proxy whose link can fail as networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It carries bytes both ways.
    Carries,
    /// It swallows them: connections stay open, new ones are accepted, nothing arrives any more. A connection that met this
    /// never recovers, as one whose other end lost its memory.
    Swallows,
    /// It ends every connection.
    Resets,
}

/// A link between two ends.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    link: watch::Sender<Link>,
    accepted: Arc<AtomicUsize>,
    /// Bytes that came from the far end.
    carried: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Proxy {
    /// A link to `far`.
    pub(crate) async fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (link, _) = watch::channel(Link::Carries);
        let (accepted, carried) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (state, counters) = (link.clone(), (Arc::clone(&accepted), Arc::clone(&carried)));
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counters.0.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(near, far, state.subscribe(), Arc::clone(&counters.1)));
            }
        });
        Self { address, link, accepted, carried, accepting: accepting.abort_handle() }
    }

    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Bytes that came from the far end so far.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut near: TcpStream, far: SocketAddr, mut link: watch::Receiver<Link>, carried: Arc<AtomicUsize>) {
    let carrying = async {
        let Ok(mut far) = TcpStream::connect(far).await else { return };
        let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), far.split());
        let back = async {
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(count) = far_in.read(&mut bytes).await {
                carried.fetch_add(count, Ordering::SeqCst);
                if count == 0 || near_out.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
            () = back => {}
        }
    };
    let changed = async {
        match link.wait_for(|link| *link != Link::Carries).await {
            Ok(link) => *link,
            Err(_) => Link::Resets,
        }
    };
    let met = tokio::select! {
        biased;
        met = changed => met,
        () = carrying => return,
    };
    if met == Link::Swallows {
        // Both ends keep a connection that nothing comes out of, until the link resets or the near end goes.
        let mut bytes = vec![0; 16 * 1024];
        let swallowing = async { while near.read(&mut bytes).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            _ = link.wait_for(|link| *link == Link::Resets) => {}
            () = swallowing => {}
        }
    }
}
