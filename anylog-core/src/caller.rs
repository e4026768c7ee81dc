//! Who asks for a command, and what they may do.

use std::net::{IpAddr, SocketAddr};

/// What a command does to a node, and so what a caller must be allowed to do. Ordered: a caller with a right
/// has those below it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Looks at the node and its data.
    Read,
    /// Adds data or validated policies.
    Data,
    /// Everything else.
    Admin,
}

/// The door a command came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// A person at the node's own terminal, or the program's arguments.
    Terminal,
    /// The REST server.
    Rest,
    /// Another node.
    Peer,
    /// A scheduled task.
    Scheduler,
    /// The program that embeds the node.
    Embedded,
}

/// The origin of a command: its surface, its address and its rights.
///
/// A script runs with the rights of who started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The door it came through.
    pub surface: Surface,
    /// The address it came from, when it came over a network.
    pub address: Option<SocketAddr>,
    /// The most it may do.
    pub rights: Access,
}

impl Caller {
    /// The person at the node's own terminal: may do everything.
    #[must_use]
    pub fn terminal() -> Self {
        Self { surface: Surface::Terminal, address: None, rights: Access::Admin }
    }

    /// The program that embeds the node: may do everything.
    #[must_use]
    pub fn embedded() -> Self {
        Self { surface: Surface::Embedded, address: None, rights: Access::Admin }
    }

    /// A scheduled task with the rights of who scheduled it.
    #[must_use]
    pub fn scheduler(rights: Access) -> Self {
        Self { surface: Surface::Scheduler, address: None, rights }
    }

    /// A caller at `address`. Loopback may do everything; any other address may read and add data, and
    /// administer only when `remote_admin` is on.
    #[must_use]
    pub fn network(surface: Surface, address: SocketAddr, remote_admin: bool) -> Self {
        let rights = if is_loopback(address.ip()) || remote_admin { Access::Admin } else { Access::Data };
        Self { surface, address: Some(address), rights }
    }

    /// The same caller with at most these rights.
    #[must_use]
    pub fn limited_to(mut self, rights: Access) -> Self {
        self.rights = self.rights.min(rights);
        self
    }

    /// True when the command came over a network. Such a caller may name paths only inside the work
    /// directories.
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.address.is_some()
    }

    /// True when the command came from an address other than loopback.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.address.is_some_and(|address| !is_loopback(address.ip()))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}
