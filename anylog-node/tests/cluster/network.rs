//! A master, the members of one cluster, a query node.

use std::fs;
use std::path::{Path, PathBuf};

use super::links::Links;
use super::node::{Node, eventually_or};

/// The logical database.
pub(crate) const DBMS: &str = "plant";

/// The topic whose messages name their table.
pub(crate) const TOPIC: &str = "cluster";

/// A table of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// On how many members a row is when it is acknowledged.
    pub(crate) copies: u32,
    /// Whether its partitions go by the time of the device, else by that of arrival.
    pub(crate) by_device: bool,
}

/// Both promises with both ways of partitioning.
pub(crate) const TABLES: [Table; 4] = [
    Table { name: "kept", copies: 2, by_device: false },
    Table { name: "kept_days", copies: 2, by_device: true },
    Table { name: "plain", copies: 1, by_device: false },
    Table { name: "plain_days", copies: 1, by_device: true },
];

pub(crate) fn table(name: &str) -> Table {
    TABLES.into_iter().find(|table| table.name == name).expect("a table of the tests")
}

/// What the script of the examples lacks: the tables, and a mapping that takes the table from the message.
fn additions() -> String {
    let days = TABLES.iter().filter(|table| table.by_device);
    let days: String =
        days.map(|table| format!("partition {DBMS} {} using timestamp by 1 day\n", table.name)).collect();
    days + &format!(
        r#"
<run mqtt client where broker=local and port=!anylog_server_port and log=false and topic=(
   name={TOPIC} and dbms={DBMS} and table="bring [table]" and
   column.timestamp.timestamp="bring [timestamp]" and column.n=(value="bring [n]" and type=int) and
   column.p=(value="bring [p]" and type=int) and column.r=(value="bring [r]" and type=int)
)>

"#
    )
}

/// Small thresholds, so that files are sealed while the load runs, and what an acknowledgement means.
pub(crate) fn thresholds() -> String {
    let set = "set buffer threshold where time = 1 second and volume = 16KB and write_immediate = true";
    TABLES.iter().filter(|table| table.copies > 1).fold(format!("{set}\n"), |text, table| {
        text + &format!("{set} and dbms = {DBMS} and table = {} and ack = replicated({})\n", table.name, table.copies)
    })
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// How other nodes reach the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Directly, at the ports where they listen.
    Direct,
    /// Over links that can fail.
    OverLinks,
}

/// A master, members, a query node. In the links the members come first, then the master.
pub(crate) struct Cluster {
    // Dropped before the links, so that no link ends before its nodes.
    pub(crate) query: Node,
    pub(crate) members: Vec<Node>,
    pub(crate) master: Node,
    pub(crate) links: Links,
    reach: Reach,
    script: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts all nodes and waits until they are ready.
    pub(crate) fn start(members: usize, reach: Reach) -> Self {
        Self::start_with(members, reach, |_, _| {})
    }

    /// The same; each member is prepared, by its number, before it starts.
    pub(crate) fn start_with(members: usize, reach: Reach, prepare: impl Fn(usize, &mut Node)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = fs::read_to_string(examples().join("cluster/operator.al")).unwrap();
        let (before, after) = script.split_once("# ---- 11.").expect("step 11 of the script");
        let (begin, end) = after.split_once("operator_id = ").expect("the operator of step 11");
        let path = directory.path().join("operator.al");
        let (additions, thresholds) = (additions(), thresholds());
        let script = format!("{before}{additions}# ---- 11.{begin}{thresholds}operator_id = {end}");
        fs::write(&path, script).unwrap();
        let at = directory.path();
        let mut master =
            Node::new(at, "master", examples().join("network/master.al"), &[("SYNC_TIME", "60 seconds".to_owned())]);
        let mut nodes: Vec<Node> =
            (0..members).map(|number| Node::new(at, &format!("member-{number}"), path.clone(), &[])).collect();
        let ports: Vec<u16> = nodes.iter().chain([&master]).map(|node| node.ports().tcp).collect();
        let links = Links::to(&ports);
        links.is_process(members, Some(master.spawn()));
        master.ready();
        let ledger = match reach {
            Reach::Direct => master.ports().tcp,
            Reach::OverLinks => links.port(members),
        };
        for (number, node) in nodes.iter_mut().enumerate() {
            node.set("LEDGER_CONN", format!("127.0.0.1:{ledger}"));
            // The master tells of changes; the period is not what the tests wait for.
            node.set("SYNC_TIME", "60 seconds".to_owned());
            node.set("MAIN", (number == 0).to_string());
            node.set("PARTITION_KEEP", "100000".to_owned());
            if reach == Reach::OverLinks {
                node.set("EXTERNAL_PORT", links.port(number).to_string());
            }
            prepare(number, node);
        }
        let ledger = format!("127.0.0.1:{}", master.ports().tcp);
        let settings = [("LEDGER_CONN", ledger), ("SYNC_TIME", "60 seconds".to_owned())];
        let mut query = Node::new(at, "query", examples().join("network/query.al"), &settings);
        query.spawn();
        let mut cluster = Self { query, members: nodes, master, links, reach, script: path, directory };
        // The first declares the cluster; the others could at the same moment, which is tested elsewhere.
        for number in 0..members {
            cluster.spawn(number);
            cluster.members[number].ready();
        }
        cluster.query.ready();
        cluster.all_know(members);
        cluster
    }

    /// Starts a member, and does not wait.
    pub(crate) fn spawn(&mut self, member: usize) {
        let process = self.members[member].spawn();
        self.links.is_process(member, Some(process));
    }

    /// Starts members that do not run, and waits until all are ready.
    pub(crate) fn all_ready(&mut self) {
        for member in 0..self.members.len() {
            if !self.members[member].runs() {
                self.spawn(member);
            }
        }
        self.members.iter_mut().for_each(Node::ready);
    }

    /// Gives a member other ports. It must not run.
    pub(crate) fn moves(&mut self, member: usize) {
        assert_eq!(self.reach, Reach::Direct, "links lead to fixed ports");
        self.members[member].moves();
    }

    /// Adds a member, which joins the cluster. Reached directly.
    pub(crate) fn join(&mut self) -> usize {
        assert_eq!(self.reach, Reach::Direct, "there is no link to it");
        let number = self.members.len();
        let settings = [
            ("LEDGER_CONN", format!("127.0.0.1:{}", self.master.ports().tcp)),
            ("SYNC_TIME", "60 seconds".to_owned()),
            ("PARTITION_KEEP", "100000".to_owned()),
        ];
        let name = format!("member-{number}");
        let mut node = Node::new(self.directory.path(), &name, self.script.clone(), &settings);
        node.spawn();
        node.ready();
        self.members.push(node);
        self.all_know(number + 1);
        number
    }

    /// Waits until the ledger of each node names so many members.
    fn all_know(&self, members: usize) {
        let count = |node: &Node| {
            let found = node.get("blockchain get operator bring [operator][name] separator = ,").body;
            found.split(',').filter(|name| name.contains("member-")).count()
        };
        let nodes = || self.members.iter().chain([&self.query, &self.master]);
        eventually_or(
            || format!("all know all members: {:?}", nodes().map(count).collect::<Vec<_>>()),
            || nodes().all(|node| count(node) == members).then_some(()),
        );
    }

    /// The member number of each member's policy.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        let number = |node: &Node| {
            let command = format!("blockchain get operator where name = {} bring [operator][member]", node.name);
            let text = node.text(&command);
            text.trim().parse().unwrap_or_else(|_| panic!("{}: a member number: {text:?}", node.name))
        };
        self.members.iter().map(number).collect()
    }
}
