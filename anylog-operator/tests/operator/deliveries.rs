//! QoS 2 packets outlive the process together with the rows of their messages.

use std::sync::Arc;

use anylog_ingest::{Delivery, RowGroup};
use anylog_operator::disk::{Disk, MemoryDisk};
use anylog_operator::replica::Followers;
use anylog_operator::thresholds::ThresholdChange;
use anylog_replica::message::RowsHeld;

use crate::harness::{TestNode, eventually, numbered, rows};
use crate::replica_open::Mates;

fn delivery(client: &str, packet: u16) -> Delivery {
    Delivery { client: Arc::from(client), packet }
}

fn delivered(group: RowGroup, client: &str, packets: impl IntoIterator<Item = u16>) -> RowGroup {
    RowGroup { deliveries: packets.into_iter().map(|packet| delivery(client, packet)).collect(), ..group }
}

async fn again(node: TestNode, home: &std::path::Path, disk: &MemoryDisk) -> TestNode {
    node.kill().await;
    let node = TestNode::on_disk(home, Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node
}

// DUR-2: a packet is known after a crash until it is released; released packets and those of a forgotten session are not.
#[tokio::test(flavor = "multi_thread")]
async fn packets_are_held_from_their_rows_to_their_release() {
    let (home, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    let sink = node.slot.get().unwrap();
    // With rows, with rows that are all refused, and without rows.
    let _ = sink.append(delivered(rows("t", numbered(0..2)), "a", [1, 2])).await.unwrap();
    let _ = sink.append(delivered(rows("t", ["no object".to_owned()]), "a", [3])).await.unwrap();
    let _ = sink.append(delivered(RowGroup::default(), "b", [1, 7])).await.unwrap();
    let all = [delivery("a", 1), delivery("a", 2), delivery("a", 3), delivery("b", 1), delivery("b", 7)];
    assert_eq!(sink.deliveries(), all);
    drop(sink);
    let node = again(node, home.path(), &disk).await;
    let sink = node.slot.get().unwrap();
    assert_eq!(sink.deliveries(), all);
    assert!(sink.holds(&delivery("a", 3)) && !sink.holds(&delivery("a", 7)));
    sink.release(vec![delivery("a", 2), delivery("b", 1)]).await.unwrap();
    sink.release(vec![delivery("a", 2)]).await.unwrap();
    drop(sink);
    let node = again(node, home.path(), &disk).await;
    let sink = node.slot.get().unwrap();
    assert_eq!(sink.deliveries(), [delivery("a", 1), delivery("a", 3), delivery("b", 7)]);
    sink.forget("a").await.unwrap();
    sink.forget("nobody").await.unwrap();
    // An id may be used again behind its release.
    let _ = sink.append(delivered(rows("t", numbered(2..3)), "b", [1])).await.unwrap();
    drop(sink);
    let node = again(node, home.path(), &disk).await;
    assert_eq!(node.slot.get().unwrap().deliveries(), [delivery("b", 1), delivery("b", 7)]);
    assert_eq!(node.integers("t", "n"), [0, 1, 2]);
}

/// Has rows acknowledged when one of two members says that it has them.
fn followed(node: &TestNode) -> Arc<Mates> {
    let mates = Mates::reachable(2);
    let change = ThresholdChange { copies: Some(2), ..ThresholdChange::default() };
    node.operator.change_threshold(None, None, change).unwrap();
    node.operator.follow(Some(Arc::clone(&mates) as Arc<dyn Followers>)).unwrap();
    mates
}

// DUR-3: a packet whose rows are here alone is not acknowledged because it comes again, in the same run or after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_comes_again_waits_for_other_members() {
    let (home, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    let mut mates = followed(&node);
    let sending = tokio::spawn({
        let (slot, group) = (Arc::clone(&node.slot), delivered(rows("t", numbered(0..2)), "a", [1]));
        async move { slot.append(group).await }
    });
    let packets = [delivery("a", 1), delivery("a", 2)];
    eventually("the packet is stored", || node.slot.get().is_some_and(|sink| sink.holds(&packets[0]))).await;
    // Its sender has gone.
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    let file = node.registered()[0].0;
    let mut node = node;
    for crashes in [false, true] {
        if crashes {
            node = again(node, home.path(), &disk).await;
            mates = followed(&node);
        }
        let slot = Arc::clone(&node.slot);
        let held = slot.held(&packets);
        tokio::pin!(held);
        assert!(futures_util::poll!(held.as_mut()).is_pending(), "after a crash: {crashes}");
        assert_eq!(slot.held(&packets[1..]).await, [false], "what is not held needs nobody");
        mates.has(RowsHeld { producer: 7, file, ordinal: 2 });
        assert_eq!(held.await, [true, false]);
    }
    // Who asks for less gets it.
    let mates = followed(&node);
    let local = ThresholdChange { copies: Some(1), ..ThresholdChange::default() };
    node.operator.change_threshold(None, None, local).unwrap();
    assert_eq!(node.slot.held(&packets).await, [true, false]);
    drop(mates);
}

// DUR-3: also when the journal file with its rows is gone since.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_of_a_packet_outlives_its_journal_file() {
    let (home, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    let mates = followed(&node);
    let sending = tokio::spawn({
        let (slot, group) = (Arc::clone(&node.slot), delivered(rows("t", numbered(0..2)), "a", [1]));
        async move { slot.append(group).await }
    });
    let packet = [delivery("a", 1)];
    eventually("the packet is stored", || node.slot.get().is_some_and(|sink| sink.holds(&packet[0]))).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    drop(mates);
    let file = node.registered()[0].0;
    let local = ThresholdChange { copies: Some(1), ..ThresholdChange::default() };
    node.operator.change_threshold(Some("d"), Some("other"), local).unwrap();
    let (directory, long) = (node.directory("journal_dir"), "x".repeat(1 << 20));
    let before = disk.list(&directory).unwrap();
    // A file with a megabyte of sealed rows is left for the next one, and goes when that one is there.
    for n in 0..2 {
        let row = format!("{{\"n\": {n}, \"text\": \"{long}\"}}");
        let _ = node.slot.append(rows("other", [row])).await.unwrap();
        node.operator.flush().await.unwrap();
    }
    eventually("the file goes", || !disk.list(&directory).unwrap().contains(&before[0])).await;
    let node = again(node, home.path(), &disk).await;
    let mates = followed(&node);
    let slot = Arc::clone(&node.slot);
    let held = slot.held(&packet);
    tokio::pin!(held);
    assert!(futures_util::poll!(held.as_mut()).is_pending());
    mates.has(RowsHeld { producer: 7, file, ordinal: 2 });
    assert_eq!(held.await, [true]);
}

// A packet that is not released outlives the journal file that it was written to, as often as files go.
#[tokio::test(flavor = "multi_thread")]
async fn packets_are_carried_over_when_their_file_goes() {
    let (home, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    let directory = node.directory("journal_dir");
    let _ = node.slot.append(delivered(rows("t", numbered(0..1)), "a", [1, 2, 3])).await.unwrap();
    let long = "x".repeat(1 << 20);
    for n in 1..4 {
        let before = disk.list(&directory).unwrap();
        // A file with a megabyte of sealed rows is left for the next one, and goes when that one is there.
        let row = format!("{{\"n\": {n}, \"text\": \"{long}\"}}");
        let _ = node.slot.append(delivered(rows("t", [row]), "a", [100])).await.unwrap();
        node.operator.flush().await.unwrap();
        let released = node.slot.get().unwrap();
        released.release(vec![delivery("a", if n == 2 { 2 } else { 100 })]).await.unwrap();
        eventually("the file goes", || !disk.list(&directory).unwrap().contains(&before[0])).await;
    }
    let expected = [delivery("a", 1), delivery("a", 3)];
    assert_eq!(node.slot.get().unwrap().deliveries(), expected);
    let node = again(node, home.path(), &disk).await;
    assert_eq!(node.slot.get().unwrap().deliveries(), expected);
    assert_eq!(node.count("t"), 4);
}

// DUR-1, DUR-2: power fails while packets come and are sent again until they are acknowledged, as a client does: every row is
// there once.
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_sent_again_after_power_loss_are_stored_once() {
    let (home, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let mut node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    for round in 0..4u16 {
        let senders: Vec<_> = (0..4u16)
            .map(|sender| {
                let slot = Arc::clone(&node.slot);
                tokio::spawn(async move {
                    for packet in 1..=200 {
                        let first = i64::from(round) * 100_000 + i64::from(sender) * 1000 + i64::from(packet) * 2;
                        let group = rows("t", numbered(first..first + 2));
                        let client = format!("c{sender} {round}");
                        if slot.append(delivered(group, &client, [packet])).await.is_err() {
                            break;
                        }
                    }
                })
            })
            .collect();
        eventually("some messages are written", || node.operator.load().frames.0 > 60).await;
        disk.set_capacity(0);
        for sender in senders {
            sender.await.unwrap();
        }
        node.kill().await;
        disk.crash(|pending| pending * usize::from(round) / 3);
        disk.set_capacity(usize::MAX);
        node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
        node.connect();
        node.run().await;
        // Whoever got no answer sends again; the store knows which ones it has.
        let sink = node.slot.get().unwrap();
        for sender in 0..4u16 {
            for packet in 1..=200 {
                let first = i64::from(round) * 100_000 + i64::from(sender) * 1000 + i64::from(packet) * 2;
                let client = format!("c{sender} {round}");
                if !sink.holds(&delivery(&client, packet)) {
                    let group = rows("t", numbered(first..first + 2));
                    let _ = sink.append(delivered(group, &client, [packet])).await.unwrap();
                }
            }
        }
        node.operator.flush().await.unwrap();
        let stored = node.integers("t", "n");
        let distinct: std::collections::BTreeSet<i64> = stored.iter().copied().collect();
        assert_eq!((distinct.len(), stored.len()), (usize::from(round + 1) * 1600, usize::from(round + 1) * 1600));
    }
}
