//! A published message.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// A published message.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Passed on to subscribers of version 5.
    pub(crate) properties: Option<Box<PublishProperties>>,
}

impl Message {
    /// About what it takes in memory.
    pub(crate) fn cost(&self) -> usize {
        128 + self.topic.len() + self.payload.len()
    }
}
