//! A network of real processes: a master, two operators in clusters, a query node.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::harness::process::{Process, binary};
use super::harness::server::Server;
use super::harness::{eventually, free_ports, server_for};

/// A node that a script of its own sets up.
struct Node {
    home: TempDir,
    tcp: u16,
    rest: u16,
    script: String,
    process: Option<Process>,
    // After the process, which is to end first.
    _server: Option<Server>,
}

impl Node {
    /// Starts a node whose script begins with its servers and goes on with `lines`.
    fn start(lines: &str) -> Self {
        let [tcp, rest] = free_ports();
        let servers = format!(
            "run tcp server where internal_ip = 127.0.0.1 and internal_port = {tcp} and bind = true\n\
             run rest server where internal_ip = 127.0.0.1 and internal_port = {rest} and bind = true\n"
        );
        let home = tempfile::tempdir().unwrap();
        let server = if lines.contains("connect dbms") { server_for("") } else { None };
        let lines = match &server {
            Some(server) => {
                let psql = format!("type = psql and ip = 127.0.0.1 and port = {} and user = anylog", server.port);
                lines.replace("type = sqlite", &psql)
            }
            None => lines.to_owned(),
        };
        let mut node = Self { home, tcp, rest, script: format!("{servers}{lines}\n"), process: None, _server: server };
        node.launch();
        node
    }

    fn launch(&mut self) {
        let script = self.home.path().join("node.al");
        fs::write(&script, format!("{}set ready = yes\n", self.script)).unwrap();
        let mut command = Command::new(binary());
        command.arg("--home").arg(self.home.path()).arg("process").arg(script).stdin(Stdio::null());
        self.process = Some(Process::start(&mut command, &self.home.path().join("node.log")));
        eventually("the script came to its end", || (self.get("get !ready").1.contains("yes")).then_some(()));
    }

