//! Rows of a table reach the journal in the order in which they were handed to the store.
//!
//! Making a table, a partition or a segment takes a while, and senders that wait for it must not be overtaken by senders that
//! come when it is there. So each message takes a [`Turn`] before it waits for anything. Two points are passed in the order of
//! the turns: taking memory, and going into the journal. What lies between - converting rows, making what is missing -
//! is done by all at once.
//!
//! Memory is taken in order as well because a message that holds memory waits for earlier messages of its tables: they must
//! hold theirs already, or both would wait for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

type Table = (String, String);

/// The turns of all tables.
#[derive(Debug, Default)]
pub(crate) struct Order(Mutex<Lanes>);

#[derive(Debug, Default)]
struct Lanes {
    last: u64,
    lanes: HashMap<Table, Lane>,
}

/// The messages of one table that are not in the journal yet.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Those of them that hold no memory yet.
    outside: BTreeSet<u64>,
}

impl Lane {
    fn wake(&self) {
        let first = self.waiting.first_key_value();
        let next = self.outside.first().and_then(|ticket| self.waiting.get_key_value(ticket));
        for (_, wake) in first.into_iter().chain(next) {
            wake.notify_one();
        }
    }
}

/// A message's place in the order of its tables. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'o> {
    order: &'o Order,
    ticket: u64,
    tables: Vec<Table>,
    wake: Arc<Notify>,
}

impl Order {
    /// Takes a turn for a message with rows of these tables.
    pub(crate) fn turn<'t>(&self, tables: impl Iterator<Item = (&'t str, &'t str)>) -> Turn<'_> {
        let tables: BTreeSet<Table> = tables.map(|(dbms, table)| (dbms.to_owned(), table.to_owned())).collect();
        let tables: Vec<Table> = tables.into_iter().collect();
        let wake = Arc::new(Notify::new());
        let mut lanes = self.0.lock();
        lanes.last += 1;
        let ticket = lanes.last;
        for table in &tables {
            let lane = match lanes.lanes.get_mut(table) {
                Some(lane) => lane,
                None => lanes.lanes.entry(table.clone()).or_default(),
            };
            lane.waiting.insert(ticket, Arc::clone(&wake));
            lane.outside.insert(ticket);
        }
        Turn { order: self, ticket, tables, wake }
    }
}

impl Turn<'_> {
    /// Returns when every earlier message of the tables holds its memory.
    pub(crate) async fn comes_to_memory(&self) {
        self.until(|lane| lane.outside.first() == Some(&self.ticket)).await;
    }

    /// Says that this message holds its memory.
    pub(crate) fn holds_memory(&self) {
        let mut lanes = self.order.0.lock();
        for table in &self.tables {
            if let Some(lane) = lanes.lanes.get_mut(table) {
                lane.outside.remove(&self.ticket);
                lane.wake();
            }
        }
    }

    /// Returns when every earlier message of the tables is in the journal, or will never be.
    pub(crate) async fn comes_to_journal(&self) {
        self.until(|lane| lane.waiting.first_key_value().is_some_and(|(first, _)| *first == self.ticket)).await;
    }

    async fn until(&self, here: impl Fn(&Lane) -> bool) {
        loop {
            let arrived = {
                let lanes = self.order.0.lock();
                self.tables.iter().all(|table| lanes.lanes.get(table).is_none_or(&here))
            };
            if arrived {
                return;
            }
            self.wake.notified().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lanes = self.order.0.lock();
        for table in &self.tables {
            let Some(lane) = lanes.lanes.get_mut(table) else { continue };
            lane.waiting.remove(&self.ticket);
            lane.outside.remove(&self.ticket);
            if lane.waiting.is_empty() {
                lanes.lanes.remove(table);
            } else {
                lane.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn here(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn turns_come_in_order_and_are_given_up() {
        let order = Order::default();
        let first = order.turn([("d", "a")].into_iter());
        let both = order.turn([("d", "a"), ("d", "b"), ("d", "a")].into_iter());
        let last = order.turn([("d", "b")].into_iter());
        let other = order.turn([("e", "b")].into_iter());
        assert!(here(first.comes_to_memory()) && here(other.comes_to_memory()) && here(other.comes_to_journal()));
        assert!(!here(both.comes_to_memory()) && !here(last.comes_to_memory()));
        first.holds_memory();
        assert!(here(both.comes_to_memory()) && !here(both.comes_to_journal()));
        drop(first);
        assert!(here(both.comes_to_journal()) && !here(last.comes_to_journal()));
        drop(both);
        assert!(here(last.comes_to_memory()) && here(last.comes_to_journal()));
        drop((last, other));
        assert!(order.0.lock().lanes.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let order = Arc::new(Order::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let first = order.turn([("d", "a")].into_iter());
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (own, told) = (Arc::clone(&order), Arc::clone(&told));
            let (started, start) = tokio::sync::oneshot::channel();
            tasks.push(tokio::spawn(async move {
                let turn = own.turn([("d", "a")].into_iter());
                started.send(()).unwrap();
                turn.comes_to_memory().await;
                turn.holds_memory();
                turn.comes_to_journal().await;
                told.lock().push(number);
            }));
            start.await.unwrap();
        }
        assert!(told.lock().is_empty());
        drop(first);
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(10), task).await.unwrap().unwrap();
        }
        assert_eq!(*told.lock(), (0..20).collect::<Vec<_>>());
    }
}
