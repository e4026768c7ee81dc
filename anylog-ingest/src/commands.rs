//! The commands of ingestion: thin adapters over [`Ingest`].

mod show;
mod topic;

use std::sync::Arc;

use anylog_core::language::lexer;
use anylog_core::node::processes::ProcessState;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Method, OptionKind, Reply, Session, Status, command,
};
use anylog_net::listener::{ConnectionHandler, Listeners, Protocol, ServerAddress, ServerKind, server_declaration};

use crate::Ingest;
use crate::client::{BrokerAddress, ClientSpec, PublishTarget, Tls};

/// The port of a broker when none is named, without and with TLS.
const DEFAULT_PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// What the commands work on.
struct Ingestion {
    ingest: Arc<Ingest>,
    listeners: Arc<Listeners>,
}

/// All commands of this crate. The process `MSG Broker` becomes known to the node.
pub fn commands(ingest: Arc<Ingest>, listeners: Arc<Listeners>) -> Vec<Arc<dyn Command>> {
    let servers = Arc::clone(&listeners);
    ingest.node().processes.register("MSG Broker", move || {
        servers.details(ServerKind::Broker).map_or_else(ProcessState::not_declared, ProcessState::running)
    });
    let broker = Arc::downgrade(&ingest.broker());
    ingest
        .node()
        .queues
        .register("broker", move || broker.upgrade().map(|broker| show::queues(&broker.usage())).unwrap_or_default());
    let clients = Arc::downgrade(&ingest);
    ingest.node().queues.register("message clients", move || {
        clients.upgrade().map(|ingest| show::client_queues(&ingest.clients())).unwrap_or_default()
    });
    let state = Arc::new(Ingestion { ingest, listeners });
    vec![
        command(run_broker_declaration(), Arc::clone(&state), |s, session, call| {
            Box::pin(run_broker(s, session, call))
        }),
        command(run_client_declaration(), Arc::clone(&state), |s, session, call| {
            Box::pin(run_client(s, session, call))
        }),
        command(exit_client_declaration(), Arc::clone(&state), |s, _, call| Box::pin(exit_client(s, call))),
        command(exit_mqtt_declaration(), Arc::clone(&state), |s, _, _| Box::pin(exit_all(s))),
        command(get_client_declaration(), Arc::clone(&state), |s, session, call| {
            Box::pin(get_client(s, session, call))
        }),
        command(get_brokers_declaration(), Arc::clone(&state), |s, _, call| Box::pin(get_brokers(s, call))),
        command(rules_declaration(), Arc::clone(&state), |_, _, _| {
            Box::pin(async { Ok(Reply::Text(NO_RULES.into())) })
        }),
        command(set_rule_declaration(), Arc::clone(&state), |_, _, _| Box::pin(async { Err(no_rules()) })),
        command(get_local_broker_declaration(), Arc::clone(&state), |s, _, call| Box::pin(get_local_broker(s, call))),
        command(publish_declaration(), state, |s, session, call| Box::pin(publish(s, session, call))),
    ]
}

fn run_broker_declaration() -> Declaration {
    server_declaration("run message broker", "Starts the node's own MQTT broker.")
        .returns("nothing; the socket is bound when the command returns")
        .example("run message broker !external_ip !anylog_broker_port !ip !anylog_broker_port")
        .example("run message broker where external_ip=10.0.0.25 and external_port=32150 and bind=false and threads=6")
}

