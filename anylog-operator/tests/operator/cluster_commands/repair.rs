//! Members that came to hold different rows.

use anylog_ledger::Policy;
use serde_json::{Value, json};

use super::members::Members;
use super::server::Server;

/// What somebody did to a member's rows behind its back.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Changed,
    Deleted,
    Doubled,
}

impl Harm {
    /// Does it to the row with this number.
    fn done(self, members: &Members, member: usize, n: i64) {
        members.meddle(member, "t", |partition| match self {
            Harm::Changed => format!("UPDATE {partition} SET n = n + 1000 WHERE n = {n}"),
            Harm::Deleted => format!("DELETE FROM {partition} WHERE n = {n}"),
            Harm::Doubled => format!(
                "INSERT INTO {partition}(insert_timestamp, tsd_name, tsd_id, n) \
                 SELECT insert_timestamp, tsd_name, tsd_id, n FROM {partition} WHERE n = {n}"
            ),
        });
    }
}

async fn json_of(members: &Members, member: usize, command: &str) -> Value {
    serde_json::from_str(&members.ask(member, command).await).unwrap()
}

/// Two members with three files each has all of.
async fn two(homes: &std::path::Path) -> Members {
    let members = Members::exchanging(homes, 2).await;
    for node in &members.nodes {
        node.partitioned("insert_timestamp").immediate();
    }
    members.spread(0, "t", 0..20).await;
    members.spread(1, "t", 20..40).await;
    members.spread(0, "t", 40..60).await;
    assert!(members.agree().await);
    members
}

// DUR-6, R20: a row that was changed, deleted or doubled at either member is shown and mended, whoever begins.
#[tokio::test(flavor = "multi_thread")]
async fn harm_to_one_member_is_shown_and_mended() {
    let homes = tempfile::tempdir().unwrap();
    let members = two(homes.path()).await;
    let (file, ..) = members.nodes[0].registered()[0];
    let mut n = 0;
    for harm in [Harm::Changed, Harm::Deleted, Harm::Doubled] {
        // Where the file was produced, and at the mate; begun by the one and by the other.
        for (harmed, begins) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            n += 1;
            harm.done(&members, harmed, n);
            let what = format!("{harm:?} at {harmed}, begun by {begins}");
            let shown = json_of(&members, begins, "test cluster data where detail = digest and format = json").await;
            let other = 2 - begins;
            assert_eq!(shown["tables"][0]["digest"], format!("differs: {other}"), "{what}: {shown}");
            let repaired = json_of(&members, begins, "repair cluster where format = json").await;
            let difference = &repaired["differences"][0];
            assert_eq!(repaired["differences"].as_array().unwrap().len(), 1, "{what}: {repaired}");
            assert_eq!(difference["wrong"], json!([harmed + 1]), "{what}: {repaired}");
            assert_eq!((&difference["producer"], &difference["file"]), (&json!(1), &json!(file)), "{what}");
            assert_eq!(difference["mended"], true, "{what}: {repaired}");
            assert!(members.agree().await, "{what}");
            for node in &members.nodes {
                assert_eq!(node.integers("t", "n"), (0..60).collect::<Vec<_>>(), "{what}");
            }
        }
    }
    let shown = members.ask(0, "test cluster data where detail = digest").await;
    assert!(
        shown.lines().any(|line| line.contains("d.t") && line.contains("3/60") && line.contains("equal")),
        "{shown}"
    );
    let events = members.nodes[0].node.events.messages();
    assert!(events.iter().any(|event| event.kind == "Members differed" && event.text.contains("d.t")), "{events:?}");
}

// R20: without an archive the registered number of rows says who is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_is_found_without_archives() {
    let homes = tempfile::tempdir().unwrap();
    let members = two(homes.path()).await;
    for node in &members.nodes {
        std::fs::remove_dir_all(node.directory("archive_dir")).unwrap();
    }
    for (n, harm) in [(3, Harm::Deleted), (5, Harm::Doubled)] {
        for harmed in [0, 1] {
            harm.done(&members, harmed, n);
            let repaired = json_of(&members, 0, "repair cluster where dbms = d and table = t and format = json").await;
            assert_eq!(repaired["differences"][0]["wrong"], json!([harmed + 1]), "{harm:?} at {harmed}: {repaired}");
            assert_eq!(repaired["differences"][0]["mended"], true, "{harm:?} at {harmed}: {repaired}");
            assert!(members.agree().await, "{harm:?} at {harmed}");
        }
    }
}

