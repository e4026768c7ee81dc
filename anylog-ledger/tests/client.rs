//! `run client`: commands for other nodes, in all its forms.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

// Each test program uses a part of it.
#[allow(dead_code)]
mod support;

use std::sync::Arc;

use anylog_core::{Caller, CommandResult, Session, Status, Surface};
use anylog_ledger::client::{Destination, NetworkSql};
use async_trait::async_trait;
use serde_json::json;
use support::{TestNode, Wires, policy, until};

const HERE: &str = "10.0.0.1:32348";
const ONE: &str = "10.0.0.2:32148";
const TWO: &str = "10.0.0.3:32148";

/// A query node and two operators, whose policies it knows; each operator answers `get !name` with its own.
async fn network() -> (Arc<Wires>, TestNode, TestNode, TestNode) {
    let wires = Arc::new(Wires::default());
    let here = TestNode::new(&wires, HERE, false);
    let nodes = [ONE, TWO].map(|address| TestNode::new(&wires, address, false));
    let mut cluster = String::new();
    for (number, (address, node)) in [ONE, TWO].iter().zip(&nodes).enumerate() {
        let (ip, port) = address.split_once(':').unwrap();
        let made = policy(json!({"cluster": {"name": format!("c{number}"), "company": "co"}}));
        cluster = here.ledger.add(made).await.unwrap().id().to_owned();
        let operator = json!({"name": format!("op{number}"), "company": "co", "ip": ip, "port": port.parse::<u16>().unwrap(),
            "cluster": cluster, "country": if number == 0 { "US" } else { "FR" }});
        here.ledger.add(policy(json!({"operator": operator}))).await.unwrap();
        node.ledger.node().dictionary.set("name", format!("name of {number}"));
    }
    let table = json!({"name": "c1", "company": "co", "parent": cluster, "table": [{"dbms": "d", "name": "t"}]});
    here.ledger.add(policy(json!({"cluster": table}))).await.unwrap();
    let [one, two] = nodes;
    (wires, here, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_destination_reaches_its_nodes() {
    let (_wires, here, _one, _two) = network().await;
    let from = |node: &str, text: &str| format!("\r\n[From Node {node}] {text}");
    let (one, two) = (from(ONE, "name of 0"), from(TWO, "name of 1"));
    here.ledger.node().dictionary.set("dest", TWO);
    here.ledger.node().dictionary.set("both", format!("{ONE},{TWO}"));
    here.ledger.node().dictionary.set("query", "blockchain get operator where [country] contains US");
    here.ledger.node().dictionary.set("ip", "10.0.0.2");
    for (destination, expected) in [
        (ONE.to_owned(), one.clone()),
        ("10.0.0.2 32148".to_owned(), one.clone()),
        ("!ip 32148".to_owned(), one.clone()),
        (format!("({ONE})"), one.clone()),
        (format!("({TWO}, {ONE})"), format!("{two}{one}")),
        (format!("({TWO}, {TWO})"), two.clone()),
        ("!dest".to_owned(), two.clone()),
        ("(!dest)".to_owned(), two.clone()),
        ("(!both)".to_owned(), format!("{one}{two}")),
        ("(!query)".to_owned(), one.clone()),
        ("(blockchain get operator bring.ip_port)".to_owned(), format!("{one}{two}")),
        ("(blockchain get operator where name = op1)".to_owned(), two.clone()),
        (
            "(blockchain get operator bring [operator][ip] : [operator][port] separator = ,)".to_owned(),
            format!("{one}{two}"),
        ),
        ("(operator)".to_owned(), format!("{one}{two}")),
        ("(operator where country = FR)".to_owned(), two.clone()),
        ("((operator, query) where [country] contains US)".to_owned(), one.clone()),
        ("(dbms = d, table = t)".to_owned(), two.clone()),
        (format!("({ONE}, operator where country = FR, timeout = 5, subset = true)"), format!("{one}{two}")),
    ] {
        assert_eq!(here.run(&format!("run client {destination} get !!name")).await, Ok(expected), "{destination}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_names_nobody_says_so() {
    let (_wires, here, ..) = network().await;
    for (call, status, words) in [
        ("run client", Status::NO_DESTINATION, "Missing destination"),
        ("run client (10.0.0.2:32148)", Status::COMMAND_STRUCTURE, "Missing command"),
        ("run client () get status", Status::NO_DESTINATION, "names no node"),
        ("run client (!unset) get status", Status::NO_DESTINATION, "!unset"),
        ("run client (operator where name = nobody) get status", Status::NO_DESTINATION, "nobody"),
        ("run client (operatr) get status", Status::NO_DESTINATION, "did you mean 'operator'"),
        ("run client 10.0.0.2 get status", Status::NO_DESTINATION, "10.0.0.2:32148"),
        ("run client (dbms = nothing) get status", Status::NO_DESTINATION, "dbms = nothing"),
        ("run client (a:b:c) get status", Status::DESTINATION, "a:b:c"),
        ("run client (10.0.0.2:32148, timeout = soon) get status", Status::TIMEOUT_VALUE, "soon"),
        ("run client (10.0.0.2:32148, subset = perhaps) get status", Status::COMMAND_STRUCTURE, "perhaps"),
        ("run client (10.0.0.2:32148) print !unset", Status::COMMAND_STRUCTURE, "!unset"),
        ("run client 10.0.0.9:1 get status", Status::REFUSED, "10.0.0.9:1"),
        ("run client 10.0.0.2:32148 frobnicate", Status::UNRECOGNIZED_COMMAND, "frobnicate"),
    ] {
        let error = here.run(call).await.unwrap_err();
        assert!(error.status == status && error.to_string().contains(words), "{call}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_fails_the_call_unless_a_part_will_do() {
    let (wires, here, ..) = network().await;
    wires.cut(TWO, true);
    let error = here.run("run client (operator) get !!name").await.unwrap_err();
    assert!(error.status == Status::REFUSED && error.message.contains(TWO), "{error}");
    // Programs get an object, which names it too.
    here.run(&format!("y = run client ({ONE}) blockchain add {{\"site\": {{\"name\": \"s\"}}}}")).await.unwrap();
    let asked = here.run("x = run client (operator, subset = true) blockchain get site bring.json [site][name]").await;
    asked.unwrap();
    let value = here.ledger.node().dictionary.get("x").unwrap();
    let value: serde_json::Value = serde_json::from_str(&value).unwrap_or_else(|error| panic!("{error} in {value}"));
    assert!(value["Missing Nodes"][0].as_str().unwrap().starts_with("node 10.0.0.3:32148 cannot"), "{value}");
    // Every node that failed is named, and what to do for the others' answers.
    assert!(error.message.starts_with("1 of 2 nodes failed: node") && error.to_string().contains("subset"), "{error}");
    let part = here.run("run client (operator, subset = true) get !!name").await.unwrap();
    assert!(part.contains(&format!("[From Node {ONE}] name of 0")) && part.contains("cannot be reached"), "{part}");
    // The ledger knows now who answers.
    assert!(here.ledger.is_active(ONE) && !here.ledger.is_active(TWO));
    wires.cut(ONE, true);
    let error = here.run("run client (operator, subset = true) get !!name").await.unwrap_err();
    assert!(error.message.starts_with("2 of 2 nodes failed: node 10.0.0.2:32148 cannot"), "{error}");
    assert!(error.message.contains("; node 10.0.0.3:32148 cannot") && !error.to_string().contains("subset"), "{error}");
    // What the command itself says arrives whole.
    wires.cut(ONE, false);
    let error = here.run(&format!("run client {ONE} frobnicate it")).await.unwrap_err();
    assert!(error.status == Status::UNRECOGNIZED_COMMAND && error.message.contains(ONE), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_assigned() {
    let (_wires, here, ..) = network().await;
    let value = |name: &str| here.ledger.node().dictionary.get(name).unwrap_or_default();
    here.run(&format!("x = run client {ONE} get !!name")).await.unwrap();
    assert_eq!(value("x"), "name of 0");
    here.run("x = run client (operator) get !!name").await.unwrap();
    assert_eq!(value("x"), format!("\r\n[From Node {ONE}] name of 0\r\n[From Node {TWO}] name of 1"));
    here.run("y = run client (operator) blockchain add {\"site\": {\"name\": \"s\"}}").await.unwrap();
    here.run("x = run client (operator) blockchain get site bring.json [site][name]").await.unwrap();
    assert_eq!(value("x"), format!(r#"{{"{ONE}": [{{"name": "s"}}], "{TWO}": [{{"name": "s"}}]}}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_collected_while_they_arrive() {
    let (wires, here, ..) = network().await;
    let dictionary = &here.ledger.node().dictionary;
    here.run("all{} = run client (operator) get !!name").await.unwrap();
    assert_eq!(here.run("wait 5 for !all.diff == 0").await.unwrap_or_default(), "");
    let expected = format!(r#"{{"{ONE}": "name of 0", "{TWO}": "name of 1"}}"#);
    until("both answered", || dictionary.get("all").as_deref() == Some(expected.as_str())).await;
    assert_eq!(here.run("!all.len").await.unwrap(), "2");
    assert_eq!(here.run("!all.replies").await.unwrap(), "2");
    wires.cut(TWO, true);
    here.run("all[] = run client (operator) get !!name").await.unwrap();
    let expected = format!(r#"[["{ONE}", "name of 0"], ["{TWO}", null]]"#);
    until("one answered", || dictionary.get("all").as_deref() == Some(expected.as_str())).await;
    assert_eq!(here.run("!all.replies").await.unwrap(), "1");
    assert_eq!(here.run("!all.diff").await.unwrap(), "1");
    assert_eq!(here.run("!all.len").await.unwrap(), "2");
    // An empty answer is an answer.
    wires.cut(TWO, false);
    here.run("all[] = run client (operator) set mark = there").await.unwrap();
    until("both answered", || dictionary.get("all").is_some_and(|all| !all.contains("null"))).await;
    assert_eq!(here.run("!all.diff").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_refers_to_is_meant_here() {
    let (_wires, here, one, _two) = network().await;
    here.run("port = 77").await.unwrap();
    here.run("p = {\"site\": {\"name\": \"x\", \"port\": !port.int}}").await.unwrap();
    here.run(&format!("run client ({ONE}) blockchain add !p")).await.unwrap();
    assert_eq!(one.ledger.policies("site")[0].get("port"), Some(&json!(77)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_rights_by_way_of_another_node() {
    let (_wires, here, one, _two) = network().await;
    let from = "203.0.113.7:1".parse().unwrap();
    let run = async |line: &str| -> CommandResult {
        let mut session = Session::new(Arc::clone(here.ledger.node()), Caller::network(Surface::Rest, from, false));
        session.execute(line).await
    };
    for line in [
        "set mark = there",
        "mark = there",
        "if 1 == 1 then set mark = there",
        "run client (10.0.0.2:32148) set mark = there",
        "get status & set mark = there",
        "frobnicate",
    ] {
        let refused = run(&format!("run client ({ONE}) {line}")).await;
        // After `&` the rest is this node's own command.
        assert_eq!(refused.unwrap_err().status, Status::UNAUTHORIZED, "{line}");
    }
    assert_eq!(one.ledger.node().dictionary.get("mark"), None);
    assert!(run(&format!("run client ({ONE}) blockchain get *")).await.is_ok());
    assert!(run(&format!("run client ({ONE}) run client ({TWO}) blockchain get *")).await.is_ok());
}

/// Says what it was asked.
struct Sql;

#[async_trait]
impl NetworkSql for Sql {
    async fn sql(&self, _: &mut Session, destination: &Destination, command: &str) -> CommandResult {
        Ok(format!("{:?} {} {command}", destination.nodes, destination.subset).into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_goes_to_who_can_join_its_answers() {
    let (_wires, here, ..) = network().await;
    let error = here.run("run client () sql d \"select 1\"").await.unwrap_err();
    assert_eq!(error.status, Status::NO_DESTINATION);
    here.ledger.set_network_sql(Arc::new(Sql));
    let asked = here.run("run client () sql d \"select  1\"").await.unwrap();
    assert_eq!(asked, "[] false sql d \"select  1\"");
    let asked = here.run("run client (operator, subset = true) sql d format = json \"select 1\"").await.unwrap();
    assert_eq!(asked, format!("{:?} true sql d format = json \"select 1\"", [ONE, TWO]));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways() {
    let (wires, here, one, _two) = network().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    // More than two parts, the last one full and then empty.
    for (name, length) in [("empty", 0), ("short", 5), ("long", 2 * 256 * 1024)] {
        let text: String = "abcdefgh".chars().cycle().take(length).collect();
        std::fs::write(at(name), &text).unwrap();
        let (source, sent, back) = (at(name), at("sent"), at("back"));
        let said = here.run(&format!("run client ({ONE}) file copy {source} {sent}")).await.unwrap();
        assert_eq!(said, format!("{length} bytes to {ONE}"));
        assert_eq!(std::fs::read_to_string(&sent).unwrap(), text);
        here.run(&format!("run client ({ONE}) file get {sent} {back}")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&back).unwrap(), text);
    }
    let names = || {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(!names().iter().any(|name| name.ends_with(".transfer")), "{:?}", names());
    let watch = one.ledger.node().directories.directory(&one.ledger.node().dictionary, "watch_dir");
    std::fs::create_dir_all(&watch).unwrap();
    here.run(&format!("run client ({ONE}) file copy {} d.t.json watch_dir", at("short"))).await.unwrap();
    assert_eq!(std::fs::read_to_string(watch.join("d.t.json")).unwrap(), "abcde");

    let error = here.run(&format!("run client ({ONE}) file get {} {}", at("nothing"), at("x"))).await.unwrap_err();
    assert!(error.status == Status::NO_SUCH_FILE && error.message.contains("nothing"), "{error}");
    let error = here.run(&format!("run client (operator) file get {}", at("short"))).await.unwrap_err();
    assert!(error.message.contains("one node"), "{error}");
    wires.cut(ONE, true);
    assert!(here.run(&format!("run client ({ONE}) file copy {} {}", at("short"), at("y"))).await.is_err());
    assert!(here.run("file get a b").await.unwrap_err().hint.unwrap().contains("run client"));
    // Over a network only work directories are open.
    let mut session = Session::new(
        Arc::clone(one.ledger.node()),
        Caller::network(Surface::Peer, "127.0.0.1:1".parse().unwrap(), false),
    );
    for line in ["file read /etc/hostname".to_owned(), format!("file write part {} 1 0 x00 true", at("z"))] {
        assert_eq!(session.execute(&line).await.unwrap_err().status, Status::UNAUTHORIZED, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_go_to_a_directory() {
    let (_wires, here, one, _two) = network().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::create_dir_all(at("out/sub")).unwrap();
    std::fs::create_dir_all(at("in")).unwrap();
    for name in ["block.json", "bloc k.js", "other.json", "block.txt"] {
        std::fs::write(at(&format!("out/{name}")), name).unwrap();
    }
    let names = |place: &str| {
        let entries = std::fs::read_dir(at(place)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    here.ledger.node().dictionary.set("out", at("out"));
    one.ledger.node().dictionary.set("in", at("in"));
    let said = here.run(&format!("run client ({ONE}) file copy !out/bl*.js* !!in/")).await.unwrap();
    assert_eq!(said, format!("bloc k.js: 9 bytes to {ONE}\r\nblock.json: 10 bytes to {ONE}"));
    assert_eq!(names("in"), ["bloc k.js", "block.json"]);
    here.run(&format!("run client ({ONE}) file copy !out/* !!in/")).await.unwrap();
    assert_eq!(names("in"), ["bloc k.js", "block.json", "block.txt", "other.json"]);
    // One file to a directory keeps its name.
    here.run(&format!("run client ({ONE}) file copy !out/block.txt {}/", at("out/sub"))).await.unwrap();
    assert_eq!(names("out/sub"), ["block.txt"]);
    for (command, told) in [
        ("file copy !out/*.none !!in/", "No file fits"),
        ("file copy !out/* !!in", "ends in '/'"),
        ("file copy /tmp/*/x* !!in/", "only the name"),
        ("file copy !out/block.txt ledger", "blockchain seed from"),
        ("file copy a .. watch_dir", "names no file"),
        ("file get /x/..", "names no file"),
        ("file get !!in/*", "one file is fetched at a time"),
        ("file get (dbms = blobs_d and table = t and id = 1) x", "keeps no files in databases"),
    ] {
        let error = here.run(&format!("run client ({ONE}) {command}")).await.unwrap_err().to_string();
        assert!(error.contains(told), "{command}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_within_a_node() {
    let (_wires, here, ..) = network().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::create_dir_all(at("to")).unwrap();
    let long: String = "0123456789".chars().cycle().take(3 * 256 * 1024 + 7).collect();
    std::fs::write(at("a.json"), &long).unwrap();
    std::fs::write(at("b c.json"), "").unwrap();
    let node = here.ledger.node();
    node.dictionary.set("from", directory.path().display().to_string());
    node.dictionary.set("to", at("to"));
    let told = here.run("file copy !from/a.json !to/copy.json").await.unwrap();
    assert_eq!(told, format!("{} bytes in {}", long.len(), at("to/copy.json")));
    assert_eq!(std::fs::read_to_string(at("to/copy.json")).unwrap(), long);
    let told = here.run("file copy !from/*.json !to/").await.unwrap();
    assert_eq!(
        told,
        format!("a.json: {} bytes in {}\r\nb c.json: 0 bytes in {}", long.len(), at("to/a.json"), at("to/b c.json"))
    );
    let watch = node.directories.directory(&node.dictionary, "watch_dir");
    std::fs::create_dir_all(&watch).unwrap();
    here.run("file copy !from/a.json d.t.json watch_dir").await.unwrap();
    assert_eq!(std::fs::read_to_string(watch.join("d.t.json")).unwrap(), long);
    for (command, told) in [
        ("file copy", "Missing file"),
        ("file copy !from/none !to/", "none"),
        ("file copy !from/a.json !to", "failed"),
        ("file copy !from/* !to", "ends in '/'"),
        ("file copy !from/a.json a b c", "Too many words"),
    ] {
        let error = here.run(command).await.unwrap_err().to_string();
        assert!(error.contains(told), "{command}: {error}");
    }
    let names = || {
        let entries = std::fs::read_dir(directory.path()).unwrap().chain(std::fs::read_dir(at("to")).unwrap());
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(!names().iter().any(|name| name.ends_with(".transfer")), "{:?}", names());
    // Over a network only work directories are open, and only to administrators.
    let peer = Caller::network(Surface::Peer, "127.0.0.1:1".parse().unwrap(), false);
    let mut session = Session::new(Arc::clone(node), peer);
    for line in [format!("file copy {} x", at("a.json")), format!("file copy !watch_dir/d.t.json {}", at("z"))] {
        assert_eq!(session.execute(&line).await.unwrap_err().status, Status::UNAUTHORIZED, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_work_directories() {
    let (_wires, here, one, _two) = network().await;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret").display().to_string();
    std::fs::write(&secret, "secret").unwrap();
    for node in [&here, &one] {
        node.ledger.node().directories.create().unwrap();
        let root = node.ledger.node().directories.root();
        std::os::unix::fs::symlink(outside.path(), root.join("data/tmp/door")).unwrap();
        std::os::unix::fs::symlink(&secret, root.join("data/tmp/link.json")).unwrap();
        std::fs::write(root.join("data/tmp/own.json"), "own").unwrap();
    }
    // A caller from elsewhere, even one that administers both nodes.
    let from = "203.0.113.7:1".parse().unwrap();
    let run = async |node: &TestNode, line: &str| -> CommandResult {
        let mut session = Session::new(Arc::clone(node.ledger.node()), Caller::network(Surface::Peer, from, true));
        session.execute(line).await
    };
    let up = "../".repeat(12);
    for path in [
        secret.clone(),
        format!("{up}{secret}"),
        "data/tmp/door/secret".to_owned(),
        "data/tmp/link.json".to_owned(),
        "data/tmp/door/../secret".to_owned(),
        "!tmp_dir/door/secret".to_owned(),
        format!("!tmp_dir/{up}{secret}"),
    ] {
        for line in [
            format!("file read \"{path}\""),
            format!("file write part \"{path}\" 1 0 x00 true"),
            format!("run client ({ONE}) file copy \"{path}\" stolen"),
            format!("run client ({ONE}) file get own \"{path}\""),
        ] {
            let error = run(&one, &line).await.map(|_| ()).unwrap_err();
            assert_eq!(error.status, Status::UNAUTHORIZED, "{line}: {error}");
        }
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    // A pattern finds what is his to have, and no more.
    let said = run(&here, &format!("run client ({ONE}) file copy !tmp_dir/*.json !!bkup_dir/")).await.unwrap();
    assert_eq!(said.into_text().await.unwrap(), format!("own.json: 3 bytes to {ONE}"));
    let listed = run(&here, &format!("run client ({ONE}) file copy !tmp_dir/door/* !!bkup_dir/")).await;
    assert_eq!(listed.map(|_| ()).unwrap_err().status, Status::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_tested() {
    let (wires, here, one, _two) = network().await;
    wires.cut(TWO, true);
    let status = here.run("test network").await.unwrap();
    assert!(status.contains(ONE) && status.contains("op1") && status.contains("cannot be reached"), "{status}");
    let versions = here.run("test network metadata version where format = json").await.unwrap();
    assert!(versions.contains(&one.ledger.version()) && versions.contains("\"false\""), "{versions}");
}