async fn run_broker(state: &Ingestion, session: &mut Session, call: Invocation) -> CommandResult {
    let address = ServerAddress::from_call(&call)?;
    let broker = state.ingest.broker();
    let journal = session.directory("journal_dir");
    let directory = journal.parent().unwrap_or(&journal).join("broker");
    if let Err(error) = broker.keep_in(&directory).await {
        // Messages are worth more than the memory of sessions.
        tracing::error!(%error, "Sessions and retained messages will not outlive this run");
        session.node.errors.add(session.node.clock.now(), &session.thread, "MSG Broker", error.to_string());
    }
    let handler: Arc<dyn ConnectionHandler> = broker;
    let bound = state.listeners.start(ServerKind::Broker, Protocol::Mqtt, address, handler).await?;
    if !bound.ip().is_loopback() {
        let text = format!(
            "The message broker at {bound} lets anybody publish who reaches it; to narrow it, bind it to a private address: \
             run message broker where internal_ip=<ip> and internal_port={} and bind=true",
            bound.port()
        );
        tracing::warn!(%bound, "{text}");
        session.node.events.add(session.node.clock.now(), &session.thread, "MSG Broker", text);
    }
    Ok(Reply::Empty)
}

fn run_client_declaration() -> Declaration {
    Declaration::new("run msg client", "Subscribes topics of a broker and stores their messages as rows.")
        .alias("run mqtt client")
        .alias("run message client")
        .required("broker", OptionKind::Text, "host of the broker, local for the node's own, rest for POST data")
        .option("port", OptionKind::Int, "port of the broker")
        .default_is("1883, with tls 8883")
        .option("user", OptionKind::Text, "user at the broker")
        .option("password", OptionKind::Text, "password of that user")
        .option("client_id", OptionKind::Text, "id under which the broker keeps the session")
        .default_is("an id that follows from the node and the topics")
        .option("tls", OptionKind::Bool, "encrypts the connection to another broker, whose certificate must name the host")
        .default_is("false")
        .option("ca_file", OptionKind::Text, "with tls: trusted certificates in PEM form; by default those of the system")
        .option("cert_file", OptionKind::Text, "with tls: the client's own certificate in PEM form, when the broker asks for one")
        .option("key_file", OptionKind::Text, "with tls: the key of that certificate")
        .option("user-agent", OptionKind::Text, "product name of the senders, with broker=rest")
        .option("keep_alive", OptionKind::Duration, "how often the broker hears of the client at least")
        .default_is("30 seconds")
        .option("log", OptionKind::Bool, "accepted for older scripts: what the client does is always traced")
        .option("log_error", OptionKind::Bool, "accepted for older scripts: failed messages are always kept")
        .option("only_log", OptionKind::Bool, "write messages to a file in the prep_dir, map nothing")
        .default_is("false")
        .option("master_node", OptionKind::Text, "accepted for older scripts")
        .option("blockchain", OptionKind::Text, "accepted for older scripts")
        .repeated("topic", OptionKind::Nested, "a topic and how its messages become rows")
        .is_required()
        .returns("nothing: the subscriptions are confirmed; or why the broker is not reached yet: then the client goes on trying")
        .example(
            "run msg client where broker=local and topic=(name=plant/+ and dbms=test and table=rand_data and \
             column.timestamp.timestamp=\"bring [timestamp]\" and column.value=(value=\"bring [value]\" and type=float))",
        )
        .example("run msg client where broker=rest and user-agent=anylog and topic=(name=new-data and policy=!policy_id)")
}

async fn run_client(state: &Ingestion, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let broker = broker_address(state, options).await?;
    let only_log = options.bool("only_log").unwrap_or(false);
    let topics = options
        .nested("topic")
        .map(|inner| topic::spec(&state.ingest, &session.node, inner, &broker, only_log))
        .collect::<Result<_, _>>()?;
    let mut spec = ClientSpec::new(broker, topics);
    spec.login = login(options);
    spec.tls = tls(session, options, &spec.broker)?;
    spec.client_id = options.text("client_id");
    if let Some(keep_alive) = options.duration("keep_alive") {
        spec.keep_alive = keep_alive.max(std::time::Duration::from_secs(1));
    }
    let id = state.ingest.start_client(spec).await?;
    let client = state.ingest.clients().into_iter().find(|client| client.id == id);
    let Some((client, reason)) = client.and_then(|client| Some((Arc::clone(&client), client.unreached()?))) else {
        return Ok(Reply::Empty);
    };
    let text = format!(
        "Message client {id:04}: the broker {} is not connected yet: {reason} - the client goes on trying; see: get msg client",
        client.broker
    );
    session.node.errors.add(session.node.clock.now(), &session.thread, "MQTT", text.clone());
    Ok(Reply::Text(text))
}

