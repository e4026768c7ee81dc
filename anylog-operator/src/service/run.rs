//! `run operator`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anylog_ledger::{LedgerError, OperatorNode};
use tokio_util::sync::CancellationToken;

use super::{OperatorService, Running};
use crate::OperatorError;
use crate::config::{Identity, OperatorConfig, OperatorState};
use crate::replay::ready;
use crate::replica::repair::background;
use crate::store::{Settings, Shared, Store};
use crate::tables::{TableRules, blocking};
use crate::{orphans, seal, watch};

/// How long a start waits for the master to know this node's operator. Without a master the operator runs all the same.
const PUBLISHING: Duration = Duration::from_secs(3);

impl OperatorService {
    /// Starts the operator: rows and files are taken from now on. Segments of the run before are finished.
    ///
    /// # Errors
    /// [`OperatorError::Running`], [`OperatorError::NoPolicy`], [`OperatorError::UnknownTable`],
    /// [`OperatorError::Directory`], and what opening the journal can meet.
    pub async fn run(self: &Arc<Self>, config: OperatorConfig) -> Result<(), OperatorError> {
        let _one_at_a_time = self.starting.lock().await;
        if self.running.lock().is_some() {
            return Err(OperatorError::Running);
        }
        let own = match self.confirmed(&config.identity).await? {
            Some(own) => Some(self.replication.settle(&self.ledger, own, config.master.as_deref()).await?),
            None => None,
        };
        self.check_tables(&config.limit_tables)?;
        let service = Arc::clone(self);
        let shared = blocking(move || service.shared()).await?;
        let settings = self.settle(&shared, &config, own.as_ref()).await?;
        let state = OperatorState { registered: settings.tsd.is_some(), config, own, started: self.node.clock.now() };
        if let Some(own) = &state.own {
            self.catalog.set_member_id(own.member.unsigned_abs());
        }
        *shared.settings.write() = Arc::new(settings);
        if let (Some(own), true) = (&state.own, state.registered) {
            let journal = self.directory("journal_dir");
            self.replication.start(&shared, &self.ledger, own.clone(), journal).await?;
        }
        let stop = CancellationToken::new();
        *self.running.lock() = Some(Running { state, stop: stop.clone(), store: None });
        let (service, finishing) = (Arc::clone(self), Arc::clone(&shared));
        blocking(move || {
            service.finish_recovered(&finishing);
            seal::prune(&finishing);
            orphans::mark_void(&finishing)
        })
        .await
        .unwrap_or_else(|error| tracing::warn!(%error, "Files that a crash left open stay in tsd_info for now"));
        tokio::spawn(seal::run(Arc::clone(&shared), stop.clone()));
        tokio::spawn(watch::run(Arc::clone(&shared), stop.clone()));
        if let Ok(member) = self.member() {
            tokio::spawn(background::run(member, self.stop_token()));
        }
        let (slot, conflicts, ended) = (Arc::clone(&self.slot), self.replication.conflicts(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = conflicts => slot.unmount(),
                () = ended.cancelled() => {}
            }
        });
        let store = self.slot.mount(|issuer| Store::new(shared, issuer));
        if let Some(running) = self.running.lock().as_mut() {
            running.store = Some(store);
        }
        Ok(())
    }

    /// The operator that this node is, with the number that the master gave it: two that start at the same time may have drawn the same.
    async fn confirmed(&self, identity: &Identity) -> Result<Option<OperatorNode>, OperatorError> {
        let Some(own) = self.identify(identity)? else { return Ok(None) };
        if !self.ledger.published(&own.id, PUBLISHING).await {
            tracing::warn!(
                policy = own.id,
                "The master does not know this operator yet; it runs as member {} for now",
                own.member
            );
        }
        self.identify(identity)
    }

    fn identify(&self, identity: &Identity) -> Result<Option<OperatorNode>, OperatorError> {
        let id = match identity {
            Identity::Anonymous => return Ok(None),
            Identity::Policy(id) => id.clone(),
            Identity::ByAddress => {
                let address = self.node.address();
                let view = self.ledger.view();
                let found = view
                    .operators()
                    .iter()
                    .find(|known| known.address() == address || known.local_address() == address);
                found.ok_or(OperatorError::NoPolicy { id: format!("address {address}") })?.id.clone()
            }
        };
        match self.ledger.set_own_operator(&id) {
            Ok(own) => Ok(Some(own)),
            Err(LedgerError::NotFound { .. }) => Err(OperatorError::NoPolicy { id }),
            Err(error) => Err(OperatorError::Policy { id, error: Box::new(error) }),
        }
    }

    fn check_tables(&self, tables: &[(String, String)]) -> Result<(), OperatorError> {
        for (dbms, table) in tables {
            let published = self.ledger.view().table_policy(dbms, table).is_some();
            let local =
                || self.catalog.get(dbms).is_ok_and(|database| matches!(database.dbms().schema(table), Ok(Some(_))));
            if !published && !local() {
                return Err(OperatorError::UnknownTable { table: format!("{dbms}.{table}") });
            }
        }
        Ok(())
    }

    async fn settle(
        &self,
        shared: &Arc<Shared>,
        config: &OperatorConfig,
        own: Option<&OperatorNode>,
    ) -> Result<Settings, OperatorError> {
        let directory = |name: &'static str| {
            let chosen = config.directories.iter().find(|(known, _)| *known == name).map(|(_, path)| path.clone());
            chosen.unwrap_or_else(|| self.node.directories.directory(&self.node.dictionary, name))
        };
        let catalog = Arc::clone(&self.catalog);
        let tsd = if config.update_tsd_info {
            tokio::task::spawn_blocking(move || catalog.tsd()).await.unwrap_or(None)
        } else {
            None
        };
        if config.update_tsd_info && tsd.is_none() {
            tracing::warn!("almgm.tsd_info is not there: source files are archived, but not registered");
        }
        let settings = Settings {
            member: own.map_or_else(|| "0".to_owned(), |own| own.member.to_string()),
            tsd,
            archive: config.archive || config.distributor,
            compress: config.compress,
            archive_dir: directory("archive_dir"),
            backup_dir: directory("bkup_dir"),
            watch_dir: directory("watch_dir"),
            error_dir: directory("err_dir"),
            prep_dir: directory("prep_dir"),
        };
        let all =
            [&settings.archive_dir, &settings.backup_dir, &settings.watch_dir, &settings.error_dir, &settings.prep_dir];
        all.into_iter().try_for_each(|path| check_directory(path))?;
        let only: BTreeSet<(String, String)> = config.limit_tables.iter().cloned().collect();
        shared.tables.set_rules(TableRules {
            create: config.create_table,
            only: Some(only).filter(|only| !only.is_empty()),
            registered: settings.tsd.is_some(),
        });
        let company = config.company.clone().or_else(|| own.map(|own| own.company.clone()));
        shared.tables.publisher().configure(config.master.clone(), own.cloned(), company);
        Ok(settings)
    }

    /// Hands segments of the run before to the sealer, when an operator runs and their databases are connected.
    pub(crate) fn finish_recovered(&self, shared: &Arc<Shared>) {
        if self.running.lock().is_none() {
            return;
        }
        let ready = ready(shared);
        let mut segments = shared.segments.lock();
        segments.finish(ready.own);
        segments.copies.extend(ready.copies);
        drop(segments);
        shared.due.notify_one();
    }
}

fn check_directory(path: &Path) -> Result<(), OperatorError> {
    let probe = path.join(".probe");
    let written = std::fs::create_dir_all(path)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    written.map_err(|error| OperatorError::Directory { path: path.to_owned(), reason: error.to_string() })
}
