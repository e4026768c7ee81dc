//! The client of an external broker: a real mosquitto.

use std::process::{Child, Command, Stdio};

use super::harness::{Operator, eventually, free_ports, messages, publish};

struct Mosquitto {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let [port] = free_ports();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\npersistence true\npersistence_location {}/\nuser root\n",
            directory.path().display()
        );
        std::fs::write(directory.path().join("mosquitto.conf"), config).expect("a configuration");
        let child = Self::spawn(&directory);
        let broker = Self { child, port, directory };
        broker.wait_until_it_listens();
        broker
    }

    fn spawn(directory: &tempfile::TempDir) -> Child {
        let program =
            if std::path::Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        Command::new(program)
            .arg("-c")
            .arg(directory.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed")
    }

    fn wait_until_it_listens(&self) {
        eventually("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    fn restart(&mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        self.child.wait().expect("ends");
        self.child = Self::spawn(&self.directory);
        self.wait_until_it_listens();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn subscribe(node: &Operator, broker: u16, topic: &str, table: &str, qos: u8) {
    let command = format!(
        "run msg client where broker=127.0.0.1 and port={broker} and topic=(name={topic} and dbms=test and table={table} \
         and qos={qos} and column.timestamp.timestamp=\"bring [timestamp]\" and column.value=(type=float and value=\"bring [value]\"))"
    );
    node.post(&command).ok();
    eventually("the client is connected and subscribed", || {
        let clients = node.get("get msg client").ok();
        clients.contains("Connection:   Connected\r\n").then_some(())
    });
}

#[test]
fn messages_of_an_external_broker_become_rows() {
    let node = Operator::start();
    let broker = Mosquitto::start();
    subscribe(&node, broker.port, "line/+/out", "external", 1);
    publish(broker.port, "line/7/out", 1, "mqttv311", &messages(0..200));
    eventually("all rows are there", || (numbers(&node, "external") == (200, 200)).then_some(()));
    let clients = node.get("get msg client").ok();
    let id = clients.split("Subscription ID: ").last().and_then(|rest| rest.split_whitespace().next()).expect("an id");
    node.post(&format!("exit msg client {id}")).ok();
    assert!(!node.get("get msg client").ok().contains("line/+/out"));
}

#[test]
fn a_broker_that_restarts_is_subscribed_to_again() {
    // R1, R2
    let node = Operator::start();
    let mut broker = Mosquitto::start();
    subscribe(&node, broker.port, "numbers", "numbers", 1);
    for round in 0..3u64 {
        publish(broker.port, "numbers", 1, "mqttv311", &messages(round * 50..round * 50 + 50));
        eventually("the rows of this round are there", || {
            let rows =
                node.get("sql test format=json and stat=false \"select count(distinct value) as n from numbers\"");
            (rows.status == 200 && rows.json()["Query"][0]["n"] == (round + 1) * 50).then_some(())
        });
        broker.restart();
        eventually("the client is back", || {
            node.get("get msg client").ok().contains("Connection:   Connected\r\n").then_some(())
        });
    }
}

/// Distinct values and all rows of a table; zeros while there is none.
fn numbers(node: &Operator, table: &str) -> (u64, u64) {
    let rows = node.get(&format!(
        "sql test format=json and stat=false \"select count(distinct value) as n, count(*) as m from {table}\""
    ));
    if rows.status != 200 {
        return (0, 0);
    }
    let row = &rows.json()["Query"][0];
    (row["n"].as_u64().unwrap_or(0), row["m"].as_u64().unwrap_or(0))
}

// R4
#[test]
fn what_is_published_while_the_node_is_away_is_stored_when_it_is_back() {
    let mut node = Operator::start();
    let broker = Mosquitto::start();
    subscribe(&node, broker.port, "numbers", "numbers", 1);
    publish(broker.port, "numbers", 1, "mqttv311", &messages(0..10));
    eventually("the first rows", || (numbers(&node, "numbers") == (10, 10)).then_some(()));
    node.signal("-TERM");
    node.wait();
    publish(broker.port, "numbers", 1, "mqttv311", &messages(10..1010));
    node.launch();
    subscribe(&node, broker.port, "numbers", "numbers", 1);
    eventually("all rows", || (numbers(&node, "numbers") == (1010, 1010)).then_some(()));
}

/// How often the node is killed: a few times in every run, `ANYLOG_FAULT_ROUNDS` times when it is set.
fn rounds() -> u64 {
    std::env::var("ANYLOG_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

// R4, DUR-2, MQTT-4.3.3-2: with QoS 2 each message is one row, however often the node is killed.
#[test]
fn qos_2_is_stored_exactly_once_over_kills_of_the_node() {
    const ROUND: u64 = 2000;
    let mut node = Operator::start();
    let broker = Mosquitto::start();
    subscribe(&node, broker.port, "numbers", "numbers", 2);
    for round in 0..rounds() {
        let port = broker.port;
        let publisher = std::thread::spawn(move || {
            publish(port, "numbers", 2, "mqttv311", &messages(round * ROUND..(round + 1) * ROUND));
        });
        // In the middle of it, each time a little later.
        eventually("some rows of this round", || {
            (numbers(&node, "numbers").0 > round * ROUND + 20 + round % 8 * 200).then_some(())
        });
        node.kill();
        publisher.join().expect("the broker takes all messages");
        node.launch();
        subscribe(&node, broker.port, "numbers", "numbers", 2);
        let all = (round + 1) * ROUND;
        eventually("all rows of this round", || (numbers(&node, "numbers").0 == all).then_some(()));
        assert_eq!(numbers(&node, "numbers"), (all, all), "messages, rows");
    }
}
