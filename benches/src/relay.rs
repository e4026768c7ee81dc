//! A way between two nodes that counts what goes over it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hands connections on to another port of loopback. Ends with the process.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// A relay to this port.
    ///
    /// # Errors
    ///
    /// When loopback has no port.
    pub fn to(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { port: listener.local_addr()?.port(), bytes: Arc::default() };
        let bytes = Arc::clone(&relay.bytes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there looks like one behind this port.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                client.set_nodelay(true).ok();
                server.set_nodelay(true).ok();
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { continue };
                for (from, to) in [(from, to), (server, client)] {
                    let bytes = Arc::clone(&bytes);
                    std::thread::spawn(move || hand_on(from, to, &bytes));
                }
            }
        });
        Ok(relay)
    }

    /// Bytes that TCP carried so far, both ways, without its headers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(read).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