// R20: of three members two are right, also against the producer.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_are_right() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::exchanging(homes.path(), 3).await;
    for node in &members.nodes {
        node.partitioned("insert_timestamp").immediate();
    }
    members.spread(0, "t", 0..20).await;
    for node in &members.nodes {
        std::fs::remove_dir_all(node.directory("archive_dir")).unwrap();
    }
    for harmed in [0, 2] {
        Harm::Changed.done(&members, harmed, 7);
        let repaired = json_of(&members, 1, "repair cluster where format = json").await;
        assert_eq!(repaired["differences"][0]["wrong"], json!([harmed + 1]), "{repaired}");
        assert!(members.agree().await, "{repaired}");
        assert_eq!(members.nodes[harmed].integers("t", "n"), (0..20).collect::<Vec<_>>());
    }
}

// What a member dropped is not brought back, and no difference.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_partitions_stay_dropped() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::exchanging(homes.path(), 2).await;
    for node in &members.nodes {
        node.partitioned("at").immediate();
    }
    let day = |n: i64| {
        let time = members.nodes[0].node.clock.now() - jiff::SignedDuration::from_hours(24 * (3 - n));
        format!("{{\"n\": {n}, \"at\": \"{time}\"}}")
    };
    members.spread_rows(0, "t", (0..4).map(day).collect()).await;
    assert!(members.agree().await);
    let partitions = members.nodes[1].catalog.get("d").unwrap().dbms().partitions("t").unwrap();
    assert_eq!(partitions.len(), 4);
    // The oldest by age, and one in the middle by hand.
    for partition in [&partitions[0], &partitions[2]] {
        members.ask(1, &format!("drop partition {partition} where dbms = d and table = t")).await;
    }
    for begins in [0, 1] {
        let repaired = json_of(&members, begins, "repair cluster where format = json").await;
        assert_eq!(repaired["differences"], json!([]), "{repaired}");
        let skipped = repaired["skipped"].to_string();
        assert!(skipped.contains(&partitions[0]) && skipped.contains(&partitions[2]), "{repaired}");
    }
    assert_eq!(members.nodes[1].count("t"), 2);
    // Late rows for a dropped day are compared again.
    members.spread_rows(0, "t", vec![day(2).replace("\"n\": 2", "\"n\": 22")]).await;
    assert_eq!(members.nodes[1].count("t"), 3);
    members.meddle(1, "t", |partition| format!("DELETE FROM {partition} WHERE n = 22"));
    let repaired = json_of(&members, 0, "repair cluster where format = json").await;
    assert_eq!(repaired["differences"][0]["wrong"], json!([2]), "{repaired}");
    let (file, ..) = members.nodes[0].registered()[1];
    assert_eq!(repaired["differences"][0]["file"], json!(file), "{repaired}");
    assert_eq!(members.nodes[1].integers("t", "n"), [1, 3, 22]);
}

// R20: a partition that is lost, and was not dropped, is filled again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_table_is_filled_again() {
    let homes = tempfile::tempdir().unwrap();
    let members = two(homes.path()).await;
    members.meddle(0, "t", |partition| format!("DELETE FROM {partition}"));
    assert_eq!(members.nodes[0].count("t"), 0);
    let repaired = json_of(&members, 1, "repair cluster where format = json").await;
    assert_eq!(repaired["differences"].as_array().unwrap().len(), 3, "{repaired}");
    assert!(members.agree().await, "{repaired}");
    assert_eq!(members.nodes[0].count("t"), 60);
}

