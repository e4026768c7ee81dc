//! Operators that end before and in the middle of queries.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::formats;
use super::harness::patience;
use super::network::Network;
use super::rows::{Part, Table};

/// The members of the last cluster.
const MATES: [usize; 2] = [2, 3];

const GROUPS: &str = "select device, count(*) as n, min(timestamp) as t, count(distinct big) as b from readings group by device order by device";

/// Many bytes of each row, so that an answer does not fit into what lies between a node and its caller.
fn wide() -> String {
    let columns: Vec<String> = (0..24).map(|n| format!("note as note_{n}, device as device_{n}")).collect();
    format!("big, timestamp, {}", columns.join(", "))
}

/// An answer over REST that is read slowly.
struct Slow {
    stream: TcpStream,
    raw: Vec<u8>,
}

impl Slow {
    fn ask(network: &Network, command: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", network.query.rest)).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: localhost\r\ndestination: network\r\n{headers}command: {command}\r\n\r\n"
        )
        .unwrap();
        Self { stream, raw: Vec::new() }
    }

    /// Reads until there are so many bytes, or to the end.
    fn read(&mut self, bytes: usize) {
        let mut piece = vec![0; 16 * 1024];
        while self.raw.len() < bytes {
            match self.stream.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => self.raw.extend(&piece[..read]),
                Err(error) => panic!("the answer stands still: {error}"),
            }
            if self.raw.ends_with(b"\r\n0\r\n\r\n") {
                return;
            }
        }
    }

    /// The status, the body, and whether it came to its end.
    fn finish(mut self) -> (u16, String, bool) {
        self.read(usize::MAX);
        let head_end = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("headers") + 4;
        let head = String::from_utf8_lossy(&self.raw[..head_end]).to_lowercase();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut rest = &self.raw[head_end..];
        if !head.contains("transfer-encoding: chunked") {
            return (status, String::from_utf8(rest.to_vec()).unwrap(), true);
        }
        let mut body = Vec::new();
        while let Some(line) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap().trim(), 16).unwrap();
            rest = &rest[line + 2..];
            if length == 0 {
                return (status, String::from_utf8(body).unwrap(), true);
            }
            body.extend(&rest[..length.min(rest.len())]);
            rest = rest.get(length + 2..).unwrap_or_default();
        }
        (status, String::from_utf8_lossy(&body).into_owned(), false)
    }
}

fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<String> {
    rows.sort_by_cached_key(|row| Value::from(row.clone()).to_string());
    rows.into_iter().map(|row| Value::from(row).to_string()).collect()
}

#[test]
fn an_operator_that_ends_is_replaced_or_named() {
    let mut network = Network::start(1000);
    let complete = network.oracle.rows(GROUPS, &[]);
    let answer = |network: &Network, select: &str| {
        let answer = network.ask("format = json and timezone = utc", select, &[]).ok();
        formats::json("json", &answer).unwrap().rows
    };
    assert_eq!(answer(&network, GROUPS), complete);
    let rows = "select big, device, note from readings order by big";
    let all = network.oracle.rows(rows, &[]);

    // QRY-3: whichever member is left answers, for groups and for rows.
    for (ends, stays) in [(2, 3), (3, 2)] {
        network.operators[ends].kill();
        assert_eq!(answer(&network, GROUPS), complete, "without {ends}");
        assert_eq!(answer(&network, rows), all, "without {ends}");
        let status = network.query.get("query status").ok();
        assert!(status.contains(&network.address(stays)), "{status}");
        network.operators[ends].launch();
    }

    // QRY-2: without a mate it is an error that names the operator.
    network.operators[0].kill();
    let lost = network.address(0);
    let unordered = "select big from readings";
    for select in [GROUPS, rows, unordered, "select count(*) as n from readings where period(day, 1, now(), timestamp)"]
    {
        for format in ["json", "json:list", "json:output", "table"] {
            let answer = network.ask(&format!("format = {format} and stat = false"), select, &[]);
            assert!(answer.status >= 500 && answer.body.contains(&lost), "{select}: {answer:?}");
            assert!(answer.body.contains("subset"), "{answer:?}");
        }
        // QRY-2: a part of the answer says what it lacks, in every format.
        for format in ["json", "json:list", "json:output", "table"] {
            let answer = network.ask(&format!("format = {format} and stat = false"), select, &["subset: true"]);
            assert!(answer.status == 200 && answer.body.contains(&lost), "{select}: {answer:?}");
            assert!(
                answer.body.contains("\"Missing Nodes\"") && answer.body.contains("\"Target Nodes\": 3"),
                "{answer:?}"
            );
            assert!(answer.body.contains("cluster-0"), "{answer:?}");
        }
    }
    let partial = network.ask("format = json", "select count(*) as n from readings", &["subset: true"]).json();
    assert_eq!(partial["Query"], json!([{ "n": 2000 }]));
    assert_eq!(partial["Statistics"][0]["Participating Nodes"], 2);
    let command = "run client (subset = true) sql plant format = json \"select count(*) as n from readings\"";
    assert_eq!(network.query.get(command).json()["Query"], json!([{ "n": 2000 }]));

    // Back again it answers at once.
    network.operators[0].launch();
    assert_eq!(answer(&network, GROUPS), complete);
    assert_eq!(answer(&network, rows), all);
}

