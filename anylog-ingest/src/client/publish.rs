//! One message to another broker.

use std::time::Duration;

use anylog_core::{CommandError, Status};
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing};

/// How long another broker may take for one message.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishTarget {
    /// Host name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// Publishes one message to another broker and waits until the broker has it; with QoS 0, until it was sent.
///
/// # Errors
/// [`Status::MESSAGE_CONNECT`] when the broker is not reached, refuses, or does not answer within ten seconds.
pub async fn publish(
    target: &PublishTarget,
    topic: &str,
    payload: &[u8],
    level: u8,
    retain: bool,
) -> Result<(), CommandError> {
    let failed = |reason: String| {
        CommandError::new(
            Status::MESSAGE_CONNECT,
            format!("The broker {}:{} did not take the message on '{topic}': {reason}", target.host, target.port),
        )
        .hint("check host, port, user and password of the broker")
    };
    let mut options = MqttOptions::new(crate::broker::fresh_client_id(), &target.host, target.port);
    options.set_max_packet_size(usize::MAX, usize::MAX);
    if let Some((user, password)) = &target.login {
        options.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(options, 8);
    client
        .try_publish(topic, rumqttc::mqttbytes::qos(level).unwrap_or(rumqttc::QoS::AtLeastOnce), retain, payload)
        .map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(DEADLINE, sent(&mut events, &client, level)).await {
        Ok(sent) => sent.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} seconds", DEADLINE.as_secs()))),
    }
}

async fn sent(events: &mut EventLoop, client: &AsyncClient, level: u8) -> Result<(), String> {
    loop {
        let done = match events.poll().await.map_err(|error| error.to_string())? {
            Event::Incoming(Packet::PubAck(_)) => level == 1,
            Event::Incoming(Packet::PubComp(_)) => level == 2,
            Event::Outgoing(Outgoing::Publish(_)) => level == 0,
            _ => false,
        };
        if done {
            break;
        }
    }
    // The goodbye is a courtesy; the message is delivered.
    if client.try_disconnect().is_ok() {
        while !matches!(events.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
    }
    Ok(())
}
