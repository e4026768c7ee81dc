//! What the node allows queries: `set query mode`, `set query pool`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::QueryError;

/// Queries that run at a time unless the pool is given another size; each may hold threads and rows.
pub(crate) const RUNNING: usize = 16;

/// Limits of what this node does for a query, and which gaps an answer over the network may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueryMode {
    /// How long a query over the databases of this node may take, also as a part of another node's; none is unlimited.
    pub timeout: Option<Duration>,
    /// How many bytes its rows may take; none is unlimited.
    pub max_volume: Option<u64>,
    /// Whether a query of this node goes on without operators that cannot be reached: `send_mode = any`.
    pub send_any: bool,
    /// Whether it goes on without operators that were asked and gave no whole answer: `reply_mode = any`.
    pub reply_any: bool,
    /// Whether a terminal shows the number of each query before its rows.
    pub show_id: bool,
}

/// When a query must be done, and how long it had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    at: tokio::time::Instant,
    after: Duration,
}

impl QueryMode {
    /// The end of a query that begins now.
    pub(crate) fn until(&self) -> Option<Until> {
        let after = self.timeout?;
        // What is longer than clocks can count has no end.
        Some(Until { at: tokio::time::Instant::now().checked_add(after)?, after })
    }
}

impl Until {
    /// Waits for the end; for ever without one.
    pub(crate) async fn passed(until: Option<Self>) -> QueryError {
        match until {
            None => std::future::pending().await,
            Some(until) => {
                // The timer is coarser than the clock.
                if tokio::time::Instant::now() < until.at {
                    tokio::time::sleep_until(until.at).await;
                }
                QueryError::TimeLimit { after: until.after }
            }
        }
    }
}

/// Places for queries that run at a time.
#[derive(Debug)]
pub(crate) struct Pool(RwLock<Places>);

#[derive(Debug)]
struct Places {
    size: usize,
    own: Arc<Semaphore>,
    // Parts have places of their own: a node may work on a part of its own query.
    parts: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Self(RwLock::new(Places::new(size)))
    }

    /// Another size; queries that run keep their places.
    pub(crate) fn resize(&self, size: usize) {
        *self.0.write() = Places::new(size);
    }

    /// For queries of this node.
    pub(crate) fn own(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.read().own)
    }

    /// For parts of other nodes' queries.
    pub(crate) fn parts(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.read().parts)
    }

    /// The size, and how many places of each kind are taken.
    pub(crate) fn usage(&self) -> (usize, usize, usize) {
        let places = self.0.read();
        let taken = |places_left: &Semaphore| places.size.saturating_sub(places_left.available_permits());
        (places.size, taken(&places.own), taken(&places.parts))
    }
}

impl Places {
    fn new(size: usize) -> Self {
        Self { size, own: Arc::new(Semaphore::new(size)), parts: Arc::new(Semaphore::new(size)) }
    }
}
