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
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nuser root\n",
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

fn subscribe(node: &Operator, broker: u16, topic: &str, table: &str) {
    let command = format!(
        "run msg client where broker=127.0.0.1 and port={broker} and topic=(name={topic} and dbms=test and table={table} \
         and qos=1 and column.timestamp.timestamp=\"bring [timestamp]\" and column.value=(type=float and value=\"bring [value]\"))"
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
    subscribe(&node, broker.port, "line/+/out", "external");
    publish(broker.port, "line/7/out", 1, "mqttv311", &messages(0..200));
    eventually("all rows are there", || {
        (node.rows("select count(*) as n from external").first()?["n"] == 200).then_some(())
    });
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
    subscribe(&node, broker.port, "numbers", "numbers");
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
