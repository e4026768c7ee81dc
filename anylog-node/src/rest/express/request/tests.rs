use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use proptest::prelude::*;

use super::*;
use crate::rest::asked::Asked;
use crate::rest::data::{one_of, required};

const TARGET: [&str; 3] = ["dbms: Test", "table: T", "mode: streaming"];

fn put_with(line: &str, headers: &[&str], length: &str, body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line}\r\nHost: node\r\n{headers}{length}\r\n\r\n{body}").into_bytes()
}

fn put(headers: &[&str], body: &str) -> Vec<u8> {
    put_with("PUT / HTTP/1.1", headers, &format!("Content-Length: {}", body.len()), body)
}

#[test]
fn a_request_for_rows_is_found_with_all_that_it_says() {
    let headers = ["DBMS:Test ", "table: T", "Mode: Streaming", "type: JSON", "source: line 2", "instructions: 0"];
    let others = ["User-Agent: curl/8", "AnyLog-Agent: Plant/2 x", "Connection: Keep-Alive", "Accept: */*"];
    let bytes = put(&[&headers[..], &others].concat(), "{\"a\": 1.10}\n{\"b\": 2}");
    let mut two = bytes.clone();
    two.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let Found::Rows(request) = find(&two) else { panic!("{:?}", find(&two)) };
    let rows = vec![r#"{"a": 1.10}"#.to_owned(), r#"{"b": 2}"#.to_owned()];
    let length = bytes.len();
    assert_eq!(
        request,
        Request { dbms: "Test", table: "T", source: "line 2", agent: "Plant/2 x", rows: rows.clone(), length }
    );
    let target = Target::of(&request, &"rest 10.0.0.7".into()).expect("names");
    let lane = &target.lane;
    assert_eq!((lane.dbms.as_str(), lane.table.as_str(), &*target.product), ("test", "t", "plant"));
    assert_eq!((lane.source.as_str(), lane.instructions.as_str()), ("line 2", "0"));
    assert!(target.is_of(&request));
    for (dbms, table, source, agent) in
        [("test", "T", "line 2", "Plant/2 x"), ("Test", "t", "line 2", "Plant/2 x"), ("Test", "T", "0", "Plant/2 x")]
            .into_iter()
            .chain([("Test", "T", "line 2", "")])
    {
        assert!(!target.is_of(&Request { dbms, table, source, agent, rows: rows.clone(), length }));
    }
    let names = Request { dbms: " . ", table: "t", source: "0", agent: "", rows, length };
    let known = Target::of(&names, &"rest".into()).map(|target| target.lane.dbms.clone());
    assert_eq!(known.is_none(), normalize(" . ").is_empty());
}

#[test]
fn what_is_absent_is_what_it_is_elsewhere() {
    let bytes = put(&TARGET, "{}");
    let Found::Rows(request) = find(&bytes) else { panic!("{:?}", find(&bytes)) };
    assert_eq!((request.source, request.agent), ("0", ""));
    assert_eq!(&*Target::of(&request, &"rest".into()).expect("names").product, "anylog");
}

#[test]
fn all_else_is_left_to_others() {
    let row = "{\"v\": 1}";
    for header in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Expect: 100-continue",
        "Connection: close",
        "Connection: keep-alive, close",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "Origin: http://page",
        "Content-Length: 8",
        "Content-Length: 9",
        "content-length: 8",
        "Content-Encoding: gzip",
        "mode: file",
        "dbms: other",
        "table: T",
        "source: a\r\nsource: a",
        "instructions: policy",
        "instructions:",
        "type: csv",
        "command: get status",
        "topic: x",
        "assignment: x",
        "destination: network",
        "X-Other: 1",
        "Authorization: Basic x",
        "user-agent: a\r\nuser-agent: b",
        "source: \u{fc}\r\nhost: x\r\n folded",
    ] {
        assert_eq!(find(&put(&[&TARGET[..], &[header]].concat(), row)), Found::Other, "{header}");
    }
    for line in [
        "PUT /x HTTP/1.1",
        "PUT /?dbms=x HTTP/1.1",
        "PUT http://node/ HTTP/1.1",
        "PUT / HTTP/1.0",
        "PUT / HTTP/2.0",
        "PUT  / HTTP/1.1",
        "PUT / HTTP/1.1 x",
        "PUTS / HTTP/1.1",
        "POST / HTTP/1.1",
        "GET / HTTP/1.1",
        "put / HTTP/1.1",
        "",
    ] {
        assert_eq!(find(&put_with(line, &TARGET, "Content-Length: 8", row)), Found::Other, "{line}");
    }
    // How long a body is, is read as strictly as elsewhere: two readings of one length are two requests.
    for length in ["", "-8", "+8", "8, 8", "0x8", "8 8", "\u{a0}8", "8\u{a0}", "\u{3000}8", "99999999999999999999999"] {
        let length = format!("Content-Length: {length}");
        assert_eq!(find(&put_with("PUT / HTTP/1.1", &TARGET, &length, row)), Found::Other, "{length}");
    }
    assert_eq!(find(&put_with("PUT / HTTP/1.1", &TARGET, "Accept: */*", row)), Found::Other, "no length");
    for headers in [&["table: t", "mode: streaming"][..], &["dbms: d", "mode: streaming"], &["dbms: d", "table: t"]] {
        assert_eq!(find(&put(headers, row)), Found::Other, "{headers:?}");
    }
    for headers in [["dbms:", "table: t", "mode: streaming"], ["dbms: d", "table:", "mode: streaming"]] {
        assert_eq!(find(&put(&headers, row)), Found::Other, "{headers:?}");
    }
    for body in ["", "[]", "hello", "{\"v\": ", "{\"v\": 1}{", "[1]", "{},"] {
        assert_eq!(find(&put(&TARGET, body)), Found::Other, "{body}");
    }
    assert_eq!(find(&put(&TARGET, &"{}".repeat(101))), Found::Other, "many rows");
    assert_eq!(find(&put(&TARGET, &format!("{{}}{}", " ".repeat(SMALL_BYTES)))), Found::Other, "a large body");
    let mut latin = put(&[&TARGET[..], &["User-Agent: x"]].concat(), row);
    let place = latin.windows(2).position(|two| two == b"x\r").expect("the agent");
    latin[place] = 0xfc;
    assert_eq!(find(&latin), Found::Other, "not UTF-8");
}

