//! All roads of data into a node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anylog_core::node::processes::ProcessState;
use anylog_core::{CommandError, Node, Status};
use anylog_ledger::Ledger;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::{
    Address, BrokerAddress, ClientSpec, ConnectionState, Encryption, MessageClient, Remote, TopicSpec, fingerprint,
    identity,
};
use crate::intake::Intake;
use crate::mapping::{Added, Mapper, Parts, PolicyMapping};
use crate::sink::{Message, MessageRows, Remap, RowGroup, Unmapped};
use crate::subscription::{Counters, Subscription, Subscriptions, Treatment};
use crate::{Broker, Receipt, Router, SinkSlot};

/// What stands for the broker of a message that came with the id of a mapping policy.
pub const POLICY: &str = "policy";

/// The ingestion of a node: its broker, its message clients, its REST data.
#[derive(Debug)]
pub struct Ingest {
    node: Arc<Node>,
    ledger: Arc<Ledger>,
    slot: Arc<SinkSlot>,
    intake: Arc<Intake>,
    broker: Arc<Broker>,
    state: Mutex<State>,
    /// One client starts at a time, so that a topic is not subscribed twice.
    starting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<u32, Arc<MessageClient>>,
    next: u32,
    /// Clients of other brokers that were stopped, until the last of their messages is stored.
    ending: Vec<Arc<Remote>>,
    /// The topics of each user agent.
    agents: HashMap<String, Arc<Subscriptions>>,
}

impl Ingest {
    /// The ingestion of `node`. Mapping policies come from `ledger`, rows go to `slot`. The process `MQTT` becomes
    /// known to the node.
    pub fn new(node: Arc<Node>, ledger: Arc<Ledger>, slot: Arc<SinkSlot>) -> Arc<Self> {
        let intake = Arc::new(Intake::new(Arc::clone(&node), Arc::clone(&slot)));
        let broker = Broker::with_intake(Arc::clone(&node), Arc::clone(&intake), Router::new());
        let ingest = Arc::new(Self {
            node,
            ledger,
            slot,
            intake,
            broker,
            state: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
        });
        let remap: std::sync::Weak<Self> = Arc::downgrade(&ingest);
        ingest.slot.set_mapping(remap);
        let me = Arc::downgrade(&ingest);
        ingest.node.processes.register("MQTT", move || match me.upgrade() {
            Some(ingest) if !ingest.state.lock().clients.is_empty() => ProcessState::running(""),
            _ => ProcessState::not_declared(),
        });
        ingest
    }

