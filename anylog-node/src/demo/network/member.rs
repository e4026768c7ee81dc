//! One node of the demo's network: a process of its own, and the way to ask it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use anylog_net::{GrpcPeers, PeerReply, PeerRequest, Peers};
use tokio::process::{Child, ChildStdin, Command};

/// How long a node may take to run its script.
const START: Duration = Duration::from_secs(30);

/// How long a node may take to end; it drains in less.
const END: Duration = Duration::from_secs(8);

/// How often a node that starts is asked whether it is there.
const LOOK: Duration = Duration::from_millis(50);

/// Lines of a node's output that are shown when it fails.
const LAST_LINES: usize = 8;

/// The command that runs behind a node's script, and the question whether it did.
const READY: [&str; 2] = ["set demo_ready = true", "get !demo_ready"];

/// What a node is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Its name in the network, and that of its home.
    pub(super) name: &'static str,
    /// What it runs.
    pub(super) script: &'static str,
    /// Ports of its servers on loopback.
    pub(super) tcp: u16,
    pub(super) rest: u16,
    /// The TCP port of the node that holds the ledger, unless it is that node.
    pub(super) master: Option<u16>,
    /// The cluster that it keeps data for, and whether it is asked first.
    pub(super) cluster: Option<(&'static str, bool)>,
}

/// A node that runs. Dropped, the process is killed.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) plan: Plan,
    process: Child,
    /// The node ends when this is closed, so it ends with this program, however that ends.
    input: Option<ChildStdin>,
    log: PathBuf,
    peers: Arc<GrpcPeers>,
}

impl Member {
    /// Starts a node at home in a directory of its own below `homes`, and waits until its script came to its end.
    pub(super) async fn start(plan: Plan, homes: &Path, peers: &Arc<GrpcPeers>) -> Result<Self, CommandError> {
        let mut member = Self::launch(plan, homes, peers)
            .map_err(|error| CommandError::process(format!("The node '{}' cannot be started: {error}", plan.name)))?;
        let ready = async {
            loop {
                member.runs()?;
                if member.ask_within(READY[1], Duration::from_secs(1)).await.is_ok_and(|text| text.trim() == "true") {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(START, ready).await {
            Ok(Ok(())) => Ok(member),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(member.failed(&format!("did not come to the end of its script within {} s", START.as_secs())))
            }
        }
    }

    fn launch(plan: Plan, homes: &Path, peers: &Arc<GrpcPeers>) -> std::io::Result<Self> {
        let home = homes.join(plan.name);
        std::fs::create_dir_all(&home)?;
        let script = home.join("node.al");
        std::fs::write(&script, plan.script)?;
        let log = home.join("node.log");
        let output = File::create(&log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--home").arg(&home).args(["process", "--until-eof"]).arg(&script).args(["and", READY[0]]);
        // What a person has set for a node of their own does not reach the demo.
        command.env_clear();
        for kept in ["PATH", "TMPDIR", "ANYLOG_LOG"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        command.env("NODE_NAME", plan.name);
        command.env("ANYLOG_SERVER_PORT", plan.tcp.to_string()).env("ANYLOG_REST_PORT", plan.rest.to_string());
        command.envs(plan.master.map(|port| ("LEDGER_CONN", format!("127.0.0.1:{port}"))));
        if let Some((cluster, main)) = plan.cluster {
            command.env("CLUSTER_NAME", cluster).env("MAIN", main.to_string());
        }
        // A group of its own: Ctrl-C reaches this program only, which ends the nodes in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut process = command.spawn()?;
        let input = process.stdin.take();
        Ok(Self { plan, process, input, log, peers: Arc::clone(peers) })
    }

    /// The process, for a person who wants to end it.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// An error when the process ended, with its last words.
    pub(super) fn runs(&mut self) -> Result<(), CommandError> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(self.failed(&format!("ended: {status}"))),
            Ok(None) => Ok(()),
            Err(error) => Err(self.failed(&format!("cannot be watched: {error}"))),
        }
    }

    fn failed(&self, what: &str) -> CommandError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        CommandError::process(format!("The node '{}' {what}", self.plan.name))
            .hint(format!("its last lines:\n  {last}"))
    }

    /// Runs a command at the node and waits at most so long.
    pub(super) async fn ask_within(&self, command: &str, deadline: Duration) -> Result<String, CommandError> {
        let address = format!("127.0.0.1:{}", self.plan.tcp);
        let request = PeerRequest::Command { text: command.to_owned() };
        match self.peers.call(&address, request, deadline).await? {
            PeerReply::Text(text) => Ok(text),
            _ => Err(CommandError::process(format!("The node '{}' gave an answer without text", self.plan.name))),
        }
    }

    /// Lets the node drain and end; one that does not is killed. True when it ended by itself.
    pub(super) async fn end(mut self) -> bool {
        drop(self.input.take());
        match tokio::time::timeout(END, self.process.wait()).await {
            Ok(Ok(status)) => status.success(),
            Ok(Err(error)) => {
                tracing::warn!(%error, node = self.plan.name, "The node cannot be watched");
                false
            }
            // Dropping kills it.
            Err(_) => false,
        }
    }
}
