//! The REST server: commands by `GET` and `POST`, rows by `PUT` and `POST`.
//!
//! | request | does |
//! |---|---|
//! | `GET`, header `command` | runs an information command; without one, `get status` |
//! | `GET /?command=...` | the same from a browser's address line; terms separated by `?` or `&` |
//! | `POST`, header `command` | runs the commands in the body, one per line, then that of the header |
//! | `POST`, `command: body` | runs the body as one command |
//! | `POST`, `command: data` | maps the body's rows by the `topic` of a REST message client |
//! | `POST`, JSON object as body | the fields of a `GET`, for clients that cannot set headers |
//! | `PUT`, headers `dbms`, `table` | stores the body's rows; `mode: file` (default) or `streaming` |
//! | `GET /health`, `/api/status` | says that the server answers |
//!
//! A reply is UTF-8. An error has a 4xx or 5xx status and the documented object: `method`, `node`, `err_code`, `err_text`,
//! `local_msg`. Rights follow the caller's address; a request with an `Origin` header, so one that a web page made, never
//! administers the node.

mod answer;
mod asked;
mod body;
pub mod commands;
mod data;
mod destination;
mod execute;
mod express;
mod failure;
mod statistics;
mod together;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Access, Caller, CommandError, Node, Status, Surface};
use anylog_ingest::{Ingest, SinkSlot};
use anylog_net::{ConnectionHandler, Listeners, Peers};
use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use asked::Asked;
use express::Next;
use failure::Failure;
use statistics::CallStatistics;

/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(75);

/// The documented default of `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// The documented default of `threads`.
const DEFAULT_THREADS: usize = 5;

/// Who is at the other end of a connection.
#[derive(Debug)]
struct Sender {
    address: SocketAddr,
    /// What rows are told to come from: `rest 10.0.0.7`.
    origin: Arc<str>,
}

/// What may be changed while the server runs.
#[derive(Debug, Clone)]
struct Settings {
    /// How long a command may take until its answer begins; none is unlimited.
    timeout: Option<Duration>,
    /// Commands at work at once.
    permits: Arc<Semaphore>,
    threads: usize,
}

/// The REST server of a node.
#[derive(Debug)]
pub struct RestServer {
    node: Arc<Node>,
    listeners: Arc<Listeners>,
    peers: Arc<dyn Peers>,
    ingest: Arc<Ingest>,
    slot: Arc<SinkSlot>,
    together: together::Together,
    express: Arc<express::Express>,
    settings: RwLock<Settings>,
    budget: body::BodyBudget,
    calls: Arc<CallStatistics>,
}

impl RestServer {
    /// A server that is not listening yet; `run rest server` starts it.
    pub fn new(
        node: Arc<Node>,
        listeners: Arc<Listeners>,
        peers: Arc<dyn Peers>,
        ingest: Arc<Ingest>,
        slot: Arc<SinkSlot>,
    ) -> Arc<Self> {
        let settings = Settings {
            timeout: Some(DEFAULT_TIMEOUT),
            permits: Arc::new(Semaphore::new(DEFAULT_THREADS)),
            threads: DEFAULT_THREADS,
        };
        let together = together::Together::new(Arc::clone(&slot));
        let calls = Arc::<CallStatistics>::default();
        let express = express::Express::new(Arc::clone(&node), together.clone(), Arc::clone(&calls));
        Arc::new(Self {
            node,
            listeners,
            peers,
            ingest,
            together,
            express,
            slot,
            settings: RwLock::new(settings),
            budget: body::BodyBudget::default(),
            calls,
        })
    }

