//! The exchange as the rest of the node sees it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anylog_core::node::processes::ProcessState;
use anylog_ledger::{Ledger, OperatorNode};
use anylog_net::{Link, LinkHandler, Links};
use anylog_replica::FileKey;
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::driver::{Driver, Start, Told, accept};
use super::identity::Who;
use super::link::{self, PURPOSE};
use super::status::{ConsumerStatus, ReplicationStatus};
use super::{Followers, holdings, identity};
use crate::OperatorError;
use crate::store::Shared;
use crate::tables::blocking;

/// The exchange with the other members of the cluster, as the rest of the node sees it.
///
/// It is there from the node's start on, and at work while an operator with a policy runs.
pub struct Replication {
    /// Drawn at the start of the process.
    instance: String,
    told: Mutex<Told>,
    driver: RwLock<Option<Arc<Driver>>>,
    /// Why this node is not the member that its policy says.
    conflict: watch::Sender<Option<String>>,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            instance: format!("{:032x}", rand::random::<u128>()),
            told: Mutex::default(),
            driver: RwLock::default(),
            conflict: watch::channel(None).0,
        }
    }
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication").field("told", &*self.told.lock()).finish_non_exhaustive()
    }
}

impl Replication {
    /// What is known of the exchange.
    #[must_use]
    pub fn status(&self) -> ReplicationStatus {
        let conflict = self.conflict.borrow().clone();
        if let Some(driver) = self.driver() {
            return ReplicationStatus { conflict, ..driver.status() };
        }
        let told = *self.told.lock();
        ReplicationStatus {
            conflict,
            distributor: told.distributor,
            consumer: told.consumer,
            ..ReplicationStatus::default()
        }
    }

    /// `run data distributor`.
    ///
    /// # Errors
    /// [`OperatorError::Running`] the second time.
    pub fn start_distributor(&self) -> Result<(), OperatorError> {
        self.try_change(|told| match std::mem::replace(&mut told.distributor, true) {
            true => Err(OperatorError::Running),
            false => Ok(()),
        })
    }

    /// `exit distributor`.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when it does not run.
    pub fn end_distributor(&self) -> Result<(), OperatorError> {
        self.try_change(|told| match std::mem::replace(&mut told.distributor, false) {
            true => Ok(()),
            false => Err(OperatorError::NotRunning),
        })
    }

    /// `run data consumer`.
    ///
    /// # Errors
    /// [`OperatorError::Running`] the second time.
    pub fn start_consumer(&self, consumer: ConsumerStatus) -> Result<(), OperatorError> {
        self.try_change(|told| match told.consumer {
            Some(_) => Err(OperatorError::Running),
            None => {
                told.consumer = Some(consumer);
                Ok(())
            }
        })
    }

    /// `exit consumer`.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when it does not run.
    pub fn end_consumer(&self) -> Result<(), OperatorError> {
        self.try_change(|told| told.consumer.take().map(drop).ok_or(OperatorError::NotRunning))
    }

    /// `set consumer mode`: whether the consumer fetches.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when `run data consumer` was not called.
    pub fn set_consumer_mode(&self, active: bool) -> Result<(), OperatorError> {
        self.try_change(|told| {
            told.consumer.as_mut().ok_or(OperatorError::NotRunning)?.active = active;
            Ok(())
        })
    }

    fn try_change(&self, change: impl FnOnce(&mut Told) -> Result<(), OperatorError>) -> Result<(), OperatorError> {
        let mut told = self.told.lock();
        change(&mut told)?;
        if let Some(driver) = self.driver() {
            driver.tell_settings(*told);
        }
        Ok(())
    }

    /// Fetches a file anew, which was taken away here because it differs from its mates'.
    pub fn refetch(&self, file: FileKey) {
        if let Some(driver) = self.driver() {
            driver.refetch(file);
        }
    }

    /// Looks again now at what is on this node's disk, and dials who is not linked.
    pub fn kick(&self) {
        if let Some(driver) = self.driver() {
            driver.kick();
        }
    }

    /// For each member that produced files, the number up to which all members have all of its files. None while that is not known: no
    /// operator of a cluster runs on this node, or another member did not say yet, since it runs, what it has.
    #[must_use]
    pub fn committed(&self) -> Option<Vec<(i64, i64)>> {
        self.driver()?.committed()
    }

    /// How many files of its cluster this member lacks, when they are more than come late in everyday work: more than 16, or one that is
    /// missing for longer than 30 seconds. 0 when it has no files itself and no other member said yet, since it runs, what it has. None
    /// when it has what it should have as far as is known, and when no consumer runs.
    #[must_use]
    pub fn behind(&self) -> Option<u64> {
        self.told.lock().consumer?;
        self.driver()?.behind()
    }

