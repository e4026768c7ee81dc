//! The REST server as a client on a socket meets it: statuses, bodies, rights, bounds.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Caller, CommandError, Declaration, Method, Reply, Status, command};
use anylog_ingest::sink::Issuer;
use anylog_ingest::{FileReceipt, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SourceFile, Unmapped};
use anylog_net::{ConnectionHandler, Protocol, ServerAddress, ServerKind};
use anylog_node::NodeApp;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A store that keeps rows in memory; the names of database and table say what goes wrong.
#[derive(Debug)]
struct FakeStore {
    issuer: Issuer,
    rows: Mutex<Vec<String>>,
}

impl FakeStore {
    fn refusal(dbms: &str, table: &str) -> Option<SinkError> {
        Some(match (dbms, table) {
            ("nodb", _) => SinkError::UnknownDbms { dbms: dbms.into() },
            (_, "full") => SinkError::DiskFull,
            (_, "busy") => SinkError::Overloaded,
            (_, "away") => SinkError::Unavailable { reason: "database 'd' at 10.0.0.7:5432 cannot be used".into() },
            _ => return None,
        })
    }

    fn store(&self, rows: Vec<String>) -> Receipt {
        let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().enumerate().partition(|(_, row)| row.contains("bad"));
        let refused = bad
            .iter()
            .map(|(row, _)| RefusedRow {
                part: 0,
                row: *row,
                reason: "column 'v': bad".into(),
                ..RefusedRow::default()
            })
            .collect();
        let stored = good.len();
        self.rows.lock().extend(good.into_iter().map(|(_, row)| row));
        Receipt::issue(&self.issuer, stored, refused)
    }
}

#[async_trait]
impl RowSink for FakeStore {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        let part = group.parts.into_iter().next().unwrap();
        assert!(group.origin.starts_with("rest 127.0.0.1"), "{}", group.origin);
        Self::refusal(&part.dbms, &part.table).map_or_else(|| Ok(self.store(part.rows)), Err)
    }

    async fn set_aside(&self, _: Unmapped) -> Result<Receipt, SinkError> {
        Ok(Receipt::issue(&self.issuer, 0, Vec::new()))
    }

    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        if file.table == "twice" {
            return Err(SinkError::DuplicateFile { hash: "abc".into() });
        }
        Self::refusal(&file.dbms, &file.table).map_or_else(|| Ok(()), Err)?;
        Ok(FileReceipt { hash: "0123456789abcdef0123456789abcdef".into(), receipt: self.store(file.rows) })
    }
}

struct Rest {
    app: Arc<NodeApp>,
    address: SocketAddr,
    _home: TempDir,
}

/// An answer, its header names in lower case.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Rest {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let app = NodeApp::build(home.path()).unwrap();
        for command in test_commands() {
            app.node.registry.register(command).unwrap();
        }
        let mut session = app.session(Caller::embedded());
        let run = "run rest server where internal_ip=127.0.0.1 and internal_port=0 and bind=true and threads=2";
        session.execute(run).await.unwrap();
        let address = app.listeners.address(ServerKind::Rest).unwrap().bound;
        Self { app, address, _home: home }
    }

    fn mount(&self) -> Arc<FakeStore> {
        self.app.slot.mount(|issuer| Arc::new(FakeStore { issuer, rows: Mutex::default() }))
    }

    /// Sends bytes as they are and reads until the server closes.
    async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.ok();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
        read.await.expect("an answer in time").ok();
        answer
    }

    async fn request(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("{line} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        parse(&self.raw(request.as_bytes()).await)
    }

    async fn get(&self, command: &str) -> Answer {
        self.request("GET /", &[&format!("command: {command}")], "").await
    }

    async fn post(&self, command: &str, body: &str) -> Answer {
        self.request("POST /", &[&format!("command: {command}")], body).await
    }

    async fn put(&self, headers: &[&str], body: &str) -> Answer {
        self.request("PUT /", headers, body).await
    }
}

fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8(answer.to_vec()).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
    Answer { status, head, body }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a chunk size: the answer broke off");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return out;
        }
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
}