    /// How long a command may take until its answer begins; none is unlimited.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.settings.read().timeout
    }

    /// Changes how long a command may take; zero is unlimited.
    pub fn set_timeout(&self, timeout: Duration) {
        self.settings.write().timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    }

    fn set_threads(&self, threads: usize) {
        let mut settings = self.settings.write();
        settings.threads = threads;
        // A command may ask this server itself (`test node`), so one permit would wait for itself.
        settings.permits = Arc::new(Semaphore::new(threads.max(2)));
    }

    /// Who sent a request, with the rights of its address.
    fn caller(&self, peer: SocketAddr, headers: &HeaderMap) -> Caller {
        let caller = Caller::network(Surface::Rest, peer, self.node.remote_admin());
        if headers.contains_key(header::ORIGIN) { caller.limited_to(Access::Data) } else { caller }
    }

    /// Answers one request. Every failure is a response.
    async fn respond(&self, sender: &Sender, request: Request<Body>) -> Response {
        let peer = sender.address;
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let outcome = match Asked::of_request(&parts.headers, &parts.uri) {
            Err(failure) => Err(failure),
            Ok(asked) => {
                let caller = self.caller(peer, &parts.headers);
                let origin = parts.headers.contains_key(header::ORIGIN);
                let agent = asked.agent();
                let path = parts.uri.path();
                let outcome = match method {
                    Method::OPTIONS => return finished(answer::preflight(&parts.headers)),
                    Method::GET | Method::HEAD if is_probe(path) => return finished(self.probe(path)),
                    Method::PUT => self
                        .put(sender, &parts.headers, &asked, body)
                        .await
                        .map_err(|failure| data::explain_missing(&self.node, failure)),
                    // Commands may do anything, so their futures are large; rows come often.
                    Method::GET => Box::pin(self.get(caller, &asked)).await,
                    Method::POST => Box::pin(self.post(caller, &parts.headers, asked, body)).await,
                    _ => Err(not_offered(&method)),
                };
                let outcome = outcome.map_err(|failure| if origin { explain_origin(failure) } else { failure });
                let failed = outcome.as_ref().err().map(|failure| failure.error.to_string());
                self.calls.note(&agent, method.as_str(), peer, self.node.clock.now(), failed);
                outcome
            }
        };
        finished(outcome.unwrap_or_else(|failure| failure.response(method.as_str(), peer.ip())))
    }

    async fn get(&self, caller: Caller, asked: &Asked) -> Result<Response, Failure> {
        let command = asked.command().unwrap_or("get status");
        self.check_method("GET", command)?;
        self.run(caller, asked, Vec::new(), command).await
    }

    async fn post(&self, caller: Caller, headers: &HeaderMap, asked: Asked, body: Body) -> Result<Response, Failure> {
        let body = self.budget.read(headers, body).await?;
        match asked.command() {
            Some("data") => {
                let stored = self.post_data(&caller, &asked, &body).await;
                stored.map_err(|failure| data::explain_missing(&self.node, failure))
            }
            Some("body") => {
                let command = body.text()?.trim().to_owned();
                if command.is_empty() {
                    return Err(Failure::headers(
                        "The body is empty, but the header 'command: body' says it is the command",
                    ));
                }
                self.check_method("POST", &command)?;
                self.run(caller, &asked, Vec::new(), &command).await
            }
            Some(command) => {
                self.check_method("POST", command)?;
                let before = body::commands(body.text()?);
                self.run(caller, &asked, before, command).await
            }
            None => {
                let asked = asked.with_object(body.text()?).unwrap_or_else(|| Err(missing_command()))?;
                if asked.command().is_none() {
                    return Err(missing_command());
                }
                self.get(caller, &asked).await
            }
        }
    }

    /// `/health` and `/api/status`.
    fn probe(&self, path: &str) -> Response {
        let body = if path == "/health" {
            let now = self.node.clock.now();
            format!(r#"{{"status": "healthy", "service": "anylog-rest-server", "timestamp": "{now}"}}"#)
        } else {
            r#"{"status": "ok"}"#.to_owned()
        };
        answer::whole("application/json", body)
    }
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/api/status")
}

fn finished(mut response: Response) -> Response {
    answer::allow_any_origin(&mut response);
    response
}

fn missing_command() -> Failure {
    let hint = "send a header 'command', or a JSON object with the key 'command' as body";
    CommandError::new(Status::REST_HEADERS, "Missing 'command' attribute in header").hint(hint).into()
}

fn not_offered(method: &Method) -> Failure {
    let error = CommandError::new(Status::WRONG_METHOD, format!("The method {method} is not supported"))
        .hint("use GET for information, POST for all other commands, PUT for rows");
    Failure::with_code(StatusCode::NOT_IMPLEMENTED, error)
}

/// A web page is refused for what it is, not for its address.
fn explain_origin(mut failure: Failure) -> Failure {
    if failure.error.status == Status::UNAUTHORIZED {
        failure.error.hint =
            Some("a request with an Origin header comes from a web page and never administers a node".into());
    }
    failure
}

impl RestServer {
    /// Serves a connection by the HTTP library.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        sender: &Sender,
        stop: &CancellationToken,
    ) {
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            Ok::<_, Infallible>(self.respond(sender, request.map(Body::new)).await)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            // A client that closes its sending side still reads the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            // What has come is read before the connection is asked to end: the beginning of a request may be part of it.
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %sender.address, "A REST connection ended with an error");
        }
    }
}

#[async_trait]
impl ConnectionHandler for RestServer {
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        let sender = &Sender { address: peer, origin: format!("rest {}", peer.ip()).into() };
        match self.express.serve(stream, sender, &stop).await {
            Next::Ended => {}
            Next::Whole(stream) => self.converse(stream, sender, &stop).await,
            Next::Begun(begun, read, write) => {
                self.converse(express::rejoin(begun, read, write), sender, &stop).await;
            }
        }
    }
}