// R20: without being asked, and without new data.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_back_makes_members_compare() {
    let homes = tempfile::tempdir().unwrap();
    let members = two(homes.path()).await;
    members.wires.set_reachable("10.0.0.2:32148", false);
    let linked = |member: usize| members.nodes[member].operator.replication().status().mates[0].link.is_up();
    members.until("the link is down", || !linked(0) && !linked(1)).await;
    Harm::Deleted.done(&members, 1, 4);
    members.wires.set_reachable("10.0.0.2:32148", true);
    members.until("it is mended", || members.nodes[1].count("t") == 60).await;
    assert_eq!(members.nodes[1].integers("t", "n"), (0..60).collect::<Vec<_>>());
}

// A member that does not fetch keeps what it has, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_not_taken_away_when_it_cannot_be_fetched() {
    let homes = tempfile::tempdir().unwrap();
    let members = two(homes.path()).await;
    members.ask(1, "set consumer mode = suspend").await;
    Harm::Deleted.done(&members, 1, 4);
    let repaired = json_of(&members, 0, "repair cluster where format = json").await;
    assert_eq!(repaired["differences"][0]["mended"], false, "{repaired}");
    assert!(repaired["differences"][0]["done"].as_str().unwrap().contains("consumer"), "{repaired}");
    assert_eq!(members.nodes[1].count("t"), 59);
    members.ask(1, "set consumer mode = active").await;
    let repaired = json_of(&members, 1, "repair cluster where format = json").await;
    assert_eq!(repaired["differences"][0]["mended"], true, "{repaired}");
}

// DUR-6: members with different engines have the same digests for the same rows, of every type, and mend each other.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_both_engines_agree() {
    let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
    let homes = tempfile::tempdir().unwrap();
    let members = Members::exchanging_on(homes.path(), 2, &|number| (number == 2).then(|| server.request("d"))).await;
    let create = "CREATE TABLE IF NOT EXISTS typed(row_id SERIAL PRIMARY KEY, insert_timestamp TIMESTAMP NOT NULL DEFAULT now(), \
        tsd_name CHAR(3), tsd_id INT, n BIGINT, small INT, dec DECIMAL, x DOUBLE PRECISION, c CHAR(5), s VARCHAR, b BOOLEAN, \
        at TIMESTAMP, day DATE, clock TIME, id UUID, net CIDR)";
    for node in &members.nodes {
        node.partitioned("insert_timestamp").immediate();
        let table = json!({"table": {"name": "typed", "dbms": "d", "create": create}});
        node.ledger.add(Policy::from_value(table).unwrap()).await.unwrap();
    }
    let row = json!({"n": 1, "small": -7, "dec": 1.50, "x": 2, "c": "ab", "s": "gr\u{fc}n \u{1F600}", "b": true,
        "at": "2026-03-01T12:00:01.5+02:00", "day": "2026-03-01", "clock": "05:06:07",
        "id": "AAAAAAAA-0000-4000-8000-000000000001", "net": "10.0.0.0/8"});
    let numbers = json!({"n": 9_007_199_254_740_993_i64, "dec": "12345678901234.25", "x": 0.1, "b": false, "c": ""});
    let empty = json!({"n": 3, "x": -0.0, "clock": "05:06:07.000250", "s": ""});
    let all: Vec<String> = [row, numbers, empty].iter().map(ToString::to_string).collect();
    members.spread_rows(0, "typed", all.clone()).await;
    members.spread_rows(1, "typed", all).await;
    members.spread_rows(0, "t", vec![json!({"n": 1, "v": {"a": [1, 2]}, "f": 1}).to_string()]).await;
    members.spread_rows(1, "t", vec![json!({"n": 2, "f": 1.5, "v": null}).to_string()]).await;
    assert!(members.agree().await, "{} {}", members.digests(0).await, members.digests(1).await);
    assert_eq!((members.nodes[0].count("typed"), members.nodes[1].count("typed")), (6, 6));
    members.meddle(0, "typed", |partition| format!("UPDATE {partition} SET s = 'x' WHERE n = 1 AND tsd_name = '1'"));
    let repaired = json_of(&members, 1, "repair cluster where format = json").await;
    assert_eq!(repaired["differences"][0]["wrong"], json!([1]), "{repaired}");
    assert_eq!(repaired["differences"][0]["mended"], true, "{repaired}");
    assert!(members.agree().await);
}
