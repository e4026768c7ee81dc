//! Devices that are back before the start script has said what is to be done with their messages.

use std::path::Path;
use std::time::Duration;

use super::harness::eventually;
use super::mqtt::{Heard, Publisher};
use super::node::Node;

/// The script up to the message broker, and how it goes on.
fn node_with(home: &Path, rest: &str) -> Node {
    let node = Node::new(home, &[]);
    let script = "run tcp server 127.0.0.1 $ANYLOG_SERVER_PORT\nrun rest server 127.0.0.1 $ANYLOG_REST_PORT\n\
                  run message broker 127.0.0.1 $ANYLOG_SERVER_PORT\n";
    std::fs::write(home.join("operator.al"), format!("{script}{rest}\n")).unwrap();
    node
}

/// Publishers, each with one message on its way.
fn publishers(node: &Node, count: usize) -> Vec<Publisher> {
    (0..count)
        .map(|number| {
            let mut publisher = Publisher::new(&format!("early-{number}"), if number % 2 == 0 { 1 } else { 2 });
            eventually("the broker is there", || publisher.connect(node.tcp).ok());
            publisher.publish("plant/line", br#"{"n": 1}"#, number);
            publisher.flush().unwrap();
            publisher
        })
        .collect()
}

/// The messages that were acknowledged until the connection ended.
fn acknowledged(publisher: &mut Publisher) -> Vec<usize> {
    let mut all = Vec::new();
    eventually("the connection ends", || match publisher.hear(Duration::from_secs(1)) {
        Ok(heard) => {
            all.extend(heard.into_iter().filter_map(|heard| match heard {
                Heard::Taken(message) => Some(message),
                Heard::Done => None,
            }));
            None
        }
        Err(_) => Some(()),
    });
    all
}

// DUR-1: a node that is told to end while it starts does not take the messages that wait for the script.
#[test]
fn a_start_that_is_cut_short_acknowledges_nothing() {
    for signal in ["-TERM", "-INT", "-TERM", "-TERM"] {
        let home = tempfile::tempdir().unwrap();
        let mut node = node_with(home.path(), "wait 3600");
        node.spawn();
        let mut publishers = publishers(&node, 16);
        node.signal(signal);
        for publisher in &mut publishers {
            assert_eq!(acknowledged(publisher), [0; 0], "nobody stored it: {}", node.log());
        }
        assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    }
}

// DUR-1: after a script that failed nobody knows what the messages were for.
#[test]
fn a_start_that_failed_acknowledges_only_what_somebody_takes() {
    let home = tempfile::tempdir().unwrap();
    let mut node = node_with(home.path(), "wait 1\nfrobnicate it");
    node.spawn();
    // Those that come before the script has failed, and those that come later.
    for time in ["before", "after"] {
        for publisher in &mut publishers(&node, 4) {
            assert_eq!(acknowledged(publisher), [0; 0], "{time}: {}", node.log());
        }
    }
    let status = node.get("get status").body;
    assert!(status.contains("the start script failed"), "{status}");
    // Who mends it says so by a script that succeeds.
    let mended = node.root().join("mended.al");
    std::fs::write(&mended, "mended = true\n").unwrap();
    node.post(&format!("process {}", mended.display()));
    assert!(!node.get("get status").body.contains("the start script"));
    for (number, publisher) in publishers(&node, 2).iter_mut().enumerate() {
        let heard =
            eventually("an acknowledgement", || publisher.hear(Duration::from_secs(1)).unwrap().first().copied());
        assert_eq!(heard, Heard::Taken(number));
    }
}
