//! Which address of another node to use.

use std::net::IpAddr;

use anylog_core::Node;

use crate::Policy;
use crate::view::integer;

/// The addresses of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// `!external_ip`.
    pub external_ip: Option<String>,
    /// `!ip`.
    pub ip: Option<String>,
}

impl OwnAddresses {
    /// The addresses that the node's dictionary names.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self { external_ip: node.dictionary.get("external_ip"), ip: node.dictionary.get("ip") }
    }

    /// `ip:port` by which the node of this policy is reached from here; none when the policy names no address.
    ///
    /// An address on a private network is used as it is. A public address that is this node's own leads to the same network, so the
    /// local address is used. Without `ip` the local address is all there is.
    #[must_use]
    pub fn reach(&self, policy: &Policy) -> Option<String> {
        let text = |name: &str| policy.shown(name).filter(|text| !text.is_empty());
        let port_of = |name: &str| policy.get(name).and_then(integer).and_then(|port| u16::try_from(port).ok());
        let local_ip = text("local_ip").or_else(|| text("internal_ip"));
        let port = port_of("port");
        let local_port = port_of("local_port").or(port);
        let Some(ip) = text("ip") else {
            return Some(format!("{}:{}", local_ip?, local_port?));
        };
        if !is_private(&ip) && self.external_ip.as_deref() == Some(ip.as_str()) {
            let near = local_ip.or_else(|| self.ip.clone()).unwrap_or(ip);
            return Some(format!("{near}:{}", local_port?));
        }
        Some(format!("{ip}:{}", port?))
    }
}

fn is_private(ip: &str) -> bool {
    match ip.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        // A name is resolved by who connects.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_address_depends_on_where_this_node_is() {
        let own = OwnAddresses { external_ip: Some("8.8.8.8".to_owned()), ip: Some("10.0.0.9".to_owned()) };
        let cases: [(Value, Option<&str>); 7] = [
            (json!({"ip": "10.0.0.1", "port": 1, "local_ip": "x"}), Some("10.0.0.1:1")),
            (json!({"ip": "8.8.8.8", "port": 1, "local_ip": "10.0.0.2", "local_port": 2}), Some("10.0.0.2:2")),
            (json!({"ip": "8.8.8.8", "port": 1}), Some("10.0.0.9:1")),
            (json!({"ip": "9.9.9.9", "port": "1", "local_ip": "10.0.0.2"}), Some("9.9.9.9:1")),
            (json!({"local_ip": "10.0.0.2", "port": 1}), Some("10.0.0.2:1")),
            (json!({"ip": "9.9.9.9"}), None),
            (json!({"name": "x"}), None),
        ];
        for (inner, wanted) in cases {
            let policy = Policy::from_value(json!({"operator": inner})).unwrap();
            assert_eq!(own.reach(&policy).as_deref(), wanted, "{inner}");
        }
    }
}
