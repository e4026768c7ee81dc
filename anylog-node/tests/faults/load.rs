//! A mixture of senders, as many as the seed wants.

use std::path::Path;
use std::thread::JoinHandle;

use super::chance::Chance;
use super::devices::{Unanswered, Work, drop_files, publish, put_rows};
use super::mqtt::Publisher;

/// What senders keep over the end of a node.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    publishers: Vec<Publisher>,
    unanswered: Vec<Unanswered>,
}

/// Senders at work.
pub(crate) struct Load {
    publishers: Vec<JoinHandle<Publisher>>,
    puts: Vec<JoinHandle<Vec<Unanswered>>>,
    files: Vec<JoinHandle<()>>,
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// Messages of each publisher.
    pub(crate) messages: u64,
    /// Requests of each REST client.
    pub(crate) requests: u64,
    /// Files for the watch directory.
    pub(crate) files: u64,
}

impl Senders {
    /// Publishers of both qualities of service.
    pub(crate) fn new(publishers: usize) -> Self {
        let publishers =
            (0..publishers).map(|n| Publisher::new(&format!("device-{n}"), if n % 2 == 0 { 1 } else { 2 }));
        Self { publishers: publishers.collect(), unanswered: Vec::new() }
    }

    /// Whether something was sent that has no answer.
    pub(crate) fn settled(&self) -> bool {
        self.unanswered.is_empty() && self.publishers.iter().all(|publisher| publisher.in_flight() == 0)
    }

    /// Sets all of them to work.
    pub(crate) fn start(
        self,
        ports: (u16, u16),
        root: &Path,
        work: &Work,
        chance: &mut Chance,
        amount: Amount,
    ) -> Load {
        let (tcp, rest) = ports;
        let publishers = self.publishers.into_iter().map(|mut publisher| {
            let (work, mut chance) = (work.clone(), chance.branch());
            let window = usize::try_from(1 + chance.below(60)).unwrap();
            std::thread::spawn(move || {
                publish(&mut publisher, tcp, &work, chance, amount.messages, window);
                publisher
            })
        });
        let publishers = publishers.collect();
        // Half of the senders of requests without an answer send them again; the others live with not knowing.
        let mut again = self.unanswered;
        again.retain(|_| chance.percent(50));
        let second = again.split_off(again.len() / 2);
        let puts = [again, second].into_iter().map(|again| {
            let (work, chance) = (work.clone(), chance.branch());
            std::thread::spawn(move || put_rows(rest, &work, chance, amount.requests, again))
        });
        let puts = puts.collect();
        let (dropping, chance, root) = (work.clone(), chance.branch(), root.to_owned());
        let files = vec![std::thread::spawn(move || drop_files(&root, &dropping, chance, amount.files))];
        Load { publishers, puts, files }
    }
}

impl Load {
    /// Waits until every sender has ended.
    pub(crate) fn join(self) -> Senders {
        let mut senders = Senders::default();
        for thread in self.publishers {
            senders.publishers.push(thread.join().expect("a publisher that did not fail"));
        }
        for thread in self.puts {
            senders.unanswered.extend(thread.join().expect("a REST client that did not fail"));
        }
        for thread in self.files {
            thread.join().expect("a writer of files that did not fail");
        }
        senders
    }
}