#[test]
fn what_is_too_long_is_told_before_it_is_there() {
    let large = put(&TARGET, &"x".repeat(SMALL_BYTES + 1));
    let head = large.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4;
    assert_eq!(find(&large[..head]), Found::Other);
    let long = format!("PUT / HTTP/1.1\r\nAccept: {}", "x".repeat(2 * HEAD_BYTES));
    assert_eq!(find(&long.as_bytes()[..HEAD_BYTES - 1]), Found::Part);
    assert_eq!(find(&long.as_bytes()[..HEAD_BYTES]), Found::Other);
    let many: Vec<String> = (0..HEADERS).map(|_| "Accept: x".to_owned()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(TARGET).collect();
    assert_eq!(find(&put(&many, "{}")), Found::Other);
}

/// The same bytes as the HTTP library hands them on.
fn headers_of(bytes: &[u8]) -> (HeaderMap, usize) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    let start = head.parse(bytes).expect("a head").unwrap();
    let pairs = head.headers.iter().map(|header| {
        (HeaderName::try_from(header.name).expect("a name"), HeaderValue::from_bytes(header.value).expect("a value"))
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    (map, start)
}

fn header() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "dbms",
        "DBMS",
        "table",
        "mode",
        "type",
        "source",
        "instructions",
        "user-agent",
        "AnyLog-Agent",
        "content-length",
        "connection",
        "host",
        "accept",
        "content-type",
        "command",
        "transfer-encoding",
        "expect",
        "origin",
        "x-other",
    ]);
    let value = prop::sample::select(vec![
        "",
        "d",
        "My Table",
        "\u{a0}d ",
        "streaming",
        "Streaming",
        "file",
        "json",
        "JSON",
        "0",
        "line 2",
        "keep-alive",
        "close",
        "chunked",
        "8",
        "\u{a0}8",
        "+8",
        "curl/8.1",
        "Grafana/9 x",
        "/",
        "\u{fc}ber/1",
        "-",
        "\t0\t",
    ]);
    (name, value).prop_map(|(name, value)| format!("{name}: {value}"))
}

