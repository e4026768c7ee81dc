//! A node in a temporary directory, made anew as often as a test wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_core::{Caller, CommandError, Node, Session};
use anylog_dbms::{Catalog, ConnectRequest, Partitioning, SqlValue, Target};
use anylog_ingest::{RowGroup, SinkSlot, TableRows};
use anylog_ledger::{Destinations, Ledger, Policy};
use anylog_net::{LocalPeers, Peers};
use anylog_operator::disk::{Disk, FileDisk};
use anylog_operator::{Identity, OperatorConfig, OperatorService};
use serde_json::json;

pub(crate) struct TestNode {
    pub(crate) node: Arc<Node>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) slot: Arc<SinkSlot>,
    pub(crate) operator: Arc<OperatorService>,
}

impl TestNode {
    /// A node at home in `home`, as a process finds it: nothing connected, nothing running.
    pub(crate) fn start(home: &Path) -> Self {
        Self::on_disk(home, Arc::new(FileDisk))
    }

    /// The same with its journal on another disk.
    pub(crate) fn on_disk(home: &Path, disk: Arc<dyn Disk>) -> Self {
        Self::among(home, disk, "127.0.0.1:32148", LocalPeers::new())
    }

    /// The same at an address among other nodes.
    pub(crate) fn among(home: &Path, disk: Arc<dyn Disk>, address: &str, peers: Arc<dyn Peers>) -> Self {
        let node = Node::builder().home(home).name("test-node").build();
        node.directories.create().unwrap();
        node.set_address(Some(address.into()));
        let catalog = Catalog::new(Arc::clone(&node));
        let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), peers);
        let slot = SinkSlot::new();
        let operator = OperatorService::with_disk(
            Arc::clone(&node),
            Arc::clone(&catalog),
            Arc::clone(&ledger),
            Arc::clone(&slot),
            disk,
        );
        Self { node, catalog, ledger, slot, operator }
    }

    /// The node's end as a killed process ends: nothing is finished, and nothing of it runs on beside the next node.
    pub(crate) async fn kill(self) {
        let (catalog, databases) = (Arc::downgrade(&self.catalog), self.directory("dbms_dir"));
        drop(self);
        // Who held it last may still be closing its databases, which moves their logs into the files.
        eventually("nothing of the node is left", || catalog.strong_count() == 0 && !is_open_below(&databases)).await;
    }

    /// Connects almgm, with its table, and the database `d`.
    pub(crate) fn connect(&self) -> &Self {
        let directory = self.directory("dbms_dir");
        let almgm = self.catalog.connect(ConnectRequest::sqlite("almgm", &directory)).unwrap();
        almgm.tsd().unwrap().create().unwrap();
        self.catalog.connect(ConnectRequest::sqlite("d", &directory)).unwrap();
        self
    }

    /// Publishes a cluster and this node's operator, unless they are in the ledger.
    pub(crate) async fn policies(&self) -> String {
        self.policies_of(7).await
    }

    /// The same for another member number.
    pub(crate) async fn policies_of(&self, member: i64) -> String {
        let known = self.ledger.policies("operator");
        if let Some(own) = known.iter().find(|policy| policy.text("name") == Some("o")) {
            return own.id().to_owned();
        }
        let to = Destinations::local();
        let cluster = json!({"cluster": {"name": "c", "company": "co"}});
        let cluster = self.ledger.insert(Policy::from_value(cluster).unwrap(), &to).await.unwrap();
        let operator = json!({"operator": {"name": "o", "company": "co", "ip": "127.0.0.1", "port": 32148,
            "cluster": cluster.id(), "member": member}});
        self.ledger.insert(Policy::from_value(operator).unwrap(), &to).await.unwrap().id().to_owned()
    }

    /// Starts the operator with registration of files.
    pub(crate) async fn run(&self) {
        self.run_as(7).await;
    }

    /// The same as another member of the cluster.
    pub(crate) async fn run_as(&self, member: i64) {
        let id = self.policies_of(member).await;
        let config =
            OperatorConfig { identity: Identity::Policy(id), update_tsd_info: true, ..OperatorConfig::default() };
        self.operator.run(config).await.unwrap();
    }

    /// A running node with everything connected.
    pub(crate) async fn running(home: &Path) -> Self {
        let node = Self::start(home);
        node.connect();
        node.run().await;
        node
    }

    pub(crate) fn immediate(&self) -> &Self {
        self.operator.set_threshold(None, None, None, None, Some(true)).unwrap();
        self
    }

    pub(crate) fn partitioned(&self, column: &str) -> &Self {
        let (count, unit) = Partitioning::parse_interval("1 day").unwrap();
        self.catalog.declare_partitioning("*", "*", Partitioning::new(column, count, unit).unwrap());
        self
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.node.directories.directory(&self.node.dictionary, name)
    }

    pub(crate) async fn execute(&self, line: &str) -> Result<String, CommandError> {
        self.register();
        let mut session = Session::new(Arc::clone(&self.node), Caller::terminal());
        session.execute(line).await?.into_text().await
    }

    /// Makes the commands of the operator known. Late: commands hold their service, and with it the node, for as long as the node lives.
    pub(crate) fn register(&self) {
        if self.node.registry.find(&["flush", "buffers"]).is_none() {
            self.node.registry.register_all(anylog_operator::commands(&self.operator)).unwrap();
        }
    }

    /// All targets of a table: itself and its partitions.
    pub(crate) fn targets(&self, table: &str) -> Vec<Target> {
        let database = self.catalog.get("d").unwrap();
        let mut targets = vec![Target::table(table)];
        let partitions = database.dbms().partitions(table).unwrap();
        targets.extend(partitions.into_iter().map(|partition| Target::partition(table, partition)));
        targets
    }

    pub(crate) fn count(&self, table: &str) -> u64 {
        let database = self.catalog.get("d").unwrap();
        if database.dbms().schema(table).unwrap().is_none() {
            return 0;
        }
        self.targets(table).iter().map(|target| database.dbms().count(target).unwrap()).sum()
    }

    /// One column of all rows, sorted.
    pub(crate) fn column(&self, table: &str, column: &str) -> Vec<SqlValue> {
        let database = self.catalog.get("d").unwrap();
        let mut values = Vec::new();
        for target in self.targets(table) {
            let sql = format!("SELECT {column} FROM {}", target.physical());
            let mut visit = |_: &[String], mut row: Vec<SqlValue>| {
                values.push(row.remove(0));
                std::ops::ControlFlow::Continue(())
            };
            database.dbms().query(Some(&target), &sql, &mut visit).unwrap();
        }
        values.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        values
    }

    pub(crate) fn integers(&self, table: &str, column: &str) -> Vec<i64> {
        let mut numbers: Vec<i64> = self
            .column(table, column)
            .into_iter()
            .map(|value| match value {
                SqlValue::Int(number) => number,
                other => panic!("{other:?} is not an integer"),
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Names and rows of all archived files.
    pub(crate) fn archived(&self) -> Vec<(String, Vec<String>)> {
        let mut files = Vec::new();
        collect(&self.directory("archive_dir"), &mut files);
        files.sort();
        files
            .into_iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let content = anylog_operator::archive::unpack(&name, &std::fs::read(&path).unwrap()).unwrap();
                let rows = String::from_utf8(content).unwrap().lines().map(str::to_owned).collect();
                (name, rows)
            })
            .collect()
    }

    /// The registered files: id, hash, rows.
    pub(crate) fn registered(&self) -> Vec<(i64, String, i64)> {
        self.registered_in("tsd_info")
    }

    /// Those of a table of the registry.
    pub(crate) fn registered_in(&self, table: &str) -> Vec<(i64, String, i64)> {
        let tsd = self.catalog.tsd().unwrap();
        if !tsd.tables().unwrap().iter().any(|known| known == table) {
            return Vec::new();
        }
        let files = tsd.list(table, &anylog_dbms::TsdFilter::default()).unwrap();
        let mut files: Vec<_> = files.into_iter().map(|file| (file.file_id, file.hash, file.rows)).collect();
        files.sort();
        files
    }
}

/// Whether this process has a file open below a directory.
fn is_open_below(directory: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok()).any(|file| file.starts_with(directory))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        // Beside the files of a day lie their run lists.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// Rows for one table of `d`.
pub(crate) fn rows(table: &str, rows: impl IntoIterator<Item = String>) -> RowGroup {
    RowGroup {
        parts: vec![TableRows {
            dbms: "d".into(),
            table: table.into(),
            source: "0".into(),
            instructions: "0".into(),
            rows: rows.into_iter().collect(),
            ..TableRows::default()
        }],
        origin: "test".into(),
        ..RowGroup::default()
    }
}

pub(crate) fn numbered(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| format!("{{\"n\": {n}}}")).collect()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
