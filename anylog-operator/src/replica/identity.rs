//! Who a node is: a key of its own, not an address (R22).
//!
//! The key is made at random when a node first runs an operator, and kept with its data. A node that comes back at another address is the same
//! node, and publishes the address; another node under the same policy has another key, and is refused.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anylog_ledger::{Destinations, Ledger, OperatorNode, Policy};
use anylog_net::{Link, LinkHandler, Peers};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Replication;
use crate::OperatorError;
use crate::disk::write_durably;

/// What a node is asked with who it is.
pub(crate) const PURPOSE: &str = "identity";
/// How long it may take to say so.
const ASKING: Duration = Duration::from_secs(3);

/// The name of the file below the journal's parent directory.
const FILE: &str = "node.key";

/// The node's key, made when there is none. Blocks.
///
/// # Errors
/// What the file system refuses.
pub(crate) fn key(directory: &Path) -> io::Result<String> {
    let (path, previous) = (directory.join(FILE), directory.join(format!("{FILE}.previous")));
    let found = read(&path)?;
    if let Some(key) = found {
        if read(&previous)?.as_ref() != Some(&key) {
            write_durably(&previous, line(&key).as_bytes())?;
        }
        return Ok(key);
    }
    let damaged = path.exists();
    let key = match read(&previous)? {
        Some(key) => {
            tracing::error!(file = %path.display(), "The node's key is damaged or lost; its copy is taken");
            key
        }
        None => {
            if damaged {
                tracing::error!(file = %path.display(), "The node's key is damaged, and so is its copy; the node gets another one");
            }
            format!("{:032x}", rand::random::<u128>())
        }
    };
    write_durably(&path, line(&key).as_bytes())?;
    write_durably(&previous, line(&key).as_bytes())?;
    Ok(key)
}

/// Who a node says that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    /// A number drawn by the process when it started: it tells a node from itself under another address, and from its copy.
    pub(crate) instance: String,
    /// The member that runs; none while no operator of a cluster runs.
    pub(crate) member: Option<i64>,
    pub(crate) cluster: String,
    pub(crate) key: String,
}

/// Tells other nodes who this one is.
pub(crate) struct Teller(pub(crate) Arc<Replication>);

#[async_trait]
impl LinkHandler for Teller {
    async fn serve(&self, _: SocketAddr, link: Link) {
        let who = serde_json::to_vec(&self.0.who()).unwrap_or_default();
        // Whoever asked may have gone.
        link.sender.send(who.into()).await.ok();
    }
}

/// Asks the node at an address who it is.
///
/// # Errors
/// Why it did not say so.
pub(crate) async fn ask(peers: &dyn Peers, address: &str) -> Result<Who, String> {
    let asking = async {
        let mut link = peers.link(address, PURPOSE, ASKING).await.map_err(|error| error.to_string())?;
        match link.receiver.next().await {
            Some(Ok(frame)) => serde_json::from_slice(&frame).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("node {address} did not say who it is")),
        }
    };
    tokio::time::timeout(ASKING, asking).await.unwrap_or_else(|_| Err(format!("node {address} did not answer in time")))
}

/// Another node that has this member's number, by the address that the ledger has for it: who is there stays, who is not goes.
pub(crate) async fn rival(ledger: &Ledger, own: &OperatorNode, instance: &str) -> Result<(), Found> {
    let address = ledger.policy(&own.id).and_then(|policy| ledger.own_addresses().reach(&policy));
    let address = address.unwrap_or_else(|| own.address());
    match ask(ledger.peers().as_ref(), &address).await {
        Ok(who) if who.instance == instance => Ok(()),
        Ok(who) if who.member == Some(own.member) && who.cluster == own.cluster => Err(Found::Rival(address)),
        Ok(_) | Err(_) => Err(Found::Nobody),
    }
}

/// Who is found at this member's address when it is not this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A node that runs as the same member.
    Rival(String),
    /// Nobody, or a node that has nothing to do with it.
    Nobody,
}

