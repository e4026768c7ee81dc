//! A whole node out of its parts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::DuplicateCommand;
use anylog_core::reply::Chunks;
use anylog_core::{Access, Caller, CommandError, Node, Reply, Session, Status, Surface};
use anylog_dbms::Catalog;
use anylog_ingest::{Ingest, SinkSlot};
use anylog_ledger::Ledger;
use anylog_net::grpc::{GrpcPeers, node_service};
use anylog_net::{LinkHandler, Links, Listeners, PeerReply, PeerRequest, PeerService, Peers};
use anylog_operator::{OperatorService, Replication};
use anylog_query::{Committed, QueryService};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use crate::console::Collected;
use crate::rest::{self, RestServer};
use crate::terminal::Foreground;

/// How long a node may take to drain. Below the five seconds after which supervisors kill.
pub const DRAIN_DEADLINE: Duration = Duration::from_millis(4500);

/// A node that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// Two parts declare the same command.
    #[error(transparent)]
    Command(#[from] DuplicateCommand),
}

/// A node: every part, wired to the others, with all commands registered. Nothing runs and nothing listens until a
/// command says so.
#[derive(Debug)]
pub struct NodeApp {
    /// What the language and all parts share.
    pub node: Arc<Node>,
    /// Logical databases.
    pub catalog: Arc<Catalog>,
    /// Policies.
    pub ledger: Arc<Ledger>,
    /// The way to other nodes.
    pub peers: Arc<dyn Peers>,
    /// The ports.
    pub listeners: Arc<Listeners>,
    /// Where the store is mounted that rows go to.
    pub slot: Arc<SinkSlot>,
    /// Broker, message clients, mapping.
    pub ingest: Arc<Ingest>,
    /// Storage of rows.
    pub operator: Arc<OperatorService>,
    /// SQL.
    pub query: Arc<QueryService>,
    /// The REST server.
    pub rest: Arc<RestServer>,
    /// What the terminal does.
    pub(crate) foreground: Arc<Foreground>,
}

impl NodeApp {
    /// A node at home in `home`, reaching other nodes over gRPC.
    ///
    /// # Errors
    /// When two parts declare the same command.
    pub fn build(home: impl Into<PathBuf>) -> Result<Arc<Self>, AssemblyError> {
        Self::build_with(home, GrpcPeers::new())
    }

    /// A node that reaches others by `peers`, for simulations and tests.
    ///
    /// # Errors
    /// When two parts declare the same command.
    pub fn build_with(home: impl Into<PathBuf>, peers: Arc<dyn Peers>) -> Result<Arc<Self>, AssemblyError> {
        let node = Node::builder().home(home).build();
        let listeners = Arc::new(Listeners::default());
        let slot = SinkSlot::new();
        let catalog = Catalog::new(Arc::clone(&node));
        let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&peers));
        let ingest = Ingest::new(Arc::clone(&node), Arc::clone(&ledger), Arc::clone(&slot));
        let operator =
            OperatorService::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&ledger), Arc::clone(&slot));
        let query = QueryService::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&ledger), Arc::clone(&peers));
        query.set_committed(Arc::new(HeldByAll(Arc::clone(operator.replication()))));
        let rest = RestServer::new(
            Arc::clone(&node),
            Arc::clone(&listeners),
            Arc::clone(&peers),
            Arc::clone(&ingest),
            Arc::clone(&slot),
        );
        let app = Arc::new(Self {
            node,
            catalog,
            ledger,
            peers,
            listeners,
            slot,
            ingest,
            operator,
            query,
            rest,
            foreground: Arc::default(),
        });
        app.register()?;
        Ok(app)
    }

    fn register(&self) -> Result<(), DuplicateCommand> {
        let links = Links::default();
        self.operator.serve_links(&links);
        let answering = Answering { node: Arc::clone(&self.node), ledger: Arc::clone(&self.ledger), links };
        let tcp = node_service(Arc::new(answering));
        let registry = &self.node.registry;
        registry.register_all(anylog_dbms::commands::commands(&self.catalog))?;
        registry.register_all(anylog_ledger::commands::commands(&self.ledger))?;
        registry.register_all(anylog_net::commands(Arc::clone(&self.listeners), tcp))?;
        registry.register_all(anylog_ingest::commands(Arc::clone(&self.ingest), Arc::clone(&self.listeners)))?;
        registry.register_all(anylog_operator::commands(&self.operator))?;
        registry.register_all(anylog_query::commands(Arc::clone(&self.query)))?;
        self.ledger.set_network_sql(anylog_query::network_sql(Arc::clone(&self.query)));
        registry.register_all(rest::commands::commands(&self.rest))?;
        anylog_net::register_processes(&self.node, &self.listeners);
        rest::commands::register_processes(&self.rest);
        Ok(())
    }

    /// A thread of commands for `caller`.
    #[must_use]
    pub fn session(&self, caller: Caller) -> Session {
        Session::new(Arc::clone(&self.node), caller)
    }

    /// Ends what runs: takes no more connections, finishes what was taken, stores what was acknowledged. Returns after at
    /// most [`DRAIN_DEADLINE`]; what was acknowledged is on stable storage also when that passes.
    pub async fn drain(&self) {
        self.node.shutdown.cancel();
        let draining = async {
            self.listeners.stop_all().await;
            self.operator.drain().await;
            if let Err(error) = self.ledger.flush().await {
                tracing::error!(%error, "The local copy of the ledger cannot be written");
            }
        };
        if tokio::time::timeout(DRAIN_DEADLINE, draining).await.is_err() {
            tracing::warn!("The node did not drain in time; what is left is taken up at the next start");
        }
    }
}

