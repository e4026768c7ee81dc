//! The ways between nodes: TCP proxies whose links fail as networks do. A policy names its node's proxy, so everything that
//! other nodes say to it comes this way. Who it comes from is found by asking the system which process holds the other end of the
//! connection, so that each pair of nodes has a link of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How late bytes are on a slow link.
const LATE: Duration = Duration::from_millis(40);

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It carries bytes both ways.
    Carries,
    /// The same, late.
    Slow,
    /// It keeps them back: they arrive when it carries again, on the same connection.
    Holds,
    /// It swallows them: nothing arrives any more on a connection that met this, and neither end is told.
    Swallows,
    /// It swallows what goes to the node that was connected to.
    SwallowsThere,
    /// It swallows what comes back.
    SwallowsBack,
    /// It ends every connection at once, as a firewall that rejects does.
    Resets,
}

impl Way {
    /// The ways of a link that is cut.
    pub(crate) const CUTS: [Self; 5] =
        [Self::Holds, Self::Swallows, Self::SwallowsThere, Self::SwallowsBack, Self::Resets];

    fn swallows(self, there: bool) -> bool {
        match self {
            Self::Swallows => true,
            Self::SwallowsThere => there,
            Self::SwallowsBack => !there,
            Self::Carries | Self::Slow | Self::Holds | Self::Resets => false,
        }
    }
}

/// What the links of one node know.
#[derive(Debug)]
struct Target {
    /// The port of its proxy.
    port: u16,
    /// What the links from each of the other nodes do, by their numbers.
    from: Vec<watch::Sender<Way>>,
}

/// The links between some nodes, known by their numbers.
pub(crate) struct Links {
    targets: Vec<Target>,
    processes: Arc<Mutex<Vec<Option<u32>>>>,
    // Ends with the links, and all connections with it.
    _runtime: Runtime,
}

impl Links {
    /// Links to nodes whose TCP servers are to listen at these ports of loopback.
    pub(crate) fn to(ports: &[u16]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let processes = Arc::new(Mutex::new(vec![None; ports.len()]));
        let mut targets = Vec::new();
        for far in ports {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            let from: Vec<_> = ports.iter().map(|_| watch::channel(Way::Carries).0).collect();
            let receivers: Vec<_> = from.iter().map(watch::Sender::subscribe).collect();
            let (far, processes) = (SocketAddr::from(([127, 0, 0, 1], *far)), Arc::clone(&processes));
            runtime.spawn(async move {
                // Whoever is no node of these, such as a query node or a test, has a link that always carries.
                let outside = watch::channel(Way::Carries).0;
                while let Ok((near, peer)) = listener.accept().await {
                    let known = processes.lock().clone();
                    let source = tokio::task::spawn_blocking(move || source(peer.port(), port, &known)).await;
                    let way = match source {
                        Ok(Some(number)) => receivers[number].clone(),
                        _ => outside.subscribe(),
                    };
                    tokio::spawn(carry(near, far, way));
                }
            });
            targets.push(Target { port, from });
        }
        Self { targets, processes, _runtime: runtime }
    }

    /// The port by which a node is reached.
    pub(crate) fn port(&self, node: usize) -> u16 {
        self.targets[node].port
    }

    /// Says which process is a node now.
    pub(crate) fn is_process(&self, node: usize, process: Option<u32>) {
        self.processes.lock()[node] = process;
    }

    /// Sets the link from a node to another, for connections that the first one makes.
    pub(crate) fn set(&self, from: usize, to: usize, way: Way) {
        self.targets[to].from[from].send_replace(way);
    }

    /// Sets the links between two nodes.
    pub(crate) fn between(&self, one: usize, other: usize, way: Way) {
        self.set(one, other, way);
        self.set(other, one, way);
    }

    /// Sets all links of a node.
    pub(crate) fn around(&self, node: usize, way: Way) {
        (0..self.targets.len()).filter(|other| *other != node).for_each(|other| self.between(node, other, way));
    }

    /// Lets all links carry.
    pub(crate) fn heal(&self) {
        self.targets.iter().flat_map(|target| &target.from).for_each(|way| {
            way.send_replace(Way::Carries);
        });
    }
}

/// The number of the node whose process connected from a port of loopback.
fn source(near: u16, proxy: u16, processes: &[Option<u32>]) -> Option<usize> {
    let socket = socket(near, proxy).ok()??;
    let holds = |process: u32| {
        let handles = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        let mut links = handles.flatten().filter_map(|handle| std::fs::read_link(handle.path()).ok());
        links.any(|link| link.as_os_str() == socket.as_str()).then_some(())
    };
    processes.iter().position(|process| process.is_some_and(|process| holds(process).is_some()))
}