    /// The node's own broker.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.broker)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// All running message clients, by number.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<MessageClient>> {
        self.state.lock().clients.values().cloned().collect()
    }

    /// The mapping of a policy, compiled.
    ///
    /// # Errors
    /// [`Status::MESSAGE_DECLARATION`] when the ledger of this node has no such policy; the errors of
    /// [`PolicyMapping::from_policy`].
    pub fn policy_mapping(&self, id: &str) -> Result<PolicyMapping, CommandError> {
        let policy = self.ledger.policy(id).ok_or_else(|| {
            CommandError::new(
                Status::MESSAGE_DECLARATION,
                format!("No policy with the id '{id}' in the ledger of this node"),
            )
            .hint("see the policies with: blockchain get mapping")
        })?;
        PolicyMapping::from_policy(&policy)
    }

    /// Starts a message client and returns its number. A client of another broker is connected, and its subscriptions are
    /// confirmed, when this returns. When anything fails, no topic of the client stays subscribed.
    ///
    /// # Errors
    /// [`Status::MESSAGE_DECLARATION`] for a topic that is subscribed at this broker already or is no topic,
    /// [`Status::MESSAGE_CONNECT`] when another broker refuses the client or a topic, or is none. A broker that is not reached is no
    /// error: the client goes on trying, and says why in [`MessageClient::unreached`].
    pub async fn start_client(&self, spec: ClientSpec) -> Result<u32, CommandError> {
        if spec.topics.is_empty() {
            return Err(declaration("A message client without topics".to_owned()).hint(
                "add: topic=(name=<topic> and dbms=<dbms> and table=<table> and column.<name>.<type>=\"bring [x]\")",
            ));
        }
        for topic in &spec.topics {
            if !crate::topic::valid_filter(&topic.filter) {
                return Err(declaration(format!("'{}' is not a topic", topic.filter))
                    .hint("'+' stands for one level, '#' for all levels at the end"));
            }
        }
        let _starting = self.starting.lock().await;
        let counters = Arc::new(Counters::default());
        let broker = spec.broker.to_string();
        let subscriptions: Vec<Arc<Subscription>> =
            spec.topics.iter().map(|topic| subscription(topic, &broker, &counters)).collect();
        let remote = match &spec.broker {
            BrokerAddress::Local => {
                self.attach_local(&subscriptions)?;
                None
            }
            BrokerAddress::Rest { agent } => {
                self.attach_rest(agent, &subscriptions)?;
                None
            }
            BrokerAddress::Remote { host, port } => Some(self.connect(&spec, host, *port, &subscriptions).await?),
        };
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        let user = spec.login.map(|(user, _)| user);
        let client = Arc::new(MessageClient { id, broker: spec.broker, user, subscriptions, counters, remote });
        state.clients.insert(id, client);
        Ok(id)
    }

    /// Ends a message client.
    ///
    /// # Errors
    /// [`Status::MESSAGE_CLIENT_ID`] when there is none of this number.
    pub fn stop_client(&self, id: u32) -> Result<(), CommandError> {
        let mut state = self.state.lock();
        let Some(client) = state.clients.remove(&id) else {
            return Err(CommandError::new(Status::MESSAGE_CLIENT_ID, format!("No message client with the id {id:04}"))
                .hint("see the clients with: get msg client"));
        };
        match &client.broker {
            BrokerAddress::Local => {
                client.subscriptions.iter().for_each(|subscription| self.broker.router().detach(subscription));
            }
            BrokerAddress::Rest { agent } => {
                if let Some(topics) = state.agents.get(agent) {
                    client.subscriptions.iter().for_each(|subscription| topics.remove(subscription));
                    if topics.is_empty() {
                        state.agents.remove(agent);
                    }
                }
            }
            BrokerAddress::Remote { .. } => {}
        }
        if let Some(remote) = &client.remote {
            remote.stop();
            state.ending.retain(|remote| !remote.has_ended());
            state.ending.push(Arc::clone(remote));
        }
        Ok(())
    }

    /// Ends all message clients.
    pub fn stop_clients(&self) {
        let ids: Vec<u32> = self.state.lock().clients.keys().copied().collect();
        for id in ids {
            // Another caller may have ended it meanwhile.
            if let Err(error) = self.stop_client(id) {
                tracing::debug!(%error, "Message client ended by somebody else");
            }
        }
    }

    /// Whether a message client takes `POST` data of this user agent (its product name, in any case).
    #[must_use]
    pub fn knows_agent(&self, agent: &str) -> bool {
        self.state.lock().agents.contains_key(&agent.to_lowercase())
    }

    /// Maps and stores a message that came by `POST` with `command: data`. `agent` is the product name of the caller's user
    /// agent, `topic` that of the header; without one the agent's first topic is meant.
    ///
    /// # Errors
    /// [`Status::UNKNOWN_AGENT`] and [`Status::NOT_SUBSCRIBED`] without a message client for this agent or topic, a message that
    /// cannot be mapped, rows that cannot be stored.
    pub async fn rest_message(
        &self,
        agent: &str,
        topic: Option<&str>,
        body: &str,
        origin: &str,
    ) -> Result<Receipt, CommandError> {
        let (topic, subscriptions) = self.rest_topic(agent, topic)?;
        let now = self.node.clock.now();
        let mut all: Option<Receipt> = None;
        for subscription in subscriptions {
            subscription.arrived(now, 1);
            let stored = self.rest_rows(&subscription, &topic, body, origin).await;
            let receipt = stored.inspect_err(|error| subscription.failed(now, 1, &error.message))?;
            subscription.succeeded(1);
            all = Some(match all {
                Some(all) => all.and(receipt),
                None => receipt,
            });
        }
        all.ok_or_else(|| not_subscribed(&topic))
    }

    /// Rows that map are stored, elements that do not are put aside, all are named in the receipt. A message without any row is an
    /// error: its sender is there to hear of it.
    async fn rest_rows(
        &self,
        subscription: &Subscription,
        topic: &str,
        body: &str,
        origin: &str,
    ) -> Result<Receipt, CommandError> {
        let Treatment::Map(mapper) = &subscription.treatment else {
            return Err(CommandError::parameter(format!("The topic '{topic}' only logs its messages"))
                .hint("subscribe a topic with columns or a policy for REST data"));
        };
        let message = |payload: &[u8]| {
            Arc::new(Message {
                broker: Arc::clone(&subscription.shared.0),
                filter: Arc::clone(&subscription.shared.1),
                topic: Arc::from(topic),
                payload: Bytes::copy_from_slice(payload),
            })
        };
        let mut parts = Parts::at(self.node.clock.now());
        let (mut messages, mut elements): (Vec<MessageRows>, Vec<usize>) = (Vec::new(), Vec::new());
        let failures = mapper.map_elements_into(topic, body.as_bytes(), &mut parts, |position, element, added| {
            let Added { part, first, count } = added;
            messages.push(MessageRows { part, first, count, message: message(element) });
            elements.push(position);
        });
        if messages.is_empty()
            && let Some(failure) = failures.first()
        {
            return Err(failure.error.clone().into());
        }
        let aside = failures.iter().map(|failure| {
            self.slot.set_aside(Unmapped {
                message: message(failure.payload),
                origin: origin.to_owned(),
                position: failure.position,
                kind: failure.error.kind(),
                column: failure.error.column().to_owned(),
                reason: failure.error.to_string(),
            })
        });
        // Together, so that they share their way to the disk.
        let aside = futures_util::future::try_join_all(aside).await?;
        let spans: Vec<(usize, std::ops::Range<usize>)> =
            messages.iter().map(|rows| (rows.part, rows.first..rows.first + rows.count)).collect();
        let group = RowGroup { parts: parts.into_tables(), origin: origin.to_owned(), messages, ..RowGroup::default() };
        // The sender counts the elements of its list, not the rows of tables.
        let element = |part: usize, row: usize| {
            let span = spans.iter().position(|(of, rows)| *of == part && rows.contains(&row));
            span.and_then(|span| elements.get(span).copied()).unwrap_or(row)
        };
        let receipt = self.slot.append(group).await?.numbered(element);
        Ok(aside.into_iter().fold(receipt, Receipt::and))
    }

    /// The topic that a REST message is for, and what is subscribed there.
    fn rest_topic(&self, agent: &str, topic: Option<&str>) -> Result<(String, Vec<Arc<Subscription>>), CommandError> {
        let agent = agent.to_lowercase();
        let state = self.state.lock();
        let topics = state.agents.get(&agent).ok_or_else(|| {
            CommandError::new(
                Status::UNKNOWN_AGENT,
                format!("No message client takes data of the user agent '{agent}'"),
            )
            .hint(format!("start one with: run msg client where broker=rest and user-agent={agent} and topic=(...)"))
        })?;
        let first = || {
            let of_agent = |client: &&Arc<MessageClient>| matches!(&client.broker, BrokerAddress::Rest { agent: known } if *known == agent);
            let client = state.clients.values().find(of_agent)?;
            client.subscriptions.first().map(|subscription| subscription.filter.clone())
        };
        let topic = topic.map(str::to_owned).or_else(first).unwrap_or_default();
        let found = topics.of(&topic);
        if found.is_empty() { Err(not_subscribed(&topic)) } else { Ok((topic, found)) }
    }

    /// Publishes a message on the node's own broker, as a client of it would.
    ///
    /// # Errors
    /// A topic with wildcards, a QoS above 2, rows that cannot be stored.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Result<(), CommandError> {
        self.broker.publish(topic, payload, qos, retain).await
    }

    /// Subscribes all topics at the own broker, or none.
    fn attach_local(&self, subscriptions: &[Arc<Subscription>]) -> Result<(), CommandError> {
        let router = self.broker.router();
        all_or_none(subscriptions, |one| router.attach(Arc::clone(one)), |one| router.detach(one))
    }

    fn attach_rest(&self, agent: &str, subscriptions: &[Arc<Subscription>]) -> Result<(), CommandError> {
        let mut state = self.state.lock();
        let topics = Arc::clone(state.agents.entry(agent.to_owned()).or_default());
        let attached = all_or_none(subscriptions, |one| topics.add(Arc::clone(one)), |one| topics.remove(one));
        if topics.is_empty() {
            state.agents.remove(agent);
        }
        attached
    }

    async fn connect(
        &self,
        spec: &ClientSpec,
        host: &str,
        port: u16,
        subscriptions: &[Arc<Subscription>],
    ) -> Result<Arc<Remote>, CommandError> {
        self.check_remote(&spec.broker, subscriptions)?;
        let client_id = match &spec.client_id {
            Some(id) => id.clone(),
            None => self.client_id(&spec.broker, subscriptions).await?,
        };
        let login = spec.login.clone();
        let (keep_alive, deadline) = (spec.keep_alive, spec.deadline);
        let tls = match spec.tls.clone() {
            None => None,
            Some(tls) => {
                let host = host.to_owned();
                let read = tokio::task::spawn_blocking(move || Encryption::new(&tls, &host)).await;
                Some(read.map_err(|error| CommandError::process(format!("The files of TLS were not read: {error}")))??)
            }
        };
        let address = Address { host: host.to_owned(), port, login, tls, client_id, keep_alive, deadline };
        self.check_address(&address).await?;
        let stop = self.node.shutdown.child_token();
        let (intake, slot) = (Arc::clone(&self.intake), Arc::clone(&self.slot));
        let remote = Arc::new(Remote::new(address, subscriptions.to_vec(), intake, slot, stop));
        tokio::spawn(Arc::clone(&remote).run());
        let state = tokio::time::timeout(spec.deadline * 3, remote.first_state()).await;
        let reason = match state {
            Ok(ConnectionState::Connected) => return Ok(remote),
            Ok(ConnectionState::Lost { lasting: true, reason } | ConnectionState::Refused { reason }) => reason,
            // A broker may be down when the node starts, and come later (R1).
            Ok(ConnectionState::Lost { .. } | ConnectionState::Connecting) | Err(_) => return Ok(remote),
        };
        remote.stop();
        Err(CommandError::new(
            Status::MESSAGE_CONNECT,
            format!("Failed to connect to the broker {host}:{port}: {reason}"),
        )
        .hint("check host, port, user, password and tls of the broker"))
    }

    /// A client id belongs to one client at a time. One that was stopped stores to its end first: its successor in the session would
    /// store the same messages.
    async fn check_address(&self, address: &Address) -> Result<(), CommandError> {
        let texts = address.login.iter().flat_map(|(user, password)| [("user", user), ("password", password)]);
        for (name, text) in texts.chain([("client_id", &address.client_id)]) {
            if text.len() > usize::from(u16::MAX) {
                return Err(declaration(format!("'{name}' is longer than the {} bytes that MQTT takes", u16::MAX)));
            }
        }
        let ending: Vec<Arc<Remote>> = {
            let state = self.state.lock();
            let same =
                |client: &&Arc<MessageClient>| client.remote.as_ref().is_some_and(|remote| remote.is_at(address));
            if let Some(client) = state.clients.values().find(same) {
                let id = &address.client_id;
                return Err(declaration(format!("The client id '{id}' is used by message client {:04}", client.id))
                    .hint("a broker gives a session to one client at a time: name another client_id"));
            }
            state.ending.iter().filter(|remote| remote.is_at(address)).cloned().collect()
        };
        for remote in ending {
            // A store that is blocked must not block the command for good.
            drop(tokio::time::timeout(address.deadline, remote.ended()).await);
        }
        Ok(())
    }

    /// A topic is subscribed once per broker, whichever client does it.
    fn check_remote(&self, broker: &BrokerAddress, subscriptions: &[Arc<Subscription>]) -> Result<(), CommandError> {
        let state = self.state.lock();
        let known = state.clients.values().filter(|client| client.broker == *broker);
        let known: Vec<&str> =
            known.flat_map(|client| &client.subscriptions).map(|subscription| subscription.filter.as_str()).collect();
        for (at, subscription) in subscriptions.iter().enumerate() {
            let twice = subscriptions[..at].iter().any(|other| other.filter == subscription.filter);
            if twice || known.contains(&subscription.filter.as_str()) {
                return Err(already_subscribed(subscription));
            }
        }
        Ok(())
    }

    /// An id that is the same after every start of this node, and another one for every other client: the broker keeps the
    /// session under it.
    async fn client_id(
        &self,
        broker: &BrokerAddress,
        subscriptions: &[Arc<Subscription>],
    ) -> Result<String, CommandError> {
        let directory = self.node.directories.directory(&self.node.dictionary, "id_dir");
        let place = directory.display().to_string();
        let node = tokio::task::spawn_blocking(move || identity(&directory)).await;
        let node = node.map_err(std::io::Error::other).and_then(|kept| kept).map_err(|error| {
            CommandError::new(
                Status::PROCESS_FAILURE,
                format!("The identity of this node at message brokers cannot be kept in '{place}': {error}"),
            )
            .hint("make the directory writable, or name the client id yourself with client_id=<id>")
        })?;
        let broker = broker.to_string();
        let mut filters: Vec<&str> = subscriptions.iter().map(|subscription| subscription.filter.as_ref()).collect();
        filters.sort_unstable();
        let parts = [node.as_str(), broker.as_str()].into_iter().chain(filters);
        Ok(format!("anylog{:016x}", fingerprint(parts.map(str::as_bytes))))
    }
}

