//! Links between simulated members: slow, cut in one direction or both, seen to be dead by one side before the other.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

/// Microscopic time would be overdone: milliseconds.
pub(crate) type Time = u64;

/// One link, from the moment at which one side knows of it until both know that it is dead.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: (usize, usize),
    /// When the last message arrives, by direction: the next arrives later.
    last: [Time; 2],
    /// What waits for a cut to be healed, by direction.
    pub(crate) stalled: [Vec<Vec<u8>>; 2],
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) links: BTreeMap<u64, Link>,
    next: u64,
    /// The link that each side believes to have to each other.
    pub(crate) believed: BTreeMap<(usize, usize), u64>,
    /// Directions in which nothing gets through.
    pub(crate) cut: BTreeMap<(usize, usize), bool>,
    /// Milliseconds that a message takes, by direction, when it is not the usual.
    pub(crate) slow: BTreeMap<(usize, usize), Time>,
}

impl Network {
    pub(crate) fn new() -> Self {
        let (links, believed, cut, slow) = Default::default();
        Self { links, next: 1, believed, cut, slow }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.get(&(from, to)).copied().unwrap_or(false)
    }

    pub(crate) fn passable(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// A new link, that nobody knows of yet.
    pub(crate) fn connect(&mut self, a: usize, b: usize, now: Time) -> u64 {
        let id = self.next;
        self.next += 1;
        self.links.insert(id, Link { ends: (a, b), last: [now, now], stalled: [Vec::new(), Vec::new()] });
        id
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> Option<u64> {
        self.believed.get(&(from, to)).copied()
    }

    /// When a message that is sent now arrives; nothing when the link is gone.
    pub(crate) fn arrival(&mut self, id: u64, from: usize, to: usize, now: Time, random: &mut StdRng) -> Option<Time> {
        let usual = random.random_range(1..12);
        let takes = self.slow.get(&(from, to)).map_or(usual, |slow| usual + slow);
        let link = self.links.get_mut(&id)?;
        let last = &mut link.last[usize::from(link.ends.0 != from)];
        *last = (*last).max(now + takes);
        Some(*last)
    }

    /// Keeps what cannot be delivered while the direction is cut.
    pub(crate) fn stall(&mut self, id: u64, from: usize, bytes: Vec<u8>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.stalled[usize::from(link.ends.0 != from)].push(bytes);
        }
    }

    /// Whether something waits in a direction: what comes later waits behind it.
    pub(crate) fn is_stalled(&self, id: u64, from: usize) -> bool {
        self.links.get(&id).is_some_and(|link| !link.stalled[usize::from(link.ends.0 != from)].is_empty())
    }

    /// What waited on links from one side to the other.
    pub(crate) fn release(&mut self, from: usize, to: usize) -> Vec<(u64, Vec<Vec<u8>>)> {
        let mut released = Vec::new();
        for (id, link) in &mut self.links {
            if link.ends == (from, to) || link.ends == (to, from) {
                released.push((*id, std::mem::take(&mut link.stalled[usize::from(link.ends.0 != from)])));
            }
        }
        released
    }

    /// One side sees that a link is dead; answers the other side, when that still believes in it.
    pub(crate) fn seen_dead(&mut self, id: u64, by: usize) -> Option<usize> {
        let (a, b) = self.links.get(&id)?.ends;
        let other = if a == by { b } else { a };
        if self.link(by, other) == Some(id) {
            self.believed.remove(&(by, other));
        }
        if self.link(other, by) == Some(id) {
            return Some(other);
        }
        self.links.remove(&id);
        None
    }
}
