//! The world of a schedule: members, their disks, what is between them, and time.

use std::collections::{BTreeMap, BTreeSet};

use anylog_replica::message::{Body, Hello, Message, Piece, Rows as RowsMessage, RowsHeld, Sealed};
use anylog_replica::{Event, FileKey};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::{Disk, Row, Rows};
use crate::network::{Network, Time};
use crate::node::{CLUSTER, Node, Taken};
use crate::oracle::{Oracle, Violation};

/// What is wrong with whoever runs the members: the simulator must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// One copy less is waited for than the message wants.
    AcknowledgesEarly,
    /// Rows of mates are said to be stored before they are synced.
    AnswersBeforeSync,
    /// A file is said to be stored, and is not.
    LosesFiles,
    /// Rows that do not follow what is there are taken.
    TakesGaps,
    /// A member that lost its disk begins with number 1.
    NumbersAnew,
    /// Failures are not told.
    HidesFailures,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum What {
    Tick(usize),
    Deliver {
        link: u64,
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// What waited on its way may go on.
    Release {
        from: usize,
        to: usize,
    },
    LinkUp {
        link: u64,
        node: usize,
        mate: usize,
    },
    LinkDead {
        link: u64,
        node: usize,
    },
    Done {
        node: usize,
        life: u64,
        work: Box<Work>,
    },
    Listed(usize),
    Produce(usize),
    Fault(crate::schedule::Fault),
}

/// What takes a while.
#[derive(Debug)]
pub(crate) enum Work {
    Written { file: FileKey, ordinal: u64, rows: Vec<Row> },
    StoreRows { from: i64, rows: RowsMessage },
    Store { file: FileKey, from: i64, rows: Rows },
    SealCopy(Sealed),
    SealOwn(FileKey),
    Adopt(FileKey),
    RowsSent { to: i64, sent: RowsHeld },
    CannotSend { to: i64, file: FileKey },
    Failed { file: FileKey, from: Option<i64> },
    Tell(Event),
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) random: StdRng,
    queue: BTreeMap<(Time, u64), What>,
    events: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) network: Network,
    pub(crate) oracle: Oracle,
    /// The members that the ledger names.
    pub(crate) ledger: BTreeSet<usize>,
    /// Files that come to nothing.
    pub(crate) void: BTreeSet<FileKey>,
    pub(crate) violation: Option<Violation>,
    pub(crate) sabotage: Sabotage,
    /// How often in a thousand an action fails, and which one fails surely.
    pub(crate) failing: u32,
    pub(crate) fail_action: Option<u64>,
    pub(crate) actions: u64,
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    pub(crate) tables: Vec<u32>,
    pub(crate) quiet: bool,
    pub(crate) next_row: Row,
    pub(crate) next_token: u64,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, members: usize) -> Self {
        let nodes = (0..members).map(|i| Node::new(number(i), i as u64 + 1, 0, 0)).collect();
        let disk = |i: usize| Disk { numbered: true, ..Disk::new(i as u64 + 1) };
        Self {
            now: 0,
            random: StdRng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            events: 0,
            nodes,
            disks: (0..members).map(disk).collect(),
            network: Network::new(),
            oracle: Oracle::default(),
            ledger: (0..members).collect(),
            void: BTreeSet::new(),
            violation: None,
            sabotage: Sabotage::None,
            failing: 0,
            fail_action: None,
            actions: 0,
            kinds: BTreeMap::new(),
            tables: vec![1, 2, 2],
            quiet: false,
            next_row: 1,
            next_token: 1,
            trace: std::env::var_os("ANYLOG_SIM_TRACE").is_some(),
        }
    }

    pub(crate) fn at(&mut self, time: Time, what: What) {
        self.events += 1;
        self.queue.insert((time.max(self.now), self.events), what);
    }

    pub(crate) fn chance(&mut self, of_thousand: u32) -> bool {
        self.random.random_range(0..1000) < of_thousand
    }

    pub(crate) fn broken(&mut self, result: Result<(), Violation>) {
        if let (Err(violation), None) = (result, &self.violation) {
            self.violation = Some(format!("at {} ms: {violation}", self.now));
        }
    }

    /// Lets the world go on until then, or until a promise is broken.
    pub(crate) fn run_until(&mut self, end: Time) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((time, _), what) = entry.remove_entry();
            self.now = time;
            self.happens(what);
            if self.violation.is_some() {
                return;
            }
        }
        self.now = end;
    }

    fn happens(&mut self, what: What) {
        let who = match &what {
            What::Tick(node) | What::Listed(node) | What::Produce(node) => Some(*node),
            What::LinkUp { node, .. } | What::LinkDead { node, .. } | What::Done { node, .. } => Some(*node),
            // Their order is kept where they wait.
            What::Deliver { .. } | What::Release { .. } | What::Fault(_) => None,
        };
        if let Some(until) = who.map(|node| self.nodes[node].paused).filter(|until| *until > self.now) {
            return self.at(until, what);
        }
        match what {
            What::Tick(node) => self.tick(node),
            What::Deliver { link, from, to, bytes } => self.deliver(link, from, to, bytes),
            What::Release { from, to } => self.release(from, to),
            What::LinkUp { link, node, mate } => self.link_up(link, node, mate),
            What::LinkDead { link, node } => self.link_dead(link, node),
            What::Done { node, life, work } if self.nodes[node].alive && self.nodes[node].life == life => {
                self.done(node, *work);
            }
            What::Done { .. } => {}
            What::Listed(node) => self.tell_ledger(node),
            What::Produce(node) => self.produce(node),
            What::Fault(fault) => self.fault(fault),
        }
    }

    /// Tells the machine of a member what happened, and does what it says.
    pub(crate) fn tell(&mut self, node: usize, event: Event) {
        if !self.nodes[node].alive {
            return;
        }
        if self.trace {
            println!("{:>7} {} <- {event:?}", self.now, number(node));
        }
        let now = self.now + self.nodes[node].ahead;
        for action in self.nodes[node].member.handle(now, event) {
            if self.trace {
                println!("{:>7} {} -> {action:?}", self.now, number(node));
            }
            self.act(node, action);
        }
    }

    fn tick(&mut self, node: usize) {
        let next = self.now + if self.quiet { 1_000 } else { self.random.random_range(300..1_000) };
        self.at(next, What::Tick(node));
        if !self.nodes[node].alive {
            return;
        }
        self.tell(node, Event::Tick);
        self.dial(node);
        self.check_bounds(node);
        if self.quiet {
            let own = |(file, open): (&FileKey, &crate::disk::OpenFile)| open.own.then_some(*file);
            let open: Vec<FileKey> = self.disks[node].open.iter().filter_map(own).collect();
            for file in open {
                self.seal_own(node, file);
            }
        }
    }

    // R23: what is under way is bounded.
    fn check_bounds(&mut self, node: usize) {
        for mate in self.nodes[node].member.mates() {
            if mate.offered.len() > 2 || mate.fetching.len() > 4 || mate.sending.len() > 8 {
                self.broken(Err(format!(
                    "too much is under way between {} and {}: {mate:?}",
                    number(node),
                    mate.member
                )));
            }
        }
    }

    pub(crate) fn tell_ledger(&mut self, node: usize) {
        let mates = self.ledger.iter().filter(|mate| **mate != node).map(|mate| number(*mate)).collect();
        self.tell(node, Event::Mates(mates));
    }

    fn hello(&self, node: usize) -> Hello {
        Hello {
            member: number(node),
            cluster: CLUSTER.to_owned(),
            key: self.disks[node].key.to_string(),
            ..Hello::default()
        }
    }

    // Connects to mates without a link.
    fn dial(&mut self, node: usize) {
        let mates: Vec<usize> = self.ledger.iter().copied().filter(|mate| *mate != node).collect();
        for mate in mates {
            let turn = node < mate || self.chance(200);
            let reachable =
                self.nodes[mate].alive && self.nodes[mate].paused <= self.now && self.network.passable(node, mate);
            if self.network.link(node, mate).is_some() || !turn || !reachable {
                continue;
            }
            let (here, there) = (self.hello(node), self.hello(mate));
            if self.nodes[mate].member.objection(&here).is_some() || self.nodes[node].member.objection(&there).is_some()
            {
                continue;
            }
            let (first, second) =
                (self.now + self.random.random_range(1..20), self.now + self.random.random_range(1..20));
            let link = self.network.connect(node, mate, first.max(second));
            self.at(first, What::LinkUp { link, node, mate });
            self.at(second, What::LinkUp { link, node: mate, mate: node });
        }
    }

    fn link_up(&mut self, link: u64, node: usize, mate: usize) {
        if !self.network.links.contains_key(&link) {
            return;
        }
        if !self.nodes[node].alive {
            return self.at(self.now + 50, What::LinkDead { link, node: mate });
        }
        if let Some(old) = self.network.link(node, mate) {
            self.network.seen_dead(old, node);
            self.at(self.now + 30, What::LinkDead { link: old, node: mate });
        }
        self.network.believed.insert((node, mate), link);
        self.nodes[node].forget(number(mate));
        self.tell(node, Event::Up(number(mate)));
    }

    pub(crate) fn link_dead(&mut self, link: u64, node: usize) {
        let Some((a, b)) = self.network.links.get(&link).map(|link| link.ends) else { return };
        let mate = if a == node { b } else { a };
        let believed = self.network.link(node, mate) == Some(link);
        if let Some(other) = self.network.seen_dead(link, node) {
            let soon = !self.network.is_cut(node, other);
            let after = if soon { self.random.random_range(1..200) } else { self.random.random_range(1_000..10_000) };
            self.at(self.now + after, What::LinkDead { link, node: other });
        }
        if believed {
            self.nodes[node].forget(number(mate));
            self.tell(node, Event::Down(number(mate)));
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: i64, message: &Message) {
        let Some(to) = index(to).filter(|to| *to < self.nodes.len()) else { return };
        let Some(link) = self.network.link(from, to) else { return };
        if let Some(arrival) = self.network.arrival(link, from, to, self.now, &mut self.random) {
            self.at(arrival, What::Deliver { link, from, to, bytes: message.encode_to_vec() });
        }
    }

    fn deliver(&mut self, link: u64, from: usize, to: usize, bytes: Vec<u8>) {
        let stands = self.nodes[to].paused > self.now;
        if stands {
            self.at(self.nodes[to].paused, What::Release { from, to });
        }
        if stands || self.network.is_cut(from, to) || self.network.is_stalled(link, from) {
            return self.network.stall(link, from, bytes);
        }
        self.arrives(link, from, to, &bytes);
    }

    /// What was held up goes on, in its order, if nothing holds it up any more.
    pub(crate) fn release(&mut self, from: usize, to: usize) {
        if self.nodes[to].paused > self.now {
            return self.at(self.nodes[to].paused, What::Release { from, to });
        }
        if self.network.is_cut(from, to) {
            return;
        }
        for (link, messages) in self.network.release(from, to) {
            for bytes in messages {
                self.arrives(link, from, to, &bytes);
            }
        }
    }

    fn arrives(&mut self, link: u64, from: usize, to: usize, bytes: &[u8]) {
        if !self.nodes[to].alive || self.network.link(to, from) != Some(link) {
            return self.at(self.now + 20, What::LinkDead { link, node: from });
        }
        let message = Message::from_bytes(bytes).expect("messages of members can be read");
        match &message.body {
            Some(Body::Piece(piece)) => self.piece(to, number(from), piece),
            Some(Body::Missing(missing)) => {
                let file = missing.key();
                if let Some(incoming) = self.nodes[to].incoming.get_mut(&file).filter(|i| i.from == Some(number(from)))
                {
                    incoming.from = None;
                }
                self.tell(to, Event::Received(number(from), message));
            }
            _ => self.tell(to, Event::Received(number(from), message)),
        }
    }

    fn piece(&mut self, node: usize, from: i64, piece: &Piece) {
        let file = piece.key();
        match self.nodes[node].take(from, piece) {
            Taken::More => {}
            Taken::All(rows) => {
                self.tell(node, Event::Arrived(file));
                self.work(node, Work::Store { file, from, rows });
            }
            Taken::Wrong(reason) => {
                self.nodes[node].incoming.remove(&file);
                self.tell(node, Event::Failed { file, from: Some(from), reason: reason.to_owned() });
            }
        }
    }

    /// Something is to be done on a member's disk, after what is done there already.
    pub(crate) fn work(&mut self, node: usize, work: Work) {
        let takes = self.random.random_range(1..30);
        let busy = self.nodes[node].busy.max(self.now) + takes;
        self.nodes[node].busy = busy;
        let life = self.nodes[node].life;
        self.at(busy, What::Done { node, life, work: Box::new(work) });
    }
}

/// The number of a member by its place.
pub(crate) fn number(node: usize) -> i64 {
    node as i64 + 1
}

/// The place of a member by its number.
pub(crate) fn index(number: i64) -> Option<usize> {
    usize::try_from(number - 1).ok()
}