/// How the connection is encrypted. Files may not be named for nothing: whoever names one believes that it is.
fn tls(session: &Session, options: &anylog_core::Options, broker: &BrokerAddress) -> Result<Option<Tls>, CommandError> {
    let file = |name: &str| options.text(name).map(|path| session.permit_path(&path)).transpose();
    let (ca_file, cert, key) = (file("ca_file")?, file("cert_file")?, file("key_file")?);
    if options.bool("tls") != Some(true) {
        let named = ["ca_file", "cert_file", "key_file"].into_iter().find(|name| options.has(name));
        return match named {
            None => Ok(None),
            Some(name) => {
                Err(CommandError::structure(format!("'{name}' is for encrypted connections")).hint("add tls = true"))
            }
        };
    }
    if !matches!(broker, BrokerAddress::Remote { .. }) {
        return Err(CommandError::structure(format!("tls = true and broker = {broker}: nothing goes over a network"))
            .hint("leave tls out, or name another broker"));
    }
    let identity = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => {
            return Err(
                CommandError::structure("'cert_file' and 'key_file' belong together").hint("name both, or neither")
            );
        }
    };
    Ok(Some(Tls { ca_file, identity }))
}

fn login(options: &anylog_core::Options) -> Option<(String, String)> {
    let user = options.text("user").filter(|user| !user.is_empty() && user != "unused")?;
    Some((user, options.text("password").unwrap_or_default()))
}

fn port(options: &anylog_core::Options) -> Result<u16, CommandError> {
    match options.int("port") {
        None if options.bool("tls") == Some(true) => Ok(TLS_PORT),
        None => Ok(DEFAULT_PORT),
        Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
            CommandError::new(anylog_core::Status::PORT_VALUE, format!("'{port}' is not a port"))
                .hint("ports are 1 to 65535")
        }),
    }
}

/// The broker of a call. An address that is the node's own broker means the same as `local`.
async fn broker_address(state: &Ingestion, options: &anylog_core::Options) -> Result<BrokerAddress, CommandError> {
    let host = options.expect_text("broker")?;
    match host.to_lowercase().as_str() {
        "local" => Ok(BrokerAddress::Local),
        "rest" => {
            let agent = options.text("user-agent").ok_or_else(|| {
                CommandError::structure("Missing 'user-agent' in command variables")
                    .hint("with broker=rest, name the product of the senders: user-agent=anylog")
            })?;
            let product = agent.split('/').next().unwrap_or(&agent).trim().to_lowercase();
            Ok(BrokerAddress::Rest { agent: product })
        }
        _ => {
            let port = port(options)?;
            if is_own(state, &host, port).await {
                Ok(BrokerAddress::Local)
            } else {
                Ok(BrokerAddress::Remote { host, port })
            }
        }
    }
}

/// Whether an address is the one at which the node's own broker listens.
async fn is_own(state: &Ingestion, host: &str, port: u16) -> bool {
    let Some(running) = state.listeners.address(ServerKind::Broker).filter(|running| running.bound.port() == port)
    else {
        return false;
    };
    let named = format!("{host}:{port}");
    if named == running.address.external || named == running.address.internal {
        return true;
    }
    // A name that does not resolve is no address of this node; connecting will say so.
    let Ok(mut addresses) = tokio::net::lookup_host((host, port)).await else { return false };
    let bound = running.bound.ip();
    addresses.any(|address| address.ip() == bound || (address.ip().is_loopback() && bound.is_unspecified()))
}

