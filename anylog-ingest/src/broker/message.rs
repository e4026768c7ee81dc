//! A published message.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// A published message.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// When it is of no use any more.
    pub(crate) expires: Option<Timestamp>,
    /// Passed on to subscribers of version 5.
    pub(crate) properties: Option<Box<PublishProperties>>,
}

impl Message {
    /// The message has come: from now on its time runs.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        let interval = self.properties.as_ref().and_then(|properties| properties.message_expiry_interval);
        self.expires = interval.and_then(|seconds| now.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok());
    }

    /// Whether it is of no use any more (MQTT5 3.3.2-5).
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// The message as it is passed on now: with what is left of its time (MQTT5 3.3.2-6). None when it does not expire.
    pub(crate) fn aged(&self, now: Timestamp) -> Option<Self> {
        let left = self.expires?.duration_since(now).as_millis().max(0);
        let left = u32::try_from((left + 999) / 1000).unwrap_or(u32::MAX).max(1);
        let mut aged = self.clone();
        // Kept over a restart, a message is without this property: its end is kept.
        let properties = aged.properties.get_or_insert_with(Box::default);
        properties.message_expiry_interval = Some(left);
        Some(aged)
    }

    /// About what it takes in memory.
    pub(crate) fn cost(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, |properties| {
            let user = properties.user_properties.iter().map(|(name, value)| 64 + name.len() + value.len());
            let texts = [&properties.response_topic, &properties.content_type];
            let texts = texts.into_iter().flatten().map(String::len);
            256 + user.sum::<usize>()
                + texts.sum::<usize>()
                + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        });
        256 + self.topic.len() + self.payload.len() + properties
    }
}
