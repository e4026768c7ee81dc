//! From a declared address to a bound socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anylog_core::{CommandError, Status};
use tokio::net::{TcpListener, TcpSocket};

use crate::ServerAddress;

/// How long a host name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections that the system holds while they wait to be accepted.
const BACKLOG: u32 = 1024;

/// The socket address that a server listens on; host names are looked up.
pub(super) async fn resolve(address: &ServerAddress) -> Result<SocketAddr, CommandError> {
    let unresolved = |reason: String| {
        CommandError::new(
            Status::MISSING_IP,
            format!("The address '{}' cannot be resolved: {reason}", address.internal),
        )
        .hint("give an IP address of this machine")
    };
    let port = address.internal.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| unresolved("it has no port".into()))?;
    if !address.bind {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    if let Ok(literal) = address.internal.parse() {
        return Ok(literal);
    }
    let lookup = tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host(address.internal.as_str())).await;
    let found = lookup
        .map_err(|_| unresolved("the name server did not answer".into()))?
        .map_err(|error| unresolved(error.to_string()))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| unresolved("the name has no address".into()))
}

/// True when connections to `wanted` arrive at a socket bound to `local`.
pub(super) fn covers(local: SocketAddr, wanted: SocketAddr) -> bool {
    wanted.port() != 0 && local.port() == wanted.port() && (local.ip() == wanted.ip() || local.ip().is_unspecified())
}

/// True when both addresses cannot be bound at once.
pub(super) fn overlaps(local: SocketAddr, wanted: SocketAddr) -> bool {
    covers(local, wanted) || covers(wanted, local)
}

/// Binds and listens. A port in its last minutes of closing (`TIME_WAIT`) can be bound again at once.
pub(super) fn listen(address: &ServerAddress, wanted: SocketAddr) -> Result<TcpListener, CommandError> {
    let open = || {
        let socket = if wanted.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(wanted)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| {
        let at = address.listening_on();
        let (message, hint) = match error.kind() {
            std::io::ErrorKind::AddrInUse => (
                format!("Host and port '{at}' already in use by another program"),
                "stop that program, or give another port".to_owned(),
            ),
            std::io::ErrorKind::AddrNotAvailable => (
                format!("Cannot listen on '{at}': it is not an address of this machine"),
                "give an address of this machine as internal_ip, or listen on all with: where ... and bind=false"
                    .to_owned(),
            ),
            std::io::ErrorKind::PermissionDenied => {
                (format!("Cannot listen on '{at}': the system does not permit it"), "use a port above 1023".to_owned())
            }
            _ => (format!("Cannot listen on '{at}': {error}"), "check the address".to_owned()),
        };
        CommandError::new(Status::CONNECTION, message).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_unspecified_socket_covers_every_address_of_its_port() {
        assert!(covers(at("0.0.0.0:5"), at("127.0.0.1:5")));
        assert!(covers(at("127.0.0.1:5"), at("127.0.0.1:5")));
        assert!(!covers(at("127.0.0.1:5"), at("0.0.0.0:5")));
        assert!(overlaps(at("127.0.0.1:5"), at("0.0.0.0:5")));
        assert!(!overlaps(at("127.0.0.1:5"), at("127.0.0.1:6")));
        assert!(!overlaps(at("127.0.0.1:5"), at("127.0.0.1:0")));
    }

    #[tokio::test]
    async fn a_foreign_address_is_named_in_the_error() {
        let address = ServerAddress::bound_to(at("192.0.2.1:0"));
        let error = listen(&address, at("192.0.2.1:0")).unwrap_err();
        assert_eq!(error.status, Status::CONNECTION);
        assert!(error.message.contains("192.0.2.1"), "{error}");
        assert!(error.hint.is_some());
    }

    #[tokio::test]
    async fn a_host_name_is_looked_up() {
        let address =
            ServerAddress { external: "localhost:7".into(), internal: "localhost:7".into(), bind: true, threads: 1 };
        assert!(resolve(&address).await.unwrap().ip().is_loopback());
        let all = ServerAddress { bind: false, ..address };
        assert_eq!(resolve(&all).await.unwrap(), at("0.0.0.0:7"));
    }
}