fn exit_client_declaration() -> Declaration {
    Declaration::new("exit msg client", "Ends a message client, or all of them.")
        .alias("exit msg clients")
        .alias("exit mqtt client")
        .word("id", "number of the client, or all")
        .returns("nothing; an error when there is no such client")
        .example("exit msg client 1")
        .example("exit msg client all")
}

async fn exit_client(state: &Ingestion, call: Invocation) -> CommandResult {
    let id = call.expect_positional("id")?;
    if id.eq_ignore_ascii_case("all") {
        return exit_all(state).await;
    }
    let number = id.parse().map_err(|_| {
        CommandError::parameter(format!("'{id}' is not the number of a message client"))
            .hint("see the numbers with: get msg client")
    })?;
    state.ingest.stop_client(number)?;
    Ok(Reply::Empty)
}

fn exit_mqtt_declaration() -> Declaration {
    Declaration::new("exit mqtt", "Ends all message clients.")
        .alias("exit MQTT")
        .returns("nothing")
        .example("exit mqtt")
}

async fn exit_all(state: &Ingestion) -> CommandResult {
    state.ingest.stop_clients();
    Ok(Reply::Empty)
}

fn get_client_declaration() -> Declaration {
    Declaration::new("get msg client", "Shows message clients: their counts, their topics, how rows are made.")
        .reads()
        .alias("get msg clients")
        .alias("get mqtt client")
        .alias("get mqtt clients")
        .alias("get message client")
        .option("id", OptionKind::Int, "only the client of this number")
        .option("broker", OptionKind::Text, "only clients of this broker")
        .option("topic", OptionKind::Text, "only clients with this topic")
        .option(
            "detailed",
            OptionKind::Bool,
            "with the protocol, what waits for the store, and the counts of each topic",
        )
        .option("statistics", OptionKind::Bool, "with the counts of each topic")
        .format_option()
        .returns("a block per client, or JSON; 'No message client subscriptions' when there is none")
        .example("get msg client where topic=anylog-demo")
}

async fn get_client(state: &Ingestion, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let id = options.int("id");
    let (broker, topic) = (options.text("broker"), options.text("topic"));
    let clients = state.ingest.clients().into_iter().filter(|client| {
        id.is_none_or(|id| i64::from(client.id) == id)
            && broker.as_ref().is_none_or(|broker| show::is_broker(&client.broker, broker))
            && topic.as_ref().is_none_or(|topic| client.subscriptions.iter().any(|s| s.filter == *topic))
    });
    let clients: Vec<_> = clients.collect();
    if options.wants_json() {
        return Ok(Reply::Json(clients.iter().map(|client| show::json(client)).collect()));
    }
    if clients.is_empty() {
        return Ok(Reply::Text("\r\nNo message client subscriptions\r\n".to_owned()));
    }
    let detailed = options.bool("detailed").unwrap_or(false) || options.bool("statistics").unwrap_or(false);
    let width = session.node.output_width();
    Ok(Reply::Text(clients.iter().map(|client| show::text(client, detailed, width)).collect()))
}

/// The answer to `get msg rules`.
const NO_RULES: &str = "No rules for messages";

fn rules_declaration() -> Declaration {
    Declaration::new("get msg rules", "Shows the rules by which data that is no MQTT becomes rows.")
        .reads()
        .alias("get msg rule")
        .returns("that there are none: this node's broker takes MQTT")
        .example("get msg rules")
}

fn set_rule_declaration() -> Declaration {
    Declaration::new("set msg rule", "Makes rows of syslog and other data that is sent to the broker's port.")
        .grammar("<name> if ip = <ip> [and port = <port>] then dbms = <dbms> and table = <table> ...")
        .returns("an error that says what there is instead: this node's broker takes MQTT")
}

fn no_rules() -> CommandError {
    CommandError::structure("The broker takes MQTT, and no syslog: there are no rules for messages")
        .hint("send lines of syslog over MQTT, and map them with: run msg client where broker=local and topic=(...)")
}