impl Remap for Ingest {
    fn remap(&self, message: &Message) -> Result<RowGroup, Unmapped> {
        let refused = |position, kind, column: &str, reason: String| Unmapped {
            message: Arc::new(message.clone()),
            origin: String::new(),
            position,
            kind,
            column: column.to_owned(),
            reason,
        };
        let mappers = self.mappers(message).map_err(|reason| refused(0, "mapping", "", reason))?;
        let mut all = RowGroup::default();
        for mapper in mappers {
            let group = mapper
                .map(&message.topic, &message.payload, self.node.clock.now())
                .map_err(|error| refused(0, error.kind(), error.column(), error.to_string()))?;
            all.parts.extend(group.parts);
        }
        Ok(all)
    }
}

impl Ingest {
    /// The mappers of a message as it is subscribed now: by the topic that it was mapped by, else by every one that fits.
    fn mappers(&self, message: &Message) -> Result<Vec<Mapper>, String> {
        if &*message.broker == POLICY {
            return Ok(vec![Mapper::policies(vec![
                self.policy_mapping(&message.filter).map_err(|error| error.to_string())?,
            ])]);
        }
        let clients = self.clients();
        let of_broker = clients.iter().filter(|client| client.broker.to_string() == *message.broker);
        let subscriptions: Vec<_> = of_broker.flat_map(|client| client.subscriptions.iter()).collect();
        let own = |one: &&&Arc<Subscription>| one.filter == *message.filter;
        let chosen: Vec<_> = match subscriptions.iter().find(own) {
            Some(own) => vec![*own],
            None => {
                subscriptions.into_iter().filter(|one| crate::topic::matches(&one.filter, &message.topic)).collect()
            }
        };
        let mappers: Vec<Mapper> = chosen
            .into_iter()
            .filter_map(|one| match &one.treatment {
                Treatment::Map(mapper) => Some(mapper.clone()),
                Treatment::LogOnly => None,
            })
            .collect();
        if mappers.is_empty() {
            return Err(format!(
                "no message client maps the topic '{}' of the broker '{}'",
                message.topic, message.broker
            ));
        }
        Ok(mappers)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Their tasks hold what they need, so they would go on without it.
        self.stop_clients();
    }
}

