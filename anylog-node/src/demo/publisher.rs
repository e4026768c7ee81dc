//! The pumps' side: MQTT clients that publish and count acknowledgements.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anylog_core::time::Clock;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::plant::{READINGS_PER_SECOND, TOPIC, message};

/// Messages that may wait for their acknowledgement; further ones are not made.
const WINDOW: usize = 100;

/// How long the last acknowledgements are waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The pause before a connection is tried again, and how often that may fail before the node counts as gone.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 4;

/// Publishes the readings of some pumps until it is stopped, each of them to every node that it was given.
#[derive(Debug)]
pub(super) struct Publisher {
    stop: CancellationToken,
    links: Vec<Arc<Link>>,
    publishing: JoinHandle<()>,
    polling: Vec<JoinHandle<()>>,
}

/// The connection to one node.
#[derive(Debug, Default)]
struct Link {
    published: AtomicU64,
    acknowledged: AtomicU64,
    gone: CancellationToken,
}

impl Publisher {
    /// Starts to publish to the brokers at `ports` on loopback.
    pub(super) fn start(
        ports: &[u16],
        pumps: RangeInclusive<u32>,
        clock: Arc<dyn Clock>,
        shutdown: &CancellationToken,
    ) -> Self {
        let stop = shutdown.child_token();
        let (mut links, mut clients, mut polling) = (Vec::new(), Vec::new(), Vec::new());
        for port in ports {
            let mut options = MqttOptions::new("plant", "127.0.0.1", *port);
            options.set_keep_alive(Duration::from_secs(15));
            let (client, events) = AsyncClient::new(options, WINDOW);
            let link = Arc::new(Link::default());
            polling.push(tokio::spawn(poll(events, Arc::clone(&link))));
            clients.push((client, Arc::clone(&link)));
            links.push(link);
        }
        let publishing = tokio::spawn(publish(clients, pumps, clock, stop.clone()));
        Self { stop, links, publishing, polling }
    }

    /// Messages that every node acknowledged which is still there.
    pub(super) fn acknowledged(&self) -> u64 {
        let there = self.links.iter().filter(|link| !link.gone.is_cancelled());
        there.map(|link| link.acknowledged.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    /// Publishes no more and waits for the acknowledgements that are still to come.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let all = async {
            while !self.publishing.is_finished() || self.links.iter().any(|link| link.waits()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
            tracing::warn!("The last messages of the demo were not acknowledged");
        }
        self.polling.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Whether acknowledgements are still to come.
    fn waits(&self) -> bool {
        !self.gone.is_cancelled() && self.acknowledged.load(Ordering::Relaxed) < self.published.load(Ordering::Relaxed)
    }
}

async fn publish(
    clients: Vec<(AsyncClient, Arc<Link>)>,
    pumps: RangeInclusive<u32>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / READINGS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for pump in pumps.clone() {
            // Made once: nodes that get the same reading keep the same row.
            let message = message(pump, n, clock.now());
            for (client, link) in &clients {
                let sent = tokio::select! {
                    sent = client.publish(TOPIC, QoS::AtLeastOnce, false, message.clone()) => sent.is_ok(),
                    () = link.gone.cancelled() => false,
                };
                if sent {
                    link.published.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn poll(mut events: EventLoop, link: Arc<Link>) {
    let mut failures = 0;
    loop {
        match events.poll().await {
            Ok(event) => {
                failures = 0;
                if matches!(event, Event::Incoming(Packet::PubAck(_))) {
                    link.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                failures += 1;
                if failures == TRIES {
                    tracing::warn!(%error, "The pumps publish no more to this node");
                    return link.gone.cancel();
                }
                tracing::warn!(%error, "The pumps lost their connection and try again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
