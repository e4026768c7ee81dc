//! The addresses of a server: as a call gives them, and as a socket uses them.

use std::net::SocketAddr;

use anylog_core::{CommandError, Declaration, Invocation, OptionKind, Status};

/// Worker threads of a server whose call names none.
pub const DEFAULT_THREADS: usize = 6;

/// The most worker threads that a call may ask for.
const MAX_THREADS: usize = 1024;

/// The addresses of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The address published to other nodes, `ip:port`.
    pub external: String,
    /// The address on the local network, `ip:port`.
    pub internal: String,
    /// Whether it listens on the internal address only; otherwise on all.
    pub bind: bool,
    /// Worker threads as declared; shown, and the bound on requests at work at once.
    pub threads: usize,
}

/// The declaration that all servers share: the where form, and the positional form
/// `EXT_IP EXT_PORT [INT_IP INT_PORT [THREADS]]`.
#[must_use]
pub fn server_declaration(words: &'static str, summary: &'static str) -> Declaration {
    Declaration::new(words, summary)
        .optional_word("external_ip", "address published to other nodes")
        .optional_word("external_port", "port published to other nodes")
        .optional_word("internal_ip", "address on the local network, which the positional form listens on")
        .optional_word("internal_port", "port on the local network")
        .optional_word("threads", "worker threads")
        .option("external_ip", OptionKind::Text, "address or host name published to other nodes")
        .key_alias(&["ip"])
        .option("external_port", OptionKind::Text, "port published to other nodes")
        .key_alias(&["port"])
        .option("internal_ip", OptionKind::Text, "address or host name on the local network")
        .key_alias(&["local_ip"])
        .default_is("the external address")
        .option("internal_port", OptionKind::Text, "port to listen on")
        .key_alias(&["local_port"])
        .default_is("the external port")
        .option("bind", OptionKind::Bool, "true: listen on one address only; false: on all addresses of the machine")
        .default_is("false, true in the positional form")
        .option("threads", OptionKind::Int, "worker threads: commands at work at once")
        .default_is("6")
        .returns("nothing; the socket is bound when the command returns")
}

impl ServerAddress {
    /// The addresses that a call of a command with [`server_declaration`] gives.
    ///
    /// # Errors
    /// Status 40 without a port, 21 without an address, 221 for a port that is no port.
    pub fn from_call(call: &Invocation) -> Result<Self, CommandError> {
        let server = server_name(call);
        let given = |name: &str| {
            let text = call.positional_value(name).map(ToString::to_string).or_else(|| call.options.text(name));
            text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let positional = call.positional_value("external_ip").is_some();
        let external = (given("external_ip"), port(&server, "external_port", given("external_port"))?);
        let internal = (given("internal_ip"), port(&server, "internal_port", given("internal_port"))?);
        let Some(internal_port) = internal.1.or(external.1) else {
            return Err(CommandError::parameter(format!("Missing port in the configuration of the {server} server"))
                .hint(format!(
                    "name one: run {} where internal_ip=127.0.0.1 and internal_port=32148",
                    run_words(call)
                )));
        };
        let Some(internal_ip) = internal.0.clone().or_else(|| external.0.clone()) else {
            return Err(CommandError::new(
                Status::MISSING_IP,
                format!("Missing IP address in the configuration of the {server} server"),
            )
            .hint("give external_ip, internal_ip or both"));
        };
        let external_ip = external.0.unwrap_or_else(|| internal_ip.clone());
        let external_port = external.1.unwrap_or(internal_port);
        Ok(Self {
            external: join(&external_ip, external_port),
            internal: join(&internal_ip, internal_port),
            bind: call.options.bool("bind").unwrap_or(positional),
            threads: threads(&server, given("threads"))?,
        })
    }

    /// A server on one address only, for programs and tests. Port 0 lets the system choose.
    #[must_use]
    pub fn bound_to(address: SocketAddr) -> Self {
        Self { external: address.to_string(), internal: address.to_string(), bind: true, threads: DEFAULT_THREADS }
    }

    /// Where it listens, as shown: the internal address, or every address at the internal port.
    #[must_use]
    pub fn listening_on(&self) -> String {
        if self.bind {
            return self.internal.clone();
        }
        let port = self.internal.rsplit_once(':').map_or("", |(_, port)| port);
        format!("0.0.0.0:{port}")
    }

    /// The addresses with port 0 replaced by the port that the system chose.
    pub(crate) fn with_port(mut self, port: u16) -> Self {
        for address in [&mut self.external, &mut self.internal] {
            if let Some(host) = address.strip_suffix(":0") {
                *address = format!("{host}:{port}");
            }
        }
        self
    }
}

/// `tcp`, `rest`, `message broker`: what a message calls the server.
fn server_name(call: &Invocation) -> String {
    run_words(call).trim_end_matches(" server").to_uppercase()
}

fn run_words(call: &Invocation) -> String {
    let words: Vec<&str> = call.words.iter().take(call.key_words).skip(1).map(|word| word.text.as_str()).collect();
    words.join(" ")
}

fn port(server: &str, name: &str, text: Option<String>) -> Result<Option<u16>, CommandError> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        CommandError::new(Status::PORT_VALUE, format!("Wrong {name} of the {server} server: '{text}' is not a port"))
            .hint("a port is a number from 1 to 65535")
    })
}

