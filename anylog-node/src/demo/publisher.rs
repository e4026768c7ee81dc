//! The pumps' side: an MQTT client that publishes and counts acknowledgements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anylog_core::time::Clock;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::plant::{PUMPS, READINGS_PER_SECOND, TOPIC, message};

/// Messages that may wait for their acknowledgement; further ones are not made.
const WINDOW: usize = 100;

/// How long the last acknowledgements are waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Publishes until it is stopped.
#[derive(Debug)]
pub(super) struct Publisher {
    stop: CancellationToken,
    published: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    publishing: JoinHandle<()>,
    polling: JoinHandle<()>,
}

impl Publisher {
    /// Starts to publish to the broker at `port` on loopback.
    pub(super) fn start(port: u16, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Self {
        let mut options = MqttOptions::new("plant", "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(15));
        let (client, events) = AsyncClient::new(options, WINDOW);
        let stop = shutdown.child_token();
        let published = Arc::new(AtomicU64::new(0));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let polling = tokio::spawn(poll(events, Arc::clone(&acknowledged)));
        let publishing = tokio::spawn(publish(client, clock, stop.clone(), Arc::clone(&published)));
        Self { stop, published, acknowledged, publishing, polling }
    }

    /// Messages that the node acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Publishes no more and waits for the acknowledgements that are still to come.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let all = async {
            while !self.publishing.is_finished() || self.acknowledged() < self.published.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
            tracing::warn!("The last messages of the demo were not acknowledged");
        }
        self.polling.abort();
    }
}

async fn publish(client: AsyncClient, clock: Arc<dyn Clock>, stop: CancellationToken, published: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / READINGS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for pump in 1..=PUMPS {
            if client.publish(TOPIC, QoS::AtLeastOnce, false, message(pump, n, clock.now())).await.is_err() {
                return;
            }
            published.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn poll(mut events: EventLoop, acknowledged: Arc<AtomicU64>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "The pumps lost their connection and try again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