pub(crate) fn subscription(topic: &TopicSpec, broker: &str, client: &Arc<Counters>) -> Arc<Subscription> {
    Arc::new(Subscription {
        filter: topic.filter.clone(),
        qos: topic.qos,
        treatment: topic.treatment.clone(),
        dynamic: topic.dynamic,
        broker: broker.to_owned(),
        shared: (Arc::from(broker), Arc::from(topic.filter.as_str())),
        counters: Counters::default(),
        client: Arc::clone(client),
    })
}

fn all_or_none(
    subscriptions: &[Arc<Subscription>],
    add: impl Fn(&Arc<Subscription>) -> bool,
    remove: impl Fn(&Arc<Subscription>),
) -> Result<(), CommandError> {
    for (at, subscription) in subscriptions.iter().enumerate() {
        if !add(subscription) {
            subscriptions[..at].iter().for_each(remove);
            return Err(already_subscribed(subscription));
        }
    }
    Ok(())
}

fn declaration(text: String) -> CommandError {
    CommandError::new(Status::MESSAGE_DECLARATION, text)
}

fn already_subscribed(subscription: &Subscription) -> CommandError {
    declaration(format!(
        "The topic '{}' is subscribed at broker '{}' already",
        subscription.filter, subscription.broker
    ))
    .hint("see the topics with: get msg client, end a client with: exit msg client <id>")
}

fn not_subscribed(topic: &str) -> CommandError {
    CommandError::new(Status::NOT_SUBSCRIBED, format!("The topic '{topic}' is not subscribed"))
        .hint("see the topics with: get msg client")
}
