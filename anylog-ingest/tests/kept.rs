//! What the broker and a store remember together: QoS 2 packets over a restart, with a store that remembers and one that does not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anylog_ingest::sink::Issuer;
use anylog_ingest::{Delivery, FileReceipt, Receipt, RowGroup, RowSink, SinkError, SourceFile, Unmapped};
use async_trait::async_trait;
use parking_lot::Mutex;
use support::{DEADLINE, TestNode, until};

/// What a store has on its disk.
#[derive(Default)]
struct Disk {
    rows: usize,
    held: BTreeSet<Delivery>,
    /// How often a release, or the word that packets may be acknowledged, fails before it succeeds.
    failures: usize,
}

impl Disk {
    /// Rows, packets, failures to come.
    fn counts(&self) -> (usize, usize, usize) {
        (self.rows, self.held.len(), self.failures)
    }
}

struct Store {
    issuer: Issuer,
    disk: Arc<Mutex<Disk>>,
    remembers: bool,
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        let mut disk = self.disk.lock();
        let rows: usize = group.parts.iter().map(|part| part.rows.len()).sum();
        disk.rows += rows;
        disk.held.extend(group.deliveries);
        Ok(Receipt::issue(&self.issuer, rows, Vec::new()))
    }

    async fn store_file(&self, _: SourceFile) -> Result<FileReceipt, SinkError> {
        Err(SinkError::NotRunning)
    }

    async fn set_aside(&self, _: Unmapped) -> Result<Receipt, SinkError> {
        Err(SinkError::NotRunning)
    }

    fn holds(&self, delivery: &Delivery) -> bool {
        self.remembers && self.disk.lock().held.contains(delivery)
    }

    async fn confirm(&self, deliveries: &[Delivery]) -> Result<(), SinkError> {
        let mut disk = self.disk.lock();
        assert!(deliveries.iter().all(|delivery| disk.held.contains(delivery)), "{deliveries:?}");
        if disk.failures > 0 {
            disk.failures -= 1;
            return Err(SinkError::Overloaded);
        }
        Ok(())
    }

    fn deliveries(&self) -> Vec<Delivery> {
        self.disk.lock().held.iter().cloned().collect()
    }

    async fn release(&self, deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        let mut disk = self.disk.lock();
        if !deliveries.is_empty() && disk.failures > 0 {
            disk.failures -= 1;
            return Err(SinkError::DiskFull);
        }
        disk.held.retain(|delivery| !deliveries.contains(delivery));
        Ok(())
    }

    async fn forget(&self, client: &str) -> Result<(), SinkError> {
        self.disk.lock().held.retain(|delivery| &*delivery.client != client);
        Ok(())
    }
}

/// A node whose broker keeps its sessions in `directory`, over a store with this disk.
async fn start(directory: &Path, disk: &Arc<Mutex<Disk>>, remembers: bool) -> TestNode {
    let node = TestNode::start().await;
    let disk = Arc::clone(disk);
    node.slot.mount(|issuer| Arc::new(Store { issuer, disk, remembers }));
    node.map("broker=local", "t", 2, "numbers").await;
    node.ingest.broker().keep_in(directory).await.unwrap();
    node.ingest.broker().keep_in(directory).await.unwrap();
    node
}

/// Sends bytes on a new connection with a lasting session, and returns the answers: whether the session is known, then types and
/// packet ids.
fn exchange(node: &TestNode, packets: &[&[u8]]) -> (bool, Vec<(u8, u8)>) {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 1, b'd']).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    let present = answer[2] == 1;
    let mut answers = Vec::new();
    for packet in packets {
        stream.write_all(packet).unwrap();
        stream.read_exact(&mut answer).unwrap();
        answers.push((answer[0] >> 4, answer[3]));
    }
    (present, answers)
}

fn publish(dup: bool, id: u8) -> Vec<u8> {
    let mut packet = vec![0x34 | u8::from(dup) << 3, 12, 0, 1, b't', 0, id];
    packet.extend(b"{\"n\":1}");
    packet
}

// DUR-2, MQTT-4.3.3-2
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_the_store_holds_is_not_stored_again() {
    for (remembers, rows) in [(true, 1), (false, 2)] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Mutex::new(Disk::default()));
        let node = start(directory.path(), &disk, remembers).await;
        assert_eq!(exchange(&node, &[&publish(false, 7)]), (false, vec![(5, 7)]));
        assert_eq!(disk.lock().counts(), (1, 1, 0));
        drop(node);
        let node = start(directory.path(), &disk, remembers).await;
        // DUR-3: PUBREC waits until the store says that the rows are where they are promised.
        disk.lock().failures = usize::from(remembers);
        assert_eq!(exchange(&node, &[&publish(true, 7)]), (true, vec![(5, 7)]));
        assert_eq!(disk.lock().failures, 0);
        // The control: a store without memory has the row twice.
        assert_eq!(disk.lock().rows, rows, "remembers: {remembers}");
        // PUBCOMP waits until the release is written.
        disk.lock().failures = 2;
        assert_eq!(exchange(&node, &[&[0x62, 2, 0, 7], &publish(true, 7)]), (true, vec![(7, 7), (5, 7)]));
        assert_eq!(disk.lock().counts(), (rows + 1, 1, 0), "another message under the same id");
    }
}

// Packets of sessions that are not there any more do not stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_sessions_that_ended_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Mutex::new(Disk::default()));
    let node = start(directory.path(), &disk, true).await;
    exchange(&node, &[&publish(false, 7)]);
    let other = Delivery { client: "a message client".into(), packet: 9 };
    disk.lock().held.insert(other.clone());
    drop(node);
    // The broker's memory is lost, the store's is not.
    let elsewhere = tempfile::tempdir().unwrap();
    let node = start(elsewhere.path(), &disk, true).await;
    until("the packets of the broker are forgotten, those of others are not", || disk.lock().held.iter().eq([&other]))
        .await;
    // A session that ends takes its packets with it.
    exchange(&node, &[&publish(false, 8)]);
    assert_eq!(disk.lock().held.len(), 2);
    let mut clean = TcpStream::connect(node.address).unwrap();
    clean.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'd']).unwrap();
    until("the packet of the session that ended is forgotten", || disk.lock().held.len() == 1).await;
}