fn body() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{\"v\": 1}",
        "[{\"v\":1},{\"v\":2}]",
        "{\"v\": 1}\n{\"v\": 2}\n",
        "\u{feff}{}",
        "[]",
        "x",
        "",
    ])
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_panic(begins in 0_usize..4, bytes in any::<Vec<u8>>()) {
        let begin = ["", "PUT / HTTP/1.1\r\n", "PUT / HTTP/1.1\r\ndbms: d\r\ntable: t\r\nmode: streaming\r\n",
            "PUT / HTTP/1.1\r\ndbms: d\r\ntable: t\r\nmode: streaming\r\ncontent-length: 9\r\n\r\n"][begins];
        let bytes = [begin.as_bytes(), &bytes].concat();
        if let Found::Rows(request) = find(&bytes) {
            prop_assert!(request.length <= bytes.len() && !request.rows.is_empty());
        }
    }

    #[test]
    fn a_request_is_whole_when_its_last_byte_is_there(
        source in "[a-z0-9 ]{0,20}", rows in prop::collection::vec("[a-z \u{fc}]{0,9}", 1..9), after in any::<Vec<u8>>(),
    ) {
        let body: String = rows.iter().map(|text| format!("{{\"v\": \"{text}\"}}\n")).collect();
        let bytes = put(&[&TARGET[..], &[&format!("source: {source}")]].concat(), &body);
        for end in 0..bytes.len() {
            prop_assert_eq!(find(&bytes[..end]), Found::Part, "{} of {}", end, bytes.len());
        }
        let Found::Rows(alone) = find(&bytes) else { return Err(TestCaseError::fail("not found")) };
        prop_assert_eq!((alone.length, alone.rows.len()), (bytes.len(), rows.len()));
        let followed = [&bytes[..], &after].concat();
        prop_assert_eq!(find(&followed), Found::Rows(alone));
    }

    // What is served here is what would have been served elsewhere.
    #[test]
    fn rows_go_where_the_http_library_would_bring_them(
        headers in prop::collection::vec(header(), 0..5), missing in 0_usize..9, body in body(), place in 0_usize..4,
    ) {
        let target = TARGET.iter().enumerate().filter(|(number, _)| *number != missing).map(|(_, header)| *header);
        let mut all: Vec<&str> = target.collect();
        let place = place.min(all.len());
        all.splice(place..place, headers.iter().map(String::as_str));
        let bytes = put(&all, body);
        let Found::Rows(request) = find(&bytes) else { return Ok(()) };
        let (map, start) = headers_of(&bytes);
        for never in ["transfer-encoding", "expect", "origin", "x-other", "command"] {
            prop_assert!(!map.contains_key(never), "{}", never);
        }
        prop_assert!(map.get_all("connection").iter().all(|value| value == "keep-alive"));
        let lengths: Vec<&HeaderValue> = map.get_all("content-length").iter().collect();
        prop_assert_eq!(lengths, [&HeaderValue::from(body.len())]);
        prop_assert_eq!(request.length, start + body.len());
        let asked = Asked::of_request(&map, &Uri::from_static("/")).expect("fields");
        prop_assert_eq!(&request.rows, &rows_of_body(body.as_bytes()).expect("rows"));
        prop_assert_eq!(one_of(&asked, "mode", &["file", "streaming"]).expect("known"), "streaming");
        prop_assert!(one_of(&asked, "type", &["json"]).is_ok());
        let target = Target::of(&request, &"rest".into());
        let names = (required(&asked, "dbms").ok(), required(&asked, "table").ok());
        let Some(target) = target else {
            prop_assert!(names.0.is_none() || names.1.is_none());
            return Ok(());
        };
        let expected = Lane {
            dbms: names.0.expect("a name"),
            table: names.1.expect("a name"),
            source: asked.get("source").unwrap_or("0").to_owned(),
            instructions: asked.get("instructions").unwrap_or("0").to_owned(),
            origin: "rest".into(),
        };
        prop_assert_eq!(&*target.lane, &expected);
        prop_assert_eq!(target.product.to_string(), asked.agent());
    }
}