fn get_brokers_declaration() -> Declaration {
    Declaration::new("get msg brokers", "Shows the brokers and topics that the node subscribed to.")
        .reads()
        .alias("get msg broker")
        .format_option()
        .returns("a table with the columns Broker, Topic, Client ID, Messages, Success, Failure")
        .example("get msg brokers")
}

async fn get_brokers(state: &Ingestion, call: Invocation) -> CommandResult {
    Ok(table_or_json(show::brokers(&state.ingest.clients()), &call))
}

fn get_local_broker_declaration() -> Declaration {
    Declaration::new("get local broker", "Shows what MQTT clients did at the node's own broker, and what it uses.")
        .reads()
        .alias("get broker")
        .format_option()
        .returns("a table by address and event, and a table of the resources with their bounds")
        .example("get local broker")
}

async fn get_local_broker(state: &Ingestion, call: Invocation) -> CommandResult {
    let broker = state.ingest.broker();
    let (events, usage) = (show::events(&broker.events()), show::usage(&broker.usage()));
    if call.options.wants_json() {
        return Ok(Reply::Json(serde_json::json!({"events": events.to_json(), "usage": usage.to_json()})));
    }
    Ok(Reply::Text(format!("{events}{usage}")))
}

fn table_or_json(table: anylog_core::Table, call: &Invocation) -> Reply {
    if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) }
}

fn publish_declaration() -> Declaration {
    Declaration::new("mqtt publish", "Publishes a message.")
        .adds_data()
        .method(Method::Any)
        .alias("msg publish")
        .option("broker", OptionKind::Text, "host of the broker, local for the node's own")
        .default_is("local")
        .option("port", OptionKind::Int, "port of the broker")
        .default_is("1883")
        .option("user", OptionKind::Text, "user at the broker")
        .option("password", OptionKind::Text, "password of that user")
        .required("topic", OptionKind::Text, "the topic")
        .required("message", OptionKind::Json, "the message")
        .option("qos", OptionKind::Int, "quality of service: 0, 1 or 2")
        .default_is("0")
        .option("retain", OptionKind::Bool, "whether the broker keeps it for later subscribers")
        .default_is("false")
        .returns("nothing; the rows are stored, or the broker has the message, when the command returns")
        .example("mqtt publish where broker=local and topic=anylog-demo and message={\"value\": 210}")
}

async fn publish(state: &Ingestion, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let (topic, message) = (options.expect_text("topic")?, options.expect_text("message")?);
    let retain = options.bool("retain").unwrap_or(false);
    let level = options.int("qos").unwrap_or(0);
    let level = u8::try_from(level).ok().filter(|level| *level <= 2).ok_or_else(|| {
        CommandError::parameter(format!("'{level}' is not a quality of service")).hint("use 0, 1 or 2")
    })?;
    let broker = match options.text("broker") {
        None => BrokerAddress::Local,
        Some(_) => broker_address(state, options).await?,
    };
    match broker {
        // Nothing is stored for somebody elsewhere who hears that the command succeeded (DUR-1). A script knows its own steps.
        BrokerAddress::Local if session.caller.is_network() && !retain && state.ingest.broker().is_early(&topic) => {
            let missing = CommandError::new(Status::NOT_SUBSCRIBED, format!("Nobody takes the topic '{topic}'"));
            return Err(session.node.startup.explain(missing));
        }
        BrokerAddress::Local => state.ingest.publish(&topic, message.as_bytes(), level, retain).await?,
        BrokerAddress::Rest { .. } => {
            return Err(CommandError::parameter("'rest' is not a broker to publish to").hint("use local or a host"));
        }
        BrokerAddress::Remote { host, port } => {
            let target = PublishTarget { host, port, login: login(options) };
            crate::client::publish(&target, &topic, message.as_bytes(), level, retain).await?;
        }
    }
    Ok(Reply::Empty)
}

/// The words of a list in parentheses.
fn inner_words(text: &str) -> Result<Vec<anylog_core::command::Word>, CommandError> {
    let inner = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
    lexer::lex(inner)
}
