//! Nodes in one process: each with a ledger of its own, connected by an in-memory way to each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Caller, CommandError, Node, Session};
use anylog_dbms::{Catalog, catalog::ConnectRequest};
use anylog_ledger::{Ledger, Policy, commands};
use anylog_net::{PeerError, PeerReply, PeerRequest, PeerStream, Peers, StreamDeadlines};
use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use parking_lot::RwLock;
use serde_json::Value;

/// The way between the nodes of a test. An address that is not there, or is cut off, does not answer.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    nodes: RwLock<HashMap<String, Arc<Ledger>>>,
    cut: tokio::sync::watch::Sender<Vec<String>>,
}

impl Wires {
    /// Cuts a node off, or connects it again.
    pub(crate) fn cut(&self, address: &str, cut: bool) {
        self.cut.send_modify(|all| {
            all.retain(|known| known != address);
            if cut {
                all.push(address.to_owned());
            }
        });
    }
}

#[async_trait]
impl Peers for Wires {
    async fn call(&self, address: &str, request: PeerRequest, _: Duration) -> Result<PeerReply, PeerError> {
        let ledger = self.nodes.read().get(address).cloned();
        let ledger = ledger.filter(|_| !self.cut.borrow().iter().any(|cut| cut == address));
        let Some(ledger) = ledger else {
            return Err(PeerError::Unreachable {
                address: address.to_owned(),
                reason: "connection refused".to_owned(),
            });
        };
        let refused = |error: CommandError| PeerError::Refused { address: address.to_owned(), error };
        match request {
            PeerRequest::Ledger { known_version } => {
                let answer = tokio::task::spawn_blocking(move || ledger.answer(&known_version)).await.unwrap();
                answer.map_err(refused)
            }
            PeerRequest::Command { text } => {
                let mut session = Session::new(Arc::clone(ledger.node()), Caller::embedded());
                let reply = session.execute(&text).await.map_err(refused)?;
                Ok(PeerReply::Text(reply.into_text().await.map_err(refused)?))
            }
            PeerRequest::LedgerChanges(question) => {
                let answer = tokio::task::spawn_blocking(move || ledger.answer_changes(&question)).await.unwrap();
                answer.map_err(refused)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn stream(&self, address: &str, request: PeerRequest, _: StreamDeadlines) -> Result<PeerStream, PeerError> {
        if let PeerRequest::Command { .. } = request {
            let PeerReply::Text(text) = self.call(address, request, Duration::ZERO).await? else { panic!("no text") };
            return Ok(stream::iter([Ok(text.into())]).boxed());
        }
        assert_eq!(request, PeerRequest::FollowLedger);
        let unreachable =
            PeerError::Unreachable { address: address.to_owned(), reason: "connection refused".to_owned() };
        let is_cut = |cut: &[String]| cut.iter().any(|cut| cut == address);
        let mut cuts = self.cut.subscribe();
        let ledger = self.nodes.read().get(address).cloned().filter(|_| !is_cut(&cuts.borrow()));
        let ledger = ledger.ok_or_else(|| unreachable.clone())?;
        let address = address.to_owned();
        let cut = async move {
            // The wires of a test live as long as its nodes.
            cuts.wait_for(|cut| cut.contains(&address)).await.map(|_| ()).unwrap_or_default();
            Err(unreachable)
        };
        let pieces = ledger.follow().map(|piece| Ok(piece.unwrap()));
        Ok(stream::select(pieces, stream::once(cut)).boxed())
    }
}

/// A node of a test.
pub(crate) struct TestNode {
    /// Its ledger.
    pub(crate) ledger: Arc<Ledger>,
    home: tempfile::TempDir,
}

impl TestNode {
    /// A node at this address; a master when it is to hold the ledger database.
    pub(crate) fn new(wires: &Arc<Wires>, address: &str, master: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder().home(home.path()).build();
        node.set_address(Some(address.to_owned()));
        let catalog = Catalog::new(Arc::clone(&node));
        if master {
            catalog.connect(ConnectRequest::sqlite_memory("blockchain")).unwrap();
        }
        let peers: Arc<dyn Peers> = Arc::clone(wires) as Arc<dyn Peers>;
        let ledger = Ledger::new(Arc::clone(&node), catalog, peers);
        node.registry.register_all(commands::commands(&ledger)).unwrap();
        wires.nodes.write().insert(address.to_owned(), Arc::clone(&ledger));
        Self { ledger, home }
    }

    /// Runs a command as its terminal would.
    pub(crate) async fn run(&self, line: &str) -> Result<String, CommandError> {
        let mut session = Session::new(Arc::clone(self.ledger.node()), Caller::terminal());
        session.execute(line).await?.into_text().await
    }

    /// The same home with a new ledger, as after a restart.
    pub(crate) fn reopened(&self, wires: &Arc<Wires>) -> Arc<Ledger> {
        let node = Node::builder().home(self.home.path()).build();
        let catalog = Catalog::new(Arc::clone(&node));
        Ledger::new(node, catalog, Arc::clone(wires) as Arc<dyn Peers>)
    }
}

/// A policy from JSON.
pub(crate) fn policy(value: Value) -> Policy {
    Policy::from_value(value).unwrap()
}

/// Waits until a condition holds; fails after ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
