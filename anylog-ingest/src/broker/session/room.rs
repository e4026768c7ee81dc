//! The bounds that hold for all sessions together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of messages that may wait for all clients together.
pub const MAX_QUEUES_BYTES: usize = 128 * 1024 * 1024;

/// What the filters of all clients together may take in memory.
pub const MAX_FILTER_BYTES: usize = 128 * 1024 * 1024;

/// Packet ids of QoS 2 that all sessions together may hold without release; beyond it, who holds more than 64 goes.
pub const MAX_RECEIVED: usize = 1_000_000;

/// What all sessions share: what they take of the bounds that hold for all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(pub(super) Arc<Shared>);

#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Bytes of messages that wait.
    pub(super) bytes: AtomicUsize,
    /// Packet ids of QoS 2 without release.
    pub(super) received: AtomicUsize,
    /// Bytes of filters.
    pub(super) filters: AtomicUsize,
}

pub(super) fn take(of: &AtomicUsize, count: usize, bound: usize) -> bool {
    let fits = |used: usize| (used + count <= bound).then_some(used + count);
    of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
}

impl Room {
    /// Bytes of messages that wait for clients.
    pub(crate) fn used(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Packet ids of QoS 2 without release.
    pub(crate) fn received(&self) -> usize {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Bytes of filters.
    pub(crate) fn filters(&self) -> usize {
        self.0.filters.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        take(&self.0.bytes, bytes, MAX_QUEUES_BYTES)
    }

    pub(super) fn give(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// About what a filter takes in memory: a branch of the tree for each level, itself here and in the book.
pub(super) fn filter_cost(filter: &str) -> usize {
    512 + 3 * filter.len() + 512 * (1 + filter.bytes().filter(|byte| *byte == b'/').count())
}