/// Sees that the ledger says where this node is. Answers its operator as it is in the ledger then.
///
/// # Errors
/// [`OperatorError::MemberTaken`] when a node that runs as the same member is at the address of the policy.
pub(crate) async fn settle(
    ledger: &Ledger,
    own: OperatorNode,
    instance: &str,
    master: Option<&str>,
) -> Result<OperatorNode, OperatorError> {
    let node = ledger.node();
    let Some((external, local)) = node.server_addresses() else { return Ok(own) };
    if own.address() == external || own.address() == local || own.local_address() == local {
        return Ok(own);
    }
    match rival(ledger, &own, instance).await {
        // The address leads here, under another name.
        Ok(()) => return Ok(own),
        Err(Found::Rival(address)) => {
            return Err(OperatorError::MemberTaken { member: own.member, policy: own.id, address });
        }
        Err(Found::Nobody) => {}
    }
    let Some(moved) = ledger.policy(&own.id).and_then(|policy| moved(&policy, &external, &local)) else {
        return Ok(own);
    };
    let moved = match node.dictionary.get("anylog_rest_port").and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if moved.get("rest_port").is_some() => moved.with("rest_port", port),
        _ => moved,
    };
    let to = master.map_or_else(Destinations::local, Destinations::with_master);
    match ledger.replace(moved, &to).await {
        Ok(_) => {
            tracing::info!(from = own.address(), to = external, "The operator policy says now where this node is");
        }
        Err(error) => {
            let text = format!(
                "The operator policy {} says that this node is at {}, and it is at {external}; that cannot be published: {error}",
                own.id,
                own.address()
            );
            tracing::error!("{text}");
            node.errors.add(node.clock.now(), "operator", "Address", text);
        }
    }
    Ok(ledger.set_own_operator(&own.id).unwrap_or(own))
}

/// A policy with the addresses of the node; none when these are no `ip:port`.
fn moved(policy: &Policy, external: &str, local: &str) -> Option<Policy> {
    let split = |address: &str| {
        let (ip, port) = address.rsplit_once(':')?;
        Some((ip.to_owned(), port.parse::<u16>().ok()?))
    };
    let ((ip, port), (local_ip, local_port)) = (split(external)?, split(local)?);
    let mut policy = policy.with("ip", ip.as_str()).with("port", port);
    for name in ["local_ip", "internal_ip"] {
        if policy.get(name).is_some() {
            policy = policy.with(name, local_ip.as_str());
        }
    }
    if policy.get("local_port").is_some() {
        policy = policy.with("local_port", local_port);
    }
    Some(policy)
}

/// Where the key lies: beside the journal, so that it goes with the data.
pub(crate) fn directory(journal: &Path) -> PathBuf {
    journal.parent().unwrap_or(journal).join("replica")
}

/// The key and its checksum.
fn line(key: &str) -> String {
    format!("{key} {:08x}\n", crc32fast::hash(key.as_bytes()))
}

/// The key in a file; none when there is no file, or it is damaged.
fn read(path: &Path) -> io::Result<Option<String>> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let key = text.split_whitespace().next().unwrap_or_default();
    let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok((is_key && text == line(key)).then(|| key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_over_the_damage_of_either_file() {
        let home = tempfile::tempdir().unwrap();
        let made = key(home.path()).unwrap();
        assert_eq!(key(home.path()).unwrap(), made);
        for file in [FILE, "node.key.previous"] {
            for damage in [&b""[..], b"0123", b"\xff\xfe\n", format!("{made} 00000000\n").as_bytes()] {
                std::fs::write(home.path().join(file), damage).unwrap();
                assert_eq!(key(home.path()).unwrap(), made, "{file}");
            }
            std::fs::remove_file(home.path().join(file)).unwrap();
            assert_eq!(key(home.path()).unwrap(), made, "{file}");
        }
        // Both: it is another node then.
        for file in [FILE, "node.key.previous"] {
            std::fs::write(home.path().join(file), "x").unwrap();
        }
        assert_ne!(key(home.path()).unwrap(), made);
    }
}
