//! Rounds that come by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::{Member, Scope};
use crate::OperatorError;
use crate::replica::{LinkStatus, ReplicationStatus};

/// How often a round comes by itself unless it was said otherwise.
pub(crate) const PERIOD: Duration = Duration::from_secs(15 * 60);
/// The least time between two rounds: links may come and go.
const SPACING: Duration = Duration::from_secs(10);
/// How often it is looked whether one is due.
const LOOKING: Duration = Duration::from_secs(2);

/// When rounds are due: regularly, and when a link came back and what was missing meanwhile is here.
#[derive(Debug)]
pub(crate) struct Rounds {
    next: Instant,
    /// Not before.
    earliest: Instant,
    links: BTreeMap<i64, Timestamp>,
    /// A link came since the last round.
    linked: bool,
}

impl Rounds {
    /// The first regular round comes within a period; members that were started together do not begin it together.
    pub(crate) fn new(now: Instant, period: Duration) -> Self {
        let share = rand::rng().random_range(0.5..1.0);
        Self { next: now + period.mul_f64(share), earliest: now, links: BTreeMap::new(), linked: false }
    }

    /// Whether one is due.
    pub(crate) fn due(&mut self, now: Instant, period: Duration, status: &ReplicationStatus) -> bool {
        let links: BTreeMap<i64, Timestamp> = status
            .mates
            .iter()
            .filter_map(|mate| match mate.link {
                LinkStatus::Up(since) => Some((mate.member, since)),
                LinkStatus::Down { .. } => None,
            })
            .collect();
        self.linked |= links.iter().any(|(member, since)| self.links.get(member) != Some(since));
        self.links = links;
        // A period that was made shorter holds at once.
        self.next = self.next.min(now + period);
        if self.links.is_empty() || !status.consumer.is_some_and(|consumer| consumer.active) {
            return false;
        }
        let quiet = status.producers.iter().all(|producer| producer.in_work.is_empty() && waits(producer) == 0);
        now >= self.earliest && (now >= self.next || (self.linked && quiet))
    }

    /// A round was made.
    pub(crate) fn made(&mut self, now: Instant, period: Duration) {
        self.next = now + period;
        self.earliest = now + SPACING;
        self.linked = false;
    }
}

/// Files that are missing, save those that cannot be had.
fn waits(producer: &crate::replica::ProducerStatus) -> u64 {
    producer.missing.saturating_sub(producer.parked.len() as u64)
}

/// Makes rounds until the operator ends.
pub(crate) async fn run(member: Member, stop: CancellationToken) {
    let divergence = Arc::clone(&member.divergence);
    let mut rounds = Rounds::new(Instant::now(), divergence.period());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOKING) => {}
        }
        if !rounds.due(Instant::now(), divergence.period(), &member.replication.status()) {
            continue;
        }
        let scope = Scope { gentle: true, ..Scope::default() };
        let made = tokio::select! {
            () = stop.cancelled() => return,
            made = member.repair(scope) => made,
        };
        match made {
            // Somebody else's round takes long: that is as good.
            Ok(_) | Err(OperatorError::RepairRuns) => {}
            Err(error) => tracing::warn!(%error, "Members of the cluster could not be compared"),
        }
        rounds.made(Instant::now(), divergence.period());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{ConsumerStatus, MateCounts, MateStatus, ProducerStatus};

    fn status(link: Option<i64>, missing: u64) -> ReplicationStatus {
        let link = match link {
            Some(second) => LinkStatus::Up(Timestamp::from_second(second).unwrap()),
            None => LinkStatus::Down { since: None, error: None },
        };
        let mate = MateStatus {
            member: 8,
            policy: String::new(),
            name: String::new(),
            address: String::new(),
            link,
            version: None,
            counts: MateCounts::default(),
            rate: (0.0, 0.0),
        };
        ReplicationStatus {
            consumer: Some(ConsumerStatus { active: true, since: None, until: None }),
            mates: vec![mate],
            producers: vec![ProducerStatus { producer: 8, missing, ..ProducerStatus::default() }],
            ..ReplicationStatus::default()
        }
    }

    // R20: it begins without new input, once what a cut kept away has come.
    #[test]
    fn a_link_that_comes_back_makes_a_round_when_nothing_is_missing() {
        let (start, period) = (Instant::now(), Duration::from_secs(900));
        let mut rounds = Rounds::new(start, period);
        assert!(!rounds.due(start, period, &status(None, 0)));
        assert!(!rounds.due(start, period, &status(Some(1), 5)));
        assert!(rounds.due(start, period, &status(Some(1), 0)));
        rounds.made(start, period);
        assert!(!rounds.due(start + SPACING, period, &status(Some(1), 0)));
        assert!(!rounds.due(start, period, &status(Some(2), 0)), "links that come and go do not make a round each");
        assert!(rounds.due(start + SPACING, period, &status(Some(2), 0)));
        rounds.made(start, period);
        assert!(rounds.due(start + period, period, &status(Some(2), 9)));
        // A shorter period counts from the moment at which it is seen.
        let short = Duration::from_secs(5);
        assert!(!rounds.due(start + SPACING, short, &status(Some(2), 0)));
        assert!(rounds.due(start + SPACING + short, short, &status(Some(2), 0)));
        assert!(!rounds.due(start + period, period, &status(None, 0)));
    }
}