/// Commands with known outcomes, so that the tests depend on no other crate's commands.
fn test_commands() -> Vec<Arc<dyn anylog_core::Command>> {
    let reads = |words, summary| Declaration::new(words, summary).reads();
    let piece = |text: &str| Ok(Bytes::from(text.to_owned()));
    vec![
        command(reads("probe text", "Text."), Arc::new(()), |(), _, _| Box::pin(async { Ok(Reply::from("grüße")) })),
        command(reads("probe json", "JSON."), Arc::new(()), |(), _, _| {
            Box::pin(async { Ok(Reply::Json(serde_json::json!({"a": 1}))) })
        }),
        command(reads("probe print", "Prints."), Arc::new(()), |(), session, _| {
            Box::pin(async {
                session.console.print("printed");
                Ok(Reply::Empty)
            })
        }),
        command(reads("probe stream", "Rows."), Arc::new(()), move |(), _, _| {
            Box::pin(async move {
                let pieces = [piece("{\"Query\": ["), piece("1, 2"), piece("]}")];
                Ok(Reply::Stream { json: true, chunks: Box::pin(stream::iter(pieces)) })
            })
        }),
        command(reads("probe failing stream", "No rows."), Arc::new(()), |(), _, _| {
            Box::pin(async {
                let failure = Err(CommandError::new(Status::NO_TABLE_METADATA, "no such table"));
                Ok(Reply::Stream { json: true, chunks: Box::pin(stream::iter([failure])) })
            })
        }),
        command(reads("probe broken stream", "Some rows."), Arc::new(()), move |(), _, _| {
            Box::pin(async move {
                let pieces = [piece("{\"Query\": ["), Err(CommandError::process("lost"))];
                Ok(Reply::Stream { json: true, chunks: Box::pin(stream::iter(pieces)) })
            })
        }),
        command(reads("probe endless", "Never answers."), Arc::new(()), |(), _, _| Box::pin(std::future::pending())),
        command(
            Declaration::new("probe change", "Changes the node.").rest("text", false, "what"),
            Arc::new(()),
            |(), session, call| {
                Box::pin(async move {
                    let before = session.node.dictionary.get("changed").unwrap_or_default();
                    session.node.dictionary.set("changed", format!("{before}[{}]", call.rest_text()));
                    Ok(Reply::Empty)
                })
            },
        ),
        command(Declaration::new("probe add", "Adds data.").adds_data(), Arc::new(()), |(), _, _| {
            Box::pin(async { Ok(Reply::Empty) })
        }),
        command(
            Declaration::new("probe any", "Both methods.").reads().method(Method::Any),
            Arc::new(()),
            |(), _, _| Box::pin(async { Ok(Reply::from("any")) }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_carry_their_type_and_the_documented_headers() {
    let rest = Rest::start().await;
    for (command, content_type, body) in [
        ("probe text", "content-type: text/plain; charset=utf-8", "grüße"),
        ("probe json", "content-type: text/json", r#"{"a": 1}"#),
        ("probe print", "content-type: text/plain", "printed"),
        ("probe stream", "content-type: text/json", r#"{"Query": [1, 2]}"#),
    ] {
        let answer = rest.get(command).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{command}");
        assert!(answer.head.contains(content_type), "{command}: {}", answer.head);
        assert!(answer.head.contains("access-control-allow-origin: *"), "{}", answer.head);
    }
    assert!(rest.get("probe stream").await.head.contains("transfer-encoding: chunked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_status_of_their_own_and_name_cause_and_cure() {
    let rest = Rest::start().await;
    // (method, command, status, err_code, words in the body)
    let cases: &[(&str, &str, u16, u16, &[&str])] = &[
        ("GET", "frobnicate the node", 400, 141, &["frobnicate"]),
        ("POST", "frobnicate the node", 400, 141, &["frobnicate"]),
        ("GET", "probe change x", 405, 156, &["probe change x", "use POST"]),
        ("GET", "x = probe text", 405, 156, &["use POST"]),
        ("POST", "get connections", 405, 156, &["use GET"]),
        ("GET", "probe failing stream", 404, 45, &["no such table"]),
        ("GET", "probe \"open", 400, 2, &[]),
        ("DELETE", "probe text", 501, 156, &["DELETE", "PUT for rows"]),
        ("VIEW", "probe text", 501, 156, &["VIEW"]),
    ];
    for (method, command, status, code, words) in cases {
        let answer = rest.request(&format!("{method} /"), &[&format!("command: {command}")], "").await;
        assert_eq!(answer.status, *status, "{method} {command}: {}", answer.body);
        let error: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(error["method"], method.to_lowercase(), "{error}");
        assert_eq!(error["node"], "127.0.0.1", "{error}");
        if *code != 2 {
            assert_eq!(error["err_code"], *code, "{method} {command}: {error}");
        }
        let text = error["local_msg"].as_str().unwrap();
        assert!(words.iter().all(|word| text.contains(word)), "{method} {command}: {text}");
    }
    assert!(rest.request("GET /", &["command: probe change x"], "").await.head.contains("allow: post"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_a_complete_answer() {
    let rest = Rest::start().await;
    let request = b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\ncommand: probe broken stream\r\n\r\n";
    let answer = String::from_utf8(rest.raw(request).await).unwrap();
    assert!(
        !answer.contains("\r\n0\r\n") && !answer.contains("content-length"),
        "the last chunk must be missing: {answer}"
    ); // R24
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_runs_the_body_and_then_the_header() {
    let rest = Rest::start().await;
    let body = "probe change one\n# comment\n<probe change\n two>\n";
    assert_eq!(rest.post("probe change three", body).await.status, 200);
    assert_eq!(rest.app.node.dictionary.get("changed").unwrap(), "[one][two][three]");
    assert_eq!(rest.post("body", "probe change four").await.status, 200);
    assert!(rest.app.node.dictionary.get("changed").unwrap().ends_with("[four]"));
    // A line that fails ends the request before the header's command.
    assert_eq!(rest.post("probe change six", "frobnicate\n").await.status, 400);
    assert!(!rest.app.node.dictionary.get("changed").unwrap().contains("six"));
    assert_eq!(rest.post("probe any", "").await.body, "any");
    assert_eq!(rest.get("probe any").await.body, "any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_object_or_the_url_stands_for_headers() {
    let rest = Rest::start().await;
    let object = r#"{"command": "probe text", "AnyLog-Agent": "AnyLog/1.23", "timeout": 30}"#;
    assert_eq!(rest.request("POST /", &[], object).await.body, "grüße");
    assert_eq!(rest.request("POST /", &[], r#"{"command": "probe change x"}"#).await.status, 405);
    let unknown = rest.request("POST /", &[], r#"{"comand": "probe text"}"#).await;
    assert!(unknown.status == 400 && unknown.body.contains("did you mean 'command'"), "{}", unknown.body);
    let missing = rest.request("POST /", &["User-Agent: AnyLog/1.23"], "").await;
    assert!(
        missing.status == 400 && missing.body.contains("Missing 'command' attribute in header"),
        "{}",
        missing.body
    );
    for url in ["/?User-Agent=AnyLog/1.23?command=probe%20text", "/?User-Agent=AnyLog/1.23&command=probe%20text"] {
        assert_eq!(rest.request(&format!("GET {url}"), &[], "").await.body, "grüße");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_preflight() {
    let rest = Rest::start().await;
    let health = rest.request("GET /health", &[], "").await;
    assert!(health.status == 200 && health.body.contains(r#""status": "healthy""#), "{}", health.body);
    assert_eq!(rest.request("GET /api/status", &[], "").await.body, r#"{"status": "ok"}"#);
    let asked = ["Origin: http://page", "Access-Control-Request-Headers: command,x-mine"];
    let preflight = rest.request("OPTIONS /", &asked, "").await;
    assert_eq!(preflight.status, 204);
    for header in [
        "access-control-allow-methods: get, post, put, delete, head, options",
        "access-control-allow-headers: command,x-mine",
        "access-control-max-age: 86400",
        "access-control-allow-origin: *",
    ] {
        assert!(preflight.head.contains(header), "{}", preflight.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_never_administers() {
    let rest = Rest::start().await;
    let origin = "Origin: http://evil.example";
    let refused = rest.request("POST /", &[origin, "command: probe change x"], "").await;
    assert!(refused.status == 403 && refused.body.contains("web page"), "{}", refused.body);
    assert_eq!(rest.request("POST /", &[origin, "command: probe add"], "").await.status, 200);
    assert_eq!(rest.request("GET /", &[origin, "command: probe text"], "").await.body, "grüße");
    assert_eq!(rest.request("POST /", &["command: probe any"], "probe change x\n").await.status, 200);
    let before = rest.request("POST /", &[origin, "command: probe any"], "probe change x\n").await;
    assert_eq!(before.status, 403, "lines of a body have the same rights");
}

/// Serves a connection as if it came from another machine.
struct FromAfar(Arc<anylog_node::rest::RestServer>);

#[async_trait]
impl ConnectionHandler for FromAfar {
    async fn serve(&self, stream: TcpStream, _: SocketAddr, stop: tokio_util::sync::CancellationToken) {
        self.0.serve(stream, "203.0.113.7:40000".parse().unwrap(), stop).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_read_and_add_until_administration_is_allowed() {
    let mut rest = Rest::start().await;
    rest.app.listeners.stop(ServerKind::Rest).await;
    let handler = Arc::new(FromAfar(Arc::clone(&rest.app.rest)));
    let address = ServerAddress::bound_to("127.0.0.1:0".parse().unwrap());
    rest.address = rest.app.listeners.start(ServerKind::Rest, Protocol::Http, address, handler).await.unwrap();
    assert_eq!(rest.get("probe text").await.status, 200);
    assert_eq!(rest.post("probe add", "").await.status, 200);
    let refused = rest.post("probe change x", "").await;
    assert!(refused.status == 403 && refused.body.contains("set remote admin on"), "{}", refused.body);
    assert!(refused.body.contains("203.0.113.7"), "{}", refused.body);
    // Nor by way of another node, to which the request would come from this one.
    let headers = ["command: probe change x", "destination: 127.0.0.1:1"];
    assert_eq!(rest.request("POST /", &headers, "").await.status, 403);
    rest.app.node.set_remote_admin(true);
    assert_eq!(rest.post("probe change x", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn put_stores_rows_and_says_what_was_refused() {
    let rest = Rest::start().await;
    let target = ["dbms: Test", "table: T"];
    let without = rest.put(&target, r#"{"v": 1}"#).await;
    assert!(without.status == 503 && without.body.contains("run operator"), "{}", without.body);

    let store = rest.mount();
    let streaming = ["dbms: Test", "table: T", "mode: streaming", "type: json"];
    let answer = rest.put(&streaming, "{\"v\": 1.10}\n{\"v\": 2}").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"AnyLog.status":"Success", "AnyLog.hash": "0" }"#));
    assert!(answer.head.contains("content-type: text/json"));
    assert_eq!(*store.rows.lock(), [r#"{"v": 1.10}"#, r#"{"v": 2}"#]);
    let file = rest.put(&target, r#"[{"v": 3}]"#).await;
    let expected = r#"{"AnyLog.status":"Success", "AnyLog.hash": "0123456789abcdef0123456789abcdef" }"#;
    assert_eq!((file.status, file.body.as_str()), (200, expected));

    // R13
    let mixed = rest.put(&streaming, r#"[{"v": 4}, {"v": "bad"}, {"v": 5}]"#).await;
    let body: serde_json::Value = serde_json::from_str(&mixed.body).unwrap();
    assert_eq!((mixed.status, &body["AnyLog.stored"]), (200, &serde_json::json!(2)));
    assert_eq!(body["AnyLog.refused"], serde_json::json!([{"row": 2, "reason": "column 'v': bad"}]));
    let none = rest.put(&streaming, r#"{"v": "bad"}"#).await;
    assert!(none.status == 400 && none.body.contains("column 'v'"), "{}", none.body);
    assert_eq!(store.rows.lock().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_cannot_be_stored_has_the_right_status() {
    let rest = Rest::start().await;
    let store = rest.mount();
    let row = r#"{"v": 1}"#;
    let cases: &[(&[&str], &str, u16, &str)] = &[
        (&["table: t"], row, 400, "Missing 'dbms' name"),
        (&["dbms: d"], row, 400, "Missing 'table' name"),
        (&["dbms: d", "table: t", "mode: zap"], row, 400, "zap"),
        (&["dbms: d", "table: t", "mode: streamin"], row, 400, "did you mean 'streaming'"),
        (&["dbms: d", "table: t", "type: csv"], row, 400, "csv"),
        (&["dbms: nodb", "table: t", "mode: streaming"], row, 404, "nodb"),
        (&["dbms: nodb", "table: t"], row, 404, "nodb"),
        (&["dbms: d", "table: twice"], row, 409, "ingested before"),
        (&["dbms: d", "table: full", "mode: streaming"], row, 507, "space"),
        (&["dbms: d", "table: busy", "mode: streaming"], row, 503, "again later"),
        (&["dbms: d", "table: away", "mode: streaming"], row, 503, "10.0.0.7:5432 cannot be used"),
        (&["dbms: d", "table: t"], "", 400, "empty"),
        (&["dbms: d", "table: t"], "hello", 400, "JSON"),
        (&["dbms: d", "table: t"], "[]", 400, "no rows"),
        (&["dbms: d", "table: t"], "{\"v\": ", 400, "JSON"),
    ];
    for (headers, body, status, words) in cases {
        let answer = rest.put(headers, body).await;
        assert_eq!(answer.status, *status, "{headers:?} {body}: {}", answer.body);
        assert!(answer.body.contains(words), "{headers:?} {body}: {}", answer.body);
    }
    assert!(store.rows.lock().is_empty());
}

// DUR-1: what the start script has not declared yet is not what nobody declares.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_comes_before_the_start_script_is_over_is_to_come_again() {
    let rest = Rest::start().await;
    let store = rest.mount();
    let (row, publish) = (r#"{"v": 1}"#, "mqtt publish where topic=plant/line and qos=1 and message={\"v\": 1}");
    let policy = ["dbms: d", "table: t", "mode: streaming", "instructions: pumps"];
    let requests: &[(&str, &[&str], &str, u16)] = &[
        ("POST", &["command: data", "topic: plant/line", "User-Agent: AnyLog/1.23"], row, 400),
        ("POST", &["command: data", "topic: plant/line", "User-Agent: plant/1"], row, 404),
        ("POST", &[&format!("command: {publish}")], "", 200),
        ("PUT", &policy, row, 400),
        ("PUT", &["dbms: nodb", "table: t"], row, 404),
    ];
    let agent = "run msg client where broker=rest and user-agent=plant and topic=(name=other and dbms=d and table=t \
                 and column.v.int=\"bring [v]\")";
    rest.app.session(Caller::embedded()).execute(agent).await.unwrap();
    let starting = rest.app.node.startup.begin();
    for (method, headers, body, _) in requests {
        let early = rest.request(&format!("{method} /"), headers, body).await;
        assert_eq!(early.status, 503, "{method} {headers:?}: {}", early.body);
        assert!(early.head.contains("retry-after: 1") && early.body.contains("start script"), "{}", early.body);
    }
    // What the script has declared is taken; a script knows the order of its own steps.
    let known = ["command: data", "topic: other", "User-Agent: plant/1"];
    assert_eq!(rest.request("POST /", &known, row).await.status, 200);
    rest.app.session(Caller::terminal()).execute(publish).await.unwrap();
    starting.succeeds();
    for (method, headers, body, status) in requests {
        let late = rest.request(&format!("{method} /"), headers, body).await;
        assert_eq!(late.status, *status, "{method} {headers:?}: {}", late.body);
    }
    assert_eq!(store.rows.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_bounded() {
    let rest = Rest::start().await;
    // Two requests on one connection.
    let mut stream = TcpStream::connect(rest.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\ncommand: probe any\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nany") {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
    }
    let large = format!("PUT / HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n", 65 * 1024 * 1024);
    let answer = parse(&rest.raw(large.as_bytes()).await);
    assert!(answer.status == 413 && answer.body.contains("64 MB"), "{}", answer.body);
    let garbage = rest.raw(b"GET / HTTP/9.9\r\n\r\n").await;
    assert!(garbage.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&garbage));
    assert_eq!(rest.get("probe any").await.body, "any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_answer_is_given_up_and_others_are_told_that_all_is_busy() {
    let rest = Rest::start().await;
    rest.app.rest.set_timeout(Duration::from_millis(200));
    for _ in 0..2 {
        let late = rest.get("probe endless").await;
        assert!(late.status == 504 && late.body.contains("set rest timeout"), "{}", late.body);
    }
    let busy = rest.get("probe text").await;
    assert!(busy.status == 503 && busy.head.contains("retry-after"), "{}", busy.body);
    assert_eq!(rest.request("GET /health", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_are_asked_over_the_node_service() {
    let rest = Rest::start().await;
    let other = Rest::start().await;
    let mut session = other.app.session(Caller::embedded());
    session.execute("run tcp server where internal_ip=127.0.0.1 and internal_port=0 and bind=true").await.unwrap();
    let tcp = other.app.listeners.address(ServerKind::Tcp).unwrap().bound;
    let to = |destination: &str| format!("destination: {destination}");

    let local = rest.request("GET /", &["command: probe text", &to("local")], "").await;
    assert_eq!(local.body, "grüße");
    let text = rest.request("GET /", &["command: probe text", &to(&tcp.to_string())], "").await;
    assert_eq!(text.body, format!("\r\n[From Node {tcp}] grüße"));
    let json = rest.request("GET /", &["command: probe json", &to(&tcp.to_string())], "").await;
    assert_eq!(json.body, format!(r#"{{"{tcp}": {{"a": 1}}}}"#));
    let change = ["command: probe change afar", &to(&tcp.to_string())];
    assert_eq!(rest.request("POST /", &change, "").await.status, 200);
    assert_eq!(other.app.node.dictionary.get("changed").unwrap(), "[afar]");
    assert_eq!(rest.app.node.dictionary.get("changed"), None);

    let gone = rest.request("GET /", &["command: probe text", &to("127.0.0.1:1")], "").await;
    assert!(gone.status == 502 && gone.body.contains("127.0.0.1:1"), "{}", gone.body);
    let both = format!("{tcp},127.0.0.1:1");
    let subset = rest.request("GET /", &["command: probe text", &to(&both), "subset: true"], "").await;
    assert!(subset.status == 200 && subset.body.contains("cannot be reached"), "{}", subset.body);
    for (wrong, status) in [("nonsense", 404), ("!nothing", 404), ("a:b", 400)] {
        let answer = rest.request("GET /", &["command: probe text", &to(wrong)], "").await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let timeout = rest.request("GET /", &["command: probe text", &to(&both), "timeout: soon"], "").await;
    assert!(timeout.status == 400 && timeout.body.contains("soon"), "{}", timeout.body);
    let part = rest.request("GET /", &["command: probe text", &to(&both), "subset: maybe"], "").await;
    assert!(part.status == 400 && part.body.contains("'subset: maybe'"), "{}", part.body); // OPS-1
    for endless in ["99999999999999999", "18446744073709551615"] {
        let header = format!("timeout: {endless}");
        let answer = rest.request("GET /", &["command: probe text", &to(&tcp.to_string()), &header], "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_silent_is_named_when_the_time_of_the_server_is_over() {
    let rest = Rest::start().await;
    // Accepts, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    assert_eq!(rest.post("set rest timeout 1 second", "").await.status, 200);
    let destination = format!("destination: {address}");
    for headers in [&["command: probe text", &destination][..], &["command: probe text", &destination, "timeout: 2"]] {
        let late = rest.request("GET /", headers, "").await;
        assert!(late.status == 504 && late.body.contains(&format!("node {address} did not answer")), "{}", late.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shows_its_settings_and_calls() {
    let rest = Rest::start().await;
    rest.get("probe text").await;
    rest.request("GET /", &["command: frobnicate it", "User-Agent: Grafana/9"], "").await;
    let calls = rest.get("get rest calls").await.body;
    assert!(calls.contains("anylog ") && calls.contains("grafana") && calls.contains("frobnicate"), "{calls}");
    let info = rest.get("get rest server info").await.body;
    assert!(info.contains(&format!("http://{}", rest.address)) && info.contains("workers_count"), "{info}");
    assert_eq!(rest.post("set rest timeout 2 minutes", "").await.status, 200);
    assert_eq!(rest.app.rest.timeout(), Some(Duration::from_secs(120)));
    let wrong = rest.post("set rest timeout soon", "").await;
    assert!(wrong.status == 400 && wrong.body.contains("soon"), "{}", wrong.body);
    let tls = rest.post("run rest server where internal_ip=127.0.0.1 and internal_port=0 and ssl=true", "").await;
    assert!(tls.status == 400 && tls.body.contains("TLS"), "{}", tls.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_by_its_own_client_still_answers() {
    let rest = Rest::start().await;
    assert_eq!(rest.post("exit rest", "").await.status, 200);
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(rest.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "the port is still open");
        tokio::task::yield_now().await;
    }
}