    fn kill(&mut self) {
        self.process.take().expect("a running node").kill();
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.tcp)
    }

    fn request(&self, method: &str, headers: &[String]) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "30", "-w", "\n%{http_code}", "-X", method]);
        for header in headers {
            curl.args(["-H", header]);
        }
        let output = curl.arg(format!("http://127.0.0.1:{}", self.rest)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap_or((text.as_str(), "0"));
        (status.parse().unwrap_or(0), body.to_owned())
    }

    fn get(&self, command: &str) -> (u16, String) {
        self.request("GET", &[format!("command: {command}")])
    }

    fn post(&self, command: &str) -> (u16, String) {
        self.request("POST", &[format!("command: {command}")])
    }

    fn version(&self) -> String {
        self.get("get metadata version").1
    }

    /// The values of `attribute` over the policies of a type.
    fn list(&self, kind: &str, attribute: &str) -> Vec<String> {
        let (_, body) = self.get(&format!("blockchain get {kind}"));
        let policies: Vec<Value> = serde_json::from_str(&body).unwrap_or_default();
        policies.iter().map(|policy| policy[kind][attribute].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn master() -> Node {
    Node::start(
        "connect dbms blockchain where type = sqlite\n\
         create table ledger where dbms = blockchain\n\
         run blockchain sync where source = dbms and time = 60 seconds and dest = file",
    )
}

/// A node that follows the master; the period of its synchroniser is a minute.
fn follower(master: &Node, lines: &str) -> Node {
    let master = master.address();
    Node::start(&format!(
        "run blockchain sync where source = master and time = 60 seconds and dest = file and connection = {master}\n{lines}"
    ))
}

fn insert(node: &Node, master: &Node, policy: &str) -> (u16, String) {
    node.post(&format!("blockchain insert where policy = {policy} and local = true and master = {}", master.address()))
}

fn versions_become_equal(nodes: &[&Node]) {
    eventually("all nodes have one version", || {
        let versions: Vec<String> = nodes.iter().map(|node| node.version()).collect();
        versions.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    });
}

#[test]
fn what_one_operator_inserts_is_at_the_query_node_within_a_second() {
    let master = master();
    let (one, query) = (follower(&master, ""), follower(&master, ""));
    for number in 0..3 {
        let policy = format!(r#"{{"cluster": {{"name": "c{number}", "company": "co"}}}}"#);
        let (status, body) = insert(&one, &master, &policy);
        assert_eq!(status, 200, "{body}");
        let inserted = Instant::now();
        let seen = loop {
            if query.get(&format!("blockchain get cluster where name = c{number}")).1.contains("\"co\"") {
                break inserted.elapsed();
            }
            assert!(inserted.elapsed() < Duration::from_secs(30), "never seen");
        };
        assert!(seen < Duration::from_secs(1), "{seen:?}");
    }
    // LED-4
    versions_become_equal(&[&master, &one, &query]);
}

#[test]
fn a_master_that_was_killed_gets_what_was_written_meanwhile() {
    let mut master = master();
    let nodes = [follower(&master, ""), follower(&master, ""), follower(&master, "")];
    assert_eq!(insert(&nodes[0], &master, r#"{"cluster": {"name": "before", "company": "co"}}"#).0, 200);
    master.kill();
    for number in 0..12 {
        let policy = format!(r#"{{"site": {{"name": "s{number}"}}}}"#);
        let (status, body) = insert(&nodes[number % 2], &master, &policy);
        assert_eq!(status, 200, "{body}");
    }
    master.launch();
    // LED-3: nothing is lost; LED-4: all agree.
    let mut expected: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    expected.sort();
    for node in nodes.iter().chain([&master]) {
        eventually("all policies are everywhere", || {
            let mut names = node.list("site", "name");
            names.sort();
            (names == expected).then_some(())
        });
        assert_eq!(node.list("cluster", "name"), ["before"]);
    }
    versions_become_equal(&[&master, &nodes[0], &nodes[1], &nodes[2]]);
    // A node that is killed itself has its copy, and catches up with what it missed.
    let [mut one, two, _] = nodes;
    one.kill();
    assert_eq!(insert(&two, &master, r#"{"site": {"name": "late"}}"#).0, 200);
    one.launch();
    eventually("it caught up", || one.list("site", "name").contains(&"late".to_owned()).then_some(()));
    versions_become_equal(&[&master, &one, &two]);
}

#[test]
fn of_two_operators_with_one_address_exactly_one_is_taken() {
    let master = master();
    let nodes = [follower(&master, ""), follower(&master, "")];
    let (status, body) = insert(&nodes[0], &master, r#"{"cluster": {"name": "c", "company": "co", "id": "cluster1"}}"#);
    assert_eq!(status, 200, "{body}");
    eventually("both know the cluster", || nodes.iter().all(|n| n.list("cluster", "name") == ["c"]).then_some(()));
    for round in 0..5_u16 {
        let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
            let attempts: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(number, node)| {
                    let policy = format!(
                        r#"{{"operator": {{"name": "op{round}-{number}", "company": "co", "ip": "10.0.0.1", "port": {}, "cluster": "cluster1"}}}}"#,
                        7000 + round
                    );
                    let master = &master;
                    scope.spawn(move || insert(node, master, &policy))
                })
                .collect();
            attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
        });
        // LED-2
        let told: Vec<&(u16, String)> = answers.iter().filter(|(status, _)| *status != 200).collect();
        assert!(told.len() == 1 && told[0].1.contains("10.0.0.1"), "{answers:?}");
    }
    eventually("five are known", || (nodes[1].list("operator", "name").len() == 5).then_some(()));
    versions_become_equal(&[&master, &nodes[0], &nodes[1]]);
}

#[test]
fn commands_run_at_other_nodes() {
    let master = master();
    let (one, two) = (follower(&master, "set place = here"), follower(&master, "set place = there"));
    let query = follower(&master, "");
    for (number, node) in [&one, &two].into_iter().enumerate() {
        let cluster = format!(r#"{{"cluster": {{"name": "c{number}", "company": "co", "id": "cluster{number}"}}}}"#);
        assert_eq!(insert(node, &master, &cluster).0, 200);
        let operator = format!(
            r#"{{"operator": {{"name": "op{number}", "company": "co", "ip": "127.0.0.1", "port": {}, "cluster": "cluster{number}"}}}}"#,
            node.tcp
        );
        let (status, body) = insert(node, &master, &operator);
        assert_eq!(status, 200, "{body}");
    }
    eventually("both operators are known", || (query.list("operator", "name").len() == 2).then_some(()));
    let (status, both) = query.get("run client (blockchain get operator bring.ip_port) get !!place");
    let expected = [(&one, "here"), (&two, "there")].map(|(n, text)| format!("\r\n[From Node {}] {text}", n.address()));
    assert_eq!((status, both), (200, expected.concat()));
    let to = ["command: get !!place".to_owned(), "destination: operator where name = op1".to_owned()];
    assert_eq!(query.request("GET", &to).1, expected[1]);

    assert_eq!(query.post("all{} = run client (operator) get !!place").0, 200);
    let collected = format!(r#"{{"{}": "here", "{}": "there"}}"#, one.address(), two.address());
    eventually("both answers are collected", || (query.get("!all").1.trim() == collected).then_some(()));

    let tmp = |node: &Node, name: &str| node.home.path().join("AnyLog-Network/data/tmp").join(name);
    for node in [&query, &one] {
        fs::create_dir_all(tmp(node, "")).unwrap();
    }
    let text = "{\"value\": 1}\n".repeat(100_000);
    fs::write(tmp(&query, "x.json"), &text).unwrap();
    let to_one = format!("run client ({})", one.address());
    let (status, body) = query.post(&format!("{to_one} file copy !tmp_dir/x.json !!tmp_dir/y.json"));
    assert_eq!(status, 200, "{body}");
    assert_eq!(fs::read_to_string(tmp(&one, "y.json")).unwrap(), text);
    let (status, body) = query.post(&format!("{to_one} file get !!tmp_dir/y.json !tmp_dir/z.json"));
    assert_eq!(status, 200, "{body}");
    assert_eq!(fs::read_to_string(tmp(&query, "z.json")).unwrap(), text);
    let (status, body) = query.post(&format!("{to_one} file get /etc/hostname !tmp_dir/h"));
    assert!(status == 403 && body.contains("work directories"), "{status} {body}");

    let (status, text) = query.post("run client 127.0.0.1:1 get status");
    assert!(status == 502 && text.contains("127.0.0.1:1"), "{status} {text}");
}
