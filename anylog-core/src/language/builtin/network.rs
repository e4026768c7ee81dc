//! Addresses and ports of the computer, and the parameters that the node starts with.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use super::{BlockingCall, blocking};
use crate::command::{Command, CommandResult, Declaration};
use crate::error::nearest;
use crate::{CommandError, Dictionary, Reply, Table};

/// Documented default ports of node types: TCP; REST is one more, the message broker two.
const PORTS: &[(&str, u16)] =
    &[("master", 32048), ("operator", 32148), ("publisher", 32248), ("query", 32348), ("generic", 32548)];

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        blocking(
            Declaration::new("get ip list", "Shows the addresses of the computer.")
                .reads()
                .format_option()
                .returns("a table with Family, Interface, Address")
                .example("get ip list"),
            ip_list,
        ),
        blocking(
            Declaration::new(
                "get unused",
                "Shows a port that nobody uses: the documented one of a node type, or 10, 20, ... more.",
            )
            .reads()
            .word("service", "tcp, rest or msg")
            .keyword("port")
            .keyword("for")
            .word("type", "master, operator, publisher, query or generic")
            .returns("the port")
            .example("get unused rest port for operator"),
            unused_port,
        ),
        blocking(
            Declaration::new("set internal ip", "Takes the node's own address from a network interface.")
                .keyword("with")
                .word("interface", "the name of the interface, or default")
                .returns("nothing; sets !ip")
                .example("set internal ip with eth0"),
            set_internal_ip,
        ),
    ]
}

/// The name of the computer.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The local address of the default route. Nothing is sent: connecting a datagram socket only chooses a route.
fn default_address() -> IpAddr {
    let route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(10, 255, 255, 255), 9))?;
        socket.local_addr()
    };
    route().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Puts the documented parameters of a fresh node into the dictionary, those that are not there yet.
pub(crate) fn publish(dictionary: &Dictionary) {
    let ip = default_address().to_string();
    let hostname = hostname();
    for (name, value) in [
        ("ip", ip.as_str()),
        ("external_ip", ip.as_str()),
        ("hostname", hostname.as_str()),
        ("anylog_server_port", "2048"),
        ("anylog_rest_port", "2148"),
        ("io_buff_size", "2048"),
        ("db_port", "5432"),
        ("is_vm", "false"),
    ] {
        dictionary.set_default(name, value);
    }
}

fn interfaces() -> Result<Vec<if_addrs::Interface>, CommandError> {
    if_addrs::get_if_addrs()
        .map_err(|error| CommandError::process(format!("The network interfaces cannot be listed: {error}")))
}

fn ip_list(call: &BlockingCall) -> CommandResult {
    let mut table = Table::new(["Family", "Interface", "Address"]).max_width(call.node.output_width());
    for interface in interfaces()? {
        let ip = interface.ip();
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        table.push([family, &interface.name, &ip.to_string()]);
    }
    Ok(if call.call.options.wants_json() { Reply::Json(table.to_json()) } else { table.into() })
}

fn unused_port(call: &BlockingCall) -> CommandResult {
    let service = call.call.expect_positional("service")?;
    let offset = match service.to_lowercase().as_str() {
        "tcp" => 0,
        "rest" => 1,
        "msg" | "broker" | "message" => 2,
        _ => return Err(CommandError::structure(format!("Unknown service '{service}'")).hint("use tcp, rest or msg")),
    };
    let kind = call.call.expect_positional("type")?;
    let Some((_, first)) = PORTS.iter().find(|(name, _)| *name == kind.to_lowercase()) else {
        let error = CommandError::structure(format!("Unknown node type '{kind}'"));
        let known = PORTS.iter().map(|(name, _)| *name);
        return Err(match nearest(&kind, known.clone()) {
            Some(meant) => error.hint(format!("did you mean '{meant}'?")),
            None => error.hint(format!("known: {}", known.collect::<Vec<_>>().join(", "))),
        });
    };
    let candidates: Vec<u16> = (0..10).map(|step| first + offset + 10 * step).collect();
    let free = candidates.iter().find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, **port)).is_ok());
    match free {
        Some(port) => Ok(port.to_string().into()),
        None => Err(CommandError::process(format!("The ports {candidates:?} are all in use"))),
    }
}

fn set_internal_ip(call: &BlockingCall) -> CommandResult {
    let name = call.call.expect_positional("interface")?;
    if name == "default" {
        call.node.dictionary.set("ip", default_address().to_string());
        return Ok(Reply::Empty);
    }
    let interfaces = interfaces()?;
    let found = interfaces.iter().filter(|interface| interface.name == name).map(if_addrs::Interface::ip);
    let found = found.min_by_key(|ip| !ip.is_ipv4());
    match found {
        Some(ip) => {
            call.node.dictionary.set("ip", ip.to_string());
            Ok(Reply::Empty)
        }
        None => {
            let mut known: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
            known.dedup();
            Err(CommandError::parameter(format!("There is no network interface '{name}'"))
                .hint(format!("known: {}", known.join(", "))))
        }
    }
}
