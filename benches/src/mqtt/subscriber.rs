//! A subscriber at QoS 1 that acknowledges and counts.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::packets::{self, kind};

/// A subscription on a thread of its own.
#[derive(Debug)]
pub struct Subscriber {
    received: Arc<AtomicU64>,
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribes to a topic of the broker on loopback.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub fn start(port: u16, topic: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut out = Vec::new();
        packets::connect(&mut out, &format!("subscriber-{}", std::process::id()));
        packets::subscribe(&mut out, topic, 1);
        stream.write_all(&out)?;
        let mut answers = [0; 4 + 5];
        stream.read_exact(&mut answers)?;
        if answers[..4] != [kind::CONNACK, 2, 0, 0] || answers[4] != kind::SUBACK || answers[8] > 2 {
            return Err(io::Error::other(format!("the broker at port {port} answered {answers:?} to SUBSCRIBE")));
        }
        let received = Arc::new(AtomicU64::new(0));
        let (socket, counter) = (stream.try_clone()?, received.clone());
        // The connection ends when the socket is shut down.
        let thread = std::thread::spawn(move || drop(count(stream, &counter)));
        Ok(Self { received, socket, thread: Some(thread) })
    }

    /// Messages received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until as many messages have arrived.
    ///
    /// # Errors
    ///
    /// When none arrives for ten seconds.
    pub fn wait_for(&self, messages: u64) -> io::Result<()> {
        let (mut last, mut since) = (self.received(), Instant::now());
        while last < messages {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.received();
            if now > last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(format!("{last} of {messages} messages reached the subscriber")));
            }
        }
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn count(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let mut out = Vec::with_capacity(64 * 1024);
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (mut at, mut messages) = (0, 0);
        while let Some((packet, length)) = packets::next(&buffer[at..filled]) {
            at += length;
            if packet.first & 0xf0 == kind::PUBLISH {
                messages += 1;
                if packet.id > 0 {
                    packets::short(&mut out, kind::PUBACK, packet.id);
                }
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        received.fetch_add(messages, Ordering::Relaxed);
        stream.write_all(&out)?;
        out.clear();
    }
}