    /// From when on the consumer fetches; none when it fetches all, or does not run.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.told.lock().consumer.and_then(|consumer| consumer.since)
    }

    fn driver(&self) -> Option<Arc<Driver>> {
        self.driver.read().clone()
    }

    /// Serves links of mates.
    pub(crate) fn register(self: &Arc<Self>, links: &Links) {
        links.register(PURPOSE, Arc::new(Door(Arc::clone(self))));
        links.register(identity::PURPOSE, Arc::new(identity::Teller(Arc::clone(self))));
    }

    /// Who this node is.
    pub(crate) fn who(&self) -> Who {
        let driver = self.driver();
        let member = driver.as_ref().map(|driver| driver.own.member);
        let (cluster, key) =
            driver.map_or_else(Default::default, |driver| (driver.own.cluster.clone(), driver.key.clone()));
        Who { instance: self.instance.clone(), member, cluster, key }
    }

    /// Sees that the ledger says where this node is, and that no other node is there as the same member.
    pub(crate) async fn settle(
        &self,
        ledger: &Ledger,
        own: OperatorNode,
        master: Option<&str>,
    ) -> Result<OperatorNode, OperatorError> {
        identity::settle(ledger, own, &self.instance, master).await
    }

    /// Starts the exchange of a member; the store is told who follows its files.
    pub(crate) async fn start(
        &self,
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        own: OperatorNode,
        journal: PathBuf,
    ) -> Result<(), OperatorError> {
        let directory = identity::directory(&journal);
        let (key, empty) = {
            let shared = Arc::clone(shared);
            blocking(move || {
                let key = identity::key(&directory)
                    .map_err(|error| OperatorError::Directory { path: directory, reason: error.to_string() })?;
                Ok::<_, OperatorError>((key, holdings::given(&shared)? == 0))
            })
            .await?
        };
        let mut told = *self.told.lock();
        told.asks = empty;
        let (shared, ledger) = (Arc::clone(shared), Arc::clone(ledger));
        self.conflict.send_replace(None);
        let (instance, conflict) = (self.instance.clone(), self.conflict.clone());
        let driver = Driver::start(Start { shared, ledger, own, key, told, instance, conflict }).await?;
        *driver.shared.followers.write() = Some(Arc::clone(&driver) as Arc<dyn Followers>);
        *self.driver.write() = Some(Arc::clone(&driver));
        if empty {
            driver.settle_numbers().await?;
        }
        // What was said meanwhile.
        driver.tell_settings(*self.told.lock());
        Ok(())
    }

    /// Returns when it turns out that another node has this member's number; never when this is dropped before.
    pub(crate) fn conflicts(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut conflict = self.conflict.subscribe();
        async move {
            if conflict.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends the exchange: links first.
    pub(crate) async fn stop(&self) {
        let driver = self.driver.write().take();
        if let Some(driver) = driver {
            *driver.shared.followers.write() = None;
            driver.end().await;
        }
    }

    /// Ends the exchange without waiting: the node is dropped.
    pub(crate) fn abandon(&self) {
        let driver = self.driver.write().take();
        if let Some(driver) = driver {
            *driver.shared.followers.write() = None;
            driver.abandon();
        }
    }

    /// The row of `get processes` of the distributor.
    pub(crate) fn distributor_state(&self) -> ProcessState {
        if !self.told.lock().distributor {
            return ProcessState::not_declared();
        }
        self.state("source files are archived on this node only")
    }

    /// The row of `get processes` of the consumer.
    pub(crate) fn consumer_state(&self) -> ProcessState {
        match self.told.lock().consumer {
            None => return ProcessState::not_declared(),
            Some(consumer) if !consumer.active => return ProcessState::running("suspended"),
            Some(_) => {}
        }
        self.state("there is nothing to fetch")
    }

    fn state(&self, alone: &str) -> ProcessState {
        match self.driver().map(|driver| driver.linked()) {
            None => ProcessState::running(format!("no peers: no operator of a cluster runs; {alone}")),
            Some((0, _)) => ProcessState::running(format!("no peers: {alone}")),
            Some((mates, linked)) => ProcessState::running(format!("{linked} of {mates} members linked")),
        }
    }
}

/// Where mates knock.
struct Door(Arc<Replication>);

#[async_trait]
impl LinkHandler for Door {
    async fn serve(&self, from: SocketAddr, link: Link) {
        match self.0.driver() {
            Some(driver) => accept(driver, from, link).await,
            None => link::refuse(link, "no operator of a cluster runs on this node".to_owned()).await,
        }
    }
}
