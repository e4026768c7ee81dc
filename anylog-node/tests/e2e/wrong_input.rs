//! Wrong input: an error that names the cause, and the node lives on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::harness::Operator;

#[test]
fn commands_that_are_wrong_say_what_and_where() {
    let node = Operator::start();
    // (command, method, status, words that the error must hold) - OPS-1
    let cases: &[(&str, &str, u16, &[&str])] = &[
        ("get ststus", "GET", 400, &["get ststus", "get status"]),
        ("frobnicate the node", "POST", 400, &["frobnicate"]),
        ("connect dbms x where typ=sqlite", "POST", 400, &["typ", "type"]),
        ("connect dbms x where type=oracle", "POST", 400, &["oracle"]),
        ("connect dbms", "POST", 400, &["dbms"]),
        ("set buffer threshold where time=soon", "POST", 400, &["soon"]),
        ("blockchain insert where policy={\"a\": and local=true", "POST", 400, &["bracket"]),
        ("blockchain insert where policy={\"operator\": {\"name\": \"x\"}} and local=true", "POST", 400, &["cluster"]),
        ("sql nodb \"select 1 from t\"", "GET", 404, &["nodb"]),
        ("sql test \"select * from nosuch\"", "GET", 404, &["nosuch"]),
        ("sql test \"selec * from t\"", "GET", 400, &["selec"]),
        ("partition test t using ts by 3 fortnights", "POST", 400, &["fortnight"]),
        ("run operator where create_table=true", "POST", 409, &["already"]),
        ("process scripts/nosuch.al", "POST", 404, &["nosuch.al"]),
        ("process /etc/hosts", "POST", 403, &["/etc/hosts", "work directories"]),
        ("connect dbms x where type=sqlite", "GET", 405, &["POST"]),
    ];
    for (command, method, status, words) in cases {
        let answer = if *method == "GET" { node.get(command) } else { node.post(command) };
        assert_eq!(answer.status, *status, "{command}: {}", answer.body);
        for word in *words {
            assert!(answer.body.contains(word), "'{word}' is missing for {command}: {}", answer.body);
        }
    }
    assert!(node.get("get status").ok().contains("running"));
}

#[test]
fn garbage_on_every_port_is_refused_and_the_node_lives_on() {
    let node = Operator::start();
    let garbage: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let starts: &[&[u8]] =
        &[&garbage, b"\x10\xff\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01"];
    for port in [node.tcp, node.rest] {
        for start in starts {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            stream.write_all(start).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
        }
    }
    assert!(node.get("get status").ok().contains("running"));
    node.publish(super::harness::TOPIC, 1, "mqttv311", &super::harness::messages(0..3));
    assert_eq!(node.count("rand_data"), 3);
}

#[test]
fn a_script_with_an_unbalanced_brace_names_file_and_line() {
    let home = tempfile::tempdir().expect("a home");
    let script = home.path().join("broken.al");
    std::fs::write(&script, "set a = b\npolicy = {\"x\": {\n  \"y\": 1\n").expect("a script");
    let output = Command::new(env!("CARGO_BIN_EXE_anylog-node"))
        .arg("--home")
        .arg(home.path())
        .arg("process")
        .arg(&script)
        .args(["and", "exit node"])
        .output()
        .expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("broken.al") && text.contains('2') && text.contains("bracket"), "{text}");
}
