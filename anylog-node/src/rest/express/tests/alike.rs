//! Whichever way a request is served, its client sees the same, and the same is counted.

use anylog_net::ConnectionHandler;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use tokio::io::AsyncWriteExt;

use super::*;

/// How a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As the server does.
    Chosen,
    /// By the HTTP library alone.
    Library,
}

/// Sends pieces of bytes, closes the sending side, and reads all that comes.
async fn exchange(rig: &Rig, way: Way, pieces: &[&[u8]]) -> Vec<Received> {
    let (stream, served) = pair(None).await;
    let (mut read, mut write) = stream.into_split();
    let mut bytes = Vec::new();
    let client = async {
        let sends = async {
            for piece in pieces {
                write.write_all(piece).await.ok();
                tokio::task::yield_now().await;
            }
            write.shutdown().await.ok();
        };
        // A connection that is reset has ended.
        tokio::join!(sends, async { read.read_to_end(&mut bytes).await.ok() });
    };
    let (rest, sender) = (&rig.app.rest, sender());
    let server = async {
        match way {
            Way::Chosen => rest.serve(served, sender.address, rig.stop.clone()).await,
            Way::Library => rest.converse(served, &sender, &rig.stop).await,
        }
    };
    in_time(async { tokio::join!(client, server) }).await;
    let mut rest = bytes.as_slice();
    let mut answers = Vec::new();
    while let Some((mut answer, length)) = (!rest.is_empty()).then(|| answer_in(rest).expect("a whole answer")) {
        let dates: Vec<String> = answer.headers.iter().filter(|header| header.starts_with("date:")).cloned().collect();
        assert!(dates.len() == 1 && dates[0].ends_with(" GMT") && dates[0].len() == 35, "{dates:?}");
        answer.headers.remove(&dates[0]);
        answers.push(answer);
        rest = &rest[length..];
    }
    // The library says so of a broken head that came in one piece, and nothing when the client gives up before the head ends.
    if answers.last().is_some_and(|last| last.status == 400 && last.body.is_empty()) {
        answers.pop();
    }
    answers
}

/// What was counted, without the times.
fn calls(rig: &Rig) -> Vec<String> {
    let table = rig.app.rest.calls.table(String::new()).to_string();
    table.lines().map(|line| line.split('|').take(5).collect::<Vec<_>>().join("|")).collect()
}

const ROW: &str = "{\"v\": 1}";

#[tokio::test]
async fn every_outcome_looks_the_same_either_way() {
    let (chosen, library) = (Rig::new(ALWAYS), Rig::new(ALWAYS));
    let twelve = format!("{ROW}{{\"v\": \"bad \u{fc} \\\"\"}}").repeat(12);
    let cases: &[(&[&str], &str, u16)] = &[
        (&["dbms: d", "table: t"], ROW, 200),
        (&["dbms: D", "table: My T", "source: s", "type: json", "AnyLog-Agent: plant/1"], ROW, 200),
        (&["dbms: d", "table: t", "User-Agent: Grafana/9"], &twelve, 200),
        (&["dbms: d", "table: t"], "{\"v\": \"bad\"}", 400),
        (&["dbms: d", "table: t"], "[{\"v\": \"bad\"},{\"v\": \"bad 2\"}]", 400),
        (&["dbms: nodb", "table: t"], ROW, 404),
        (&["dbms: d", "table: full"], ROW, 507),
        (&["dbms: d", "table: busy"], ROW, 503),
    ];
    let both = async |headers: &[&str], body: &str| {
        let request = put(&[headers, &["mode: streaming"]].concat(), body);
        assert!(matches!(request::find(&request), Found::Rows(_)), "{headers:?} {body}");
        let (one, other) = (
            exchange(&chosen, Way::Chosen, &[&request, &request]).await,
            exchange(&library, Way::Library, &[&request, &request]).await,
        );
        assert_eq!(one, other);
        assert_eq!(calls(&chosen), calls(&library));
        assert_eq!(one.len(), 2);
        one.into_iter().next().expect("an answer")
    };
    for (headers, body, status) in cases {
        assert_eq!(both(headers, body).await.status, *status, "{headers:?} {body}");
    }
    assert_eq!(*chosen.store.rows.lock(), *library.store.rows.lock());
    // DUR-1: what the start script has not declared yet is to come again.
    let starting = [&chosen, &library].map(|rig| rig.app.node.startup.begin());
    let early = both(&["dbms: nodb", "table: t"], ROW).await;
    assert!(early.status == 503 && early.body.contains("243"), "{early:?}");
    assert!(early.headers.contains("retry-after: 1"), "{early:?}");
    assert_eq!(both(&["dbms: d", "table: t"], ROW).await.status, 200);
    starting.into_iter().for_each(|starting| starting.succeeds());
    assert_eq!(both(&["dbms: nodb", "table: t"], ROW).await.status, 404);
    for rig in [&chosen, &library] {
        rig.app.slot.unmount();
    }
    let without = both(&["dbms: d", "table: t"], ROW).await;
    assert!(without.status == 503 && without.body.contains("run operator"), "{without:?}");
}