/// The near end of a connection as links in `/proc/../fd` name it.
fn socket(near: u16, proxy: u16) -> io::Result<Option<String>> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let ends = [format!("0100007F:{near:04X}"), format!("0100007F:{proxy:04X}")];
    Ok(table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next()? == ends[0] && fields.next()? == ends[1];
        found.then(|| fields.nth(6).map(|inode| format!("socket:[{inode}]")))?
    }))
}

/// Carries what two ends of a connection say, as the link lets it.
async fn carry(mut near: TcpStream, far: SocketAddr, mut way: watch::Receiver<Way>) {
    let ended = way.clone();
    // A connection that is made while nothing comes through is not answered.
    if way.wait_for(|way| *way != Way::Holds).await.is_err() || *way.borrow() == Way::Resets {
        return reset(&near);
    }
    let Ok(mut far) = TcpStream::connect(far).await else { return reset(&near) };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    {
        let (near_ends, far_ends) = (near.split(), far.split());
        let there = hand_on(near_ends.0, far_ends.1, way.clone(), true);
        let back = hand_on(far_ends.0, near_ends.1, way, false);
        let mut watched = ended.clone();
        tokio::select! {
            _ = watched.wait_for(|way| *way == Way::Resets) => {}
            _ = async { tokio::join!(there, back) } => return,
        }
    }
    reset(&near);
    reset(&far);
}

/// Makes the end of a connection a reset.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

async fn hand_on(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut way: watch::Receiver<Way>, there: bool) {
    let mut bytes = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let now = *way.borrow_and_update();
        lost |= now.swallows(there);
        if now == Way::Holds {
            if way.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = tokio::select! {
            biased;
            changed = way.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut bytes) => read,
        };
        match read {
            // The other end is not told of an end that got lost.
            Ok(0) | Err(_) if lost => return,
            Ok(0) | Err(_) => {
                to.shutdown().await.ok();
                return;
            }
            Ok(_) if lost => {}
            Ok(count) => {
                if now == Way::Slow {
                    tokio::time::sleep(LATE).await;
                }
                if to.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;

    fn exchange(stream: &mut net::TcpStream, patience: u64) -> io::Result<[u8; 4]> {
        stream.set_read_timeout(Some(Duration::from_millis(patience)))?;
        stream.write_all(b"ping")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                std::thread::spawn(move || io::copy(&mut from, &mut to).ok());
            }
        });
        port
    }

    #[test]
    fn links_fail_as_they_are_told() {
        let links = Links::to(&[echo(), echo()]);
        // This process is the first node.
        links.is_process(0, Some(std::process::id()));
        let connect = || net::TcpStream::connect(("127.0.0.1", links.port(1))).unwrap();
        let long = 10_000;
        let mut stream = connect();
        assert_eq!(exchange(&mut stream, long).unwrap(), *b"ping");
        links.between(0, 1, Way::Holds);
        assert!(exchange(&mut stream, 100).is_err());
        links.heal();
        let mut kept = [0; 4];
        stream.set_read_timeout(Some(Duration::from_millis(long))).unwrap();
        stream.read_exact(&mut kept).unwrap();
        assert_eq!(kept, *b"ping", "it arrives when the link is whole again");
        for way in [Way::Swallows, Way::SwallowsThere, Way::SwallowsBack] {
            let mut stream = connect();
            assert_eq!(exchange(&mut stream, long).unwrap(), *b"ping");
            links.around(0, way);
            assert!(exchange(&mut stream, 100).is_err());
            links.heal();
            assert!(exchange(&mut stream, 100).is_err(), "{way:?}: the connection does not recover");
        }
        links.set(0, 1, Way::Resets);
        assert!(exchange(&mut stream, long).is_err());
        assert!(exchange(&mut connect(), long).is_err());
        links.set(0, 1, Way::Slow);
        assert_eq!(exchange(&mut connect(), long).unwrap(), *b"ping");
        links.is_process(0, None);
        links.set(0, 1, Way::Resets);
        assert_eq!(exchange(&mut connect(), long).unwrap(), *b"ping", "a stranger has no link that fails");
        links.is_process(0, Some(std::process::id()));
        // The other way has a link of its own.
        links.set(1, 0, Way::Resets);
        let mut other = net::TcpStream::connect(("127.0.0.1", links.port(0))).unwrap();
        assert_eq!(exchange(&mut other, long).unwrap(), *b"ping");
    }
}