/// Which files all members of the cluster have: what the exchange between them knows, for queries of committed rows.
#[derive(Debug)]
struct HeldByAll(Arc<Replication>);

impl Committed for HeldByAll {
    fn upto(&self) -> Option<Vec<(i64, i64)>> {
        self.0.committed()
    }

    fn behind(&self) -> Option<u64> {
        self.0.behind()
    }
}

/// What this node answers to others.
struct Answering {
    node: Arc<Node>,
    ledger: Arc<Ledger>,
    links: Links,
}

#[async_trait]
impl PeerService for Answering {
    fn link(&self, from: SocketAddr, purpose: &str) -> Result<Arc<dyn LinkHandler>, CommandError> {
        let caller = Caller::network(Surface::Peer, from, self.node.remote_admin());
        if caller.rights < Access::Data {
            return Err(CommandError::new(Status::UNAUTHORIZED, "links need the right to add data"));
        }
        self.links.handler(purpose)
    }

    async fn answer(&self, from: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
        match request {
            PeerRequest::Ledger { known_version } => {
                // The master reads its database for this.
                let ledger = Arc::clone(&self.ledger);
                let answer = tokio::task::spawn_blocking(move || ledger.answer(&known_version)).await;
                answer.unwrap_or_else(|error| Err(CommandError::process(format!("The ledger was not read: {error}"))))
            }
            PeerRequest::Command { text } => {
                let (reply, printed) = self.execute(from, &text).await?;
                let reply = reply.into_text().await?;
                let both = !reply.is_empty() && !printed.is_empty();
                Ok(PeerReply::Text(if both { format!("{printed}\n{reply}") } else { printed + &reply }))
            }
            PeerRequest::LedgerChanges(question) => {
                let ledger = Arc::clone(&self.ledger);
                let answer = tokio::task::spawn_blocking(move || ledger.answer_changes(&question)).await;
                answer.unwrap_or_else(|error| Err(CommandError::process(format!("The ledger was not read: {error}"))))
            }
            _ => Err(unknown_question()),
        }
    }

    async fn stream(&self, from: SocketAddr, request: PeerRequest) -> Result<Chunks, CommandError> {
        let text = match request {
            PeerRequest::Command { text } => text,
            PeerRequest::FollowLedger => return Ok(self.ledger.follow()),
            _ => return Err(unknown_question()),
        };
        let (reply, printed) = self.execute(from, &text).await?;
        let printed = stream::iter((!printed.is_empty()).then(|| Ok(Bytes::from(printed + "\n"))));
        Ok(match reply {
            Reply::Stream { chunks, .. } => printed.chain(chunks).boxed(),
            whole => {
                let whole = whole.into_text().await?;
                printed.chain(stream::iter([Ok(Bytes::from(whole))])).boxed()
            }
        })
    }
}

impl Answering {
    /// Runs a command of another node: its reply, and what it printed.
    async fn execute(&self, from: SocketAddr, text: &str) -> Result<(Reply, String), CommandError> {
        let caller = Caller::network(Surface::Peer, from, self.node.remote_admin());
        let console = Arc::new(Collected::default());
        let mut session = Session::new(Arc::clone(&self.node), caller).with_console(Arc::clone(&console) as _);
        session.thread = "peer".to_owned();
        let reply = session.execute(text).await?;
        Ok((reply, console.take()))
    }
}

fn unknown_question() -> CommandError {
    CommandError::process("This node does not know what the other node asks of it")
        .hint("bring both nodes to one version")
}