/// A request, most of them such as are served without the library.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let header = prop::sample::select(vec![
        "mode: streaming",
        "mode: file",
        "type: json",
        "type: csv",
        "instructions: 0",
        "instructions: none",
        "source: s",
        "User-Agent: curl/8",
        "AnyLog-Agent: plant/1",
        "Connection: keep-alive",
        "Connection: close",
        "Origin: http://x",
        "Content-Length: 8",
        "Content-Length: \u{a0}8",
        "X-Other: 1",
        "Transfer-Encoding: chunked",
        "Accept: */*",
    ]);
    let target = prop::sample::select(vec![
        "dbms: d\r\ntable: t",
        "dbms: nodb\r\ntable: t",
        "dbms: d\r\ntable: full",
        "dbms: d",
    ]);
    let body = prop::sample::select(vec![
        ROW,
        "{\"v\": 1}{\"v\": \"bad\"}",
        "{\"v\": \"bad\"}",
        "[]",
        "{",
        "",
        "8\r\n{\"v\": 1}\r\n0\r\n\r\n",
    ]);
    let rows = (target, prop::collection::vec(header, 0..3), body)
        .prop_map(|(target, headers, body)| put(&[&["mode: streaming", target], headers.as_slice()].concat(), body));
    prop_oneof![
        3 => (0_usize..9).prop_map(row),
        4 => rows,
        1 => Just(b"GET /api/status HTTP/1.1\r\nHost: node\r\n\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
    ]
}

/// Bytes of a connection: requests, some of them damaged, cut into pieces.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let damage = prop_oneof![
        3 => Just(None),
        1 => (any::<prop::sample::Index>(), 0_usize..9, prop::collection::vec(any::<u8>(), 0..3)).prop_map(Some),
    ];
    let pieces = prop::collection::vec(1_usize..200, 0..9);
    (prop::collection::vec(request(), 1..6), damage, pieces).prop_map(|(requests, damage, pieces)| {
        let mut bytes = requests.concat();
        if let Some((place, gone, new)) = damage {
            let begin = place.index(bytes.len());
            let end = (begin + gone).min(bytes.len());
            bytes.splice(begin..end, new);
        }
        (bytes, pieces)
    })
}

#[test]
fn whatever_is_sent_is_answered_the_same_either_way() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (chosen, library) = runtime.block_on(async { (Rig::new(ALWAYS), Rig::new(ALWAYS)) });
    let cases = TestRunner::new(Config {
        cases: Config::default().cases.max(500),
        failure_persistence: None,
        ..Config::default()
    })
    .run(&conversation(), |(bytes, cuts)| {
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let one = runtime.block_on(exchange(&chosen, Way::Chosen, &pieces));
        let other = runtime.block_on(exchange(&library, Way::Library, &pieces));
        prop_assert_eq!(one, other);
        prop_assert_eq!(&*chosen.store.rows.lock(), &*library.store.rows.lock());
        prop_assert_eq!(calls(&chosen), calls(&library));
        Ok(())
    });
    cases.unwrap();
}