fn threads(server: &str, text: Option<String>) -> Result<usize, CommandError> {
    let Some(text) = text else { return Ok(DEFAULT_THREADS) };
    match text.parse() {
        Ok(0) => Ok(DEFAULT_THREADS),
        Ok(threads) if threads <= MAX_THREADS => Ok(threads),
        _ => Err(CommandError::parameter(format!("Wrong threads of the {server} server: '{text}'"))
            .hint(format!("give a number from 1 to {MAX_THREADS}"))),
    }
}

/// `ip:port`, with brackets around an IPv6 address.
fn join(ip: &str, port: u16) -> String {
    if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use anylog_core::Options;
    use anylog_core::command::{OptionValue, Value, Word};

    use super::*;

    fn call(positionals: &[(&'static str, &str)], options: &[(&str, &str)]) -> Invocation {
        let source = "run tcp server".to_owned();
        let words = source.split(' ').map(|text| Word { text: text.into(), quoted: false, span: 0..0 }).collect();
        let mut list = Options::default();
        for (name, text) in options {
            list.push(*name, OptionValue::Value(Value::Text((*text).to_owned())));
        }
        let positionals = positionals.iter().map(|(name, text)| (*name, Value::Text((*text).to_owned()))).collect();
        Invocation { source, words, key_words: 3, assign_to: None, positionals, options: list }
    }

    #[test]
    fn both_positional_pairs_listen_on_the_internal_address() {
        let address = ServerAddress::from_call(&call(
            &[
                ("external_ip", "1.2.3.4"),
                ("external_port", "32148"),
                ("internal_ip", "127.0.0.1"),
                ("internal_port", "32149"),
            ],
            &[],
        ))
        .unwrap();
        assert_eq!(address.external, "1.2.3.4:32148");
        assert_eq!(address.internal, "127.0.0.1:32149");
        assert!(address.bind);
        assert_eq!(address.threads, DEFAULT_THREADS);
        assert_eq!(address.listening_on(), "127.0.0.1:32149");
    }

    #[test]
    fn the_where_form_listens_on_all_addresses_unless_bound() {
        let options = [("external_ip", "10.0.0.1"), ("external_port", "7"), ("threads", "3")];
        let address = ServerAddress::from_call(&call(&[], &options)).unwrap();
        assert_eq!(address.listening_on(), "0.0.0.0:7");
        assert_eq!((address.internal.as_str(), address.threads), ("10.0.0.1:7", 3));
        let bound = [("internal_ip", "127.0.0.1"), ("internal_port", "8"), ("bind", "TRUE")];
        let address = ServerAddress::from_call(&call(&[], &bound)).unwrap();
        assert_eq!((address.external.as_str(), address.listening_on().as_str()), ("127.0.0.1:8", "127.0.0.1:8"));
    }

    #[test]
    fn an_incomplete_call_names_what_is_missing() {
        let status = |options: &[(&str, &str)]| ServerAddress::from_call(&call(&[], options)).unwrap_err().status;
        assert_eq!(status(&[("external_ip", "127.0.0.1")]), Status::COMMAND_PARAMETERS);
        assert_eq!(status(&[("external_port", "12")]), Status::MISSING_IP);
        assert_eq!(status(&[("external_ip", "127.0.0.1"), ("external_port", "70000")]), Status::PORT_VALUE);
        let error = ServerAddress::from_call(&call(&[], &[("ip", "")])).unwrap_err();
        assert!(error.message.contains("Missing port") && error.message.contains("TCP"), "{error}");
    }
}