/// Rows in each cluster of the tests that end an operator while it sends rows.
fn stream_rows() -> u64 {
    std::env::var("ANYLOG_ORACLE_ROWS").map_or(12_000, |rows| rows.parse().expect("a number of rows"))
}

fn long_stream() -> Network {
    let now = jiff::Timestamp::now().as_second() / 3600 * 3600;
    let part = |table, cluster, rows| Part { table, cluster, rows, now };
    let readings = (0..3).map(|cluster| part(Table::Readings, cluster, stream_rows()));
    // The other tables are only waited for.
    Network::of(&readings.chain([part(Table::Archive, 0, 1), part(Table::Sparse, 1, 1)]).collect::<Vec<_>>())
}

/// The member of the last cluster that sends rows of the last query.
fn at_work(network: &Network) -> usize {
    let status = network.query.get("query status").ok();
    let line = |member: &&usize| status.lines().find(|line| line.contains(&network.address(**member)));
    let member = MATES.iter().find(|member| line(member).is_some()).unwrap_or_else(|| panic!("{status}"));
    assert!(!line(&member).unwrap_or_default().contains("Completed"), "too few rows: {status}");
    *member
}

/// The end of an answer.
fn tail(body: &str) -> String {
    body.chars().skip(body.chars().count().saturating_sub(600)).collect()
}

#[test]
fn an_operator_that_ends_in_the_middle_of_its_rows_is_replaced_or_the_answer_says_so() {
    let mut network = long_stream();
    let columns = wide();
    // QRY-3: a mate goes on where the first one ended; no row is lost, none comes twice.
    for (order, all) in [
        ("", "order by big"),
        (" order by timestamp, big", "order by timestamp, big"),
        (" order by big desc", "order by big desc"),
    ] {
        for format in ["json:output", "json"] {
            let select = format!("select {columns} from readings");
            let command = format!("sql plant nodes = all and format = {format} and timezone = utc \"{select}{order}\"");
            let mut slow = Slow::ask(&network, &command, "");
            slow.read(200_000);
            let ends = at_work(&network);
            network.operators[ends].kill();
            let (status, body, whole) = slow.finish();
            assert!(status == 200 && whole, "{status} {whole} {}", tail(&body));
            let other = MATES[0] + MATES[1] - ends;
            let asked = network.query.get("query status").ok();
            assert!(asked.contains(&network.address(other)), "{asked}");
            let rows = formats::json(format, &body).unwrap().rows;
            let expected = network.oracle.rows(&format!("select {columns} from readings {all}"), &[]);
            assert_eq!(rows.rows.len(), expected.rows.len());
            if order.is_empty() {
                assert!(sorted(rows.rows) == sorted(expected.rows), "other rows{order}");
            } else {
                assert!(rows.rows == expected.rows, "other rows{order}");
            }
            network.operators[ends].launch();
        }
    }

    // Without a mate the answer does not end as if it were complete, and says why.
    for (index, format) in ["json", "json:list", "json:output", "table"].into_iter().enumerate() {
        let select = format!("select {columns} from readings");
        let order = if index % 2 == 0 { "" } else { " order by big" };
        let mut slow = Slow::ask(&network, &format!("sql plant format = {format} \"{select}{order}\""), "");
        slow.read(200_000);
        network.operators[1].kill();
        let lost = network.address(1);
        let (status, body, whole) = slow.finish();
        let tail = tail(&body);
        assert!(status == 200 && !whole, "{status} {whole} {tail}");
        assert!(tail.contains("\"Error\"") && tail.contains(&lost), "{format}: {tail}");
        network.operators[1].launch();
        network.wait_for_answers();
    }

    // QRY-2: a part that may lack rows ends well and names the node.
    let mut slow =
        Slow::ask(&network, &format!("sql plant format = json \"select {columns} from readings\""), "subset: true\r\n");
    slow.read(200_000);
    network.operators[1].kill();
    let (status, body, whole) = slow.finish();
    let tail = tail(&body);
    assert!(status == 200 && whole && tail.contains("Missing Nodes") && tail.contains(&network.address(1)), "{tail}");
    let rows = formats::json("json", &body).unwrap().rows.rows;
    assert!(rows.len() >= usize::try_from(2 * stream_rows()).unwrap());
}
