//! Schedules: what goes wrong, and when, drawn from a seed.

use anylog_replica::{Event, FileKey};
use rand::Rng;
use rand::seq::IteratorRandom;

use crate::disk::Disk;
use crate::network::Time;
use crate::node::{Node, Waiting};
use crate::oracle::Violation;
use crate::world::{Sabotage, What, Work, World, number};

/// How long the world may take to come to rest.
const REST: Time = 20 * 60_000;

/// How many actions a schedule may cost: more is a loop without an end.
const ACTIONS: u64 = 60_000;

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The process is killed.
    Crash(usize),
    /// The machine is destroyed with its disk.
    Wipe(usize),
    Restart(usize),
    /// Nothing gets through in one direction.
    Cut(usize, usize),
    Heal(usize, usize),
    Slow(usize, usize, Time),
    Full(usize, bool),
    /// The process stands still, and its clock goes on.
    Pause(usize, Time),
    /// The clocks jump.
    Jump(usize, Time, i64),
    /// A member is told to be without its distributor, or its consumer.
    Set(usize, bool, bool),
    /// A file differs from its mates' and is taken away.
    TakeAway(usize),
    /// It is looked what is on the disk.
    Look(usize),
    /// A member joins the cluster.
    Join(usize),
}

/// One schedule, from its beginning to rest.
pub(crate) fn run(seed: u64, sabotage: Sabotage) -> Result<World, Violation> {
    let mut world = World::new(seed, 3);
    let members = *[3, 3, 3, 4, 5].iter().choose(&mut world.random).expect("one of five");
    world = World::new(seed.wrapping_mul(31).wrapping_add(7), members);
    world.sabotage = sabotage;
    world.failing = *[0, 0, 5, 30].iter().choose(&mut world.random).expect("one of four");
    world.tables = vec![1, 2, world.random.random_range(2..=3)];
    let length = world.random.random_range(5_000..40_000);
    world.plan(members, length);
    world.run_until(length);
    world.calm_down();
    let outcome = world.rest();
    match world.violation.take() {
        Some(violation) => Err(violation),
        None => outcome.map(|()| world),
    }
}

impl World {
    /// Starts all members.
    pub(crate) fn begin(&mut self, members: usize) {
        for node in 0..members {
            if self.ledger.contains(&node) {
                self.start(node);
            } else {
                self.nodes[node].alive = false;
            }
            self.at(self.now + node as Time * 37, What::Tick(node));
        }
    }

    fn plan(&mut self, members: usize, length: Time) {
        // Sometimes one comes later.
        if members > 3 && self.chance(500) {
            self.ledger.remove(&(members - 1));
            let at = self.random.random_range(0..length);
            self.at(at, What::Fault(Fault::Join(members - 1)));
        }
        self.begin(members);
        for _ in 0..self.random.random_range(5..60) {
            let (at, node) = (self.random.random_range(0..length), self.random.random_range(0..members));
            self.at(at, What::Produce(node));
            if self.chance(400) {
                // Messages come in trains.
                for k in 1..6 {
                    self.at(at + k * 17, What::Produce(node));
                }
            }
        }
        for _ in 0..self.random.random_range(0..10) {
            let at = self.random.random_range(0..length);
            self.plan_fault(members, at);
        }
    }

    fn plan_fault(&mut self, members: usize, at: Time) {
        let node = self.random.random_range(0..members);
        let mate = (node + self.random.random_range(1..members)) % members;
        let later = at + self.random.random_range(100..15_000);
        let (fault, end) = match self.random.random_range(0..13) {
            0 | 1 => (Fault::Crash(node), Some(Fault::Restart(node))),
            2 | 3 => (Fault::Wipe(node), Some(Fault::Restart(node))),
            4 => (Fault::Cut(node, mate), Some(Fault::Heal(node, mate))),
            5 => {
                self.at(at, What::Fault(Fault::Cut(mate, node)));
                self.at(later, What::Fault(Fault::Heal(mate, node)));
                (Fault::Cut(node, mate), Some(Fault::Heal(node, mate)))
            }
            6 => (Fault::Slow(node, mate, self.random.random_range(100..4_000)), Some(Fault::Slow(node, mate, 0))),
            7 => (Fault::Full(node, true), Some(Fault::Full(node, false))),
            8 => (Fault::Pause(node, later - at), None),
            9 => {
                let wall = self.random.random_range(-1_000_000_000_i64..1_000_000_000);
                (Fault::Jump(node, self.random.random_range(0..4_000_000), wall), None)
            }
            10 => {
                let (distributor, consumer) = (self.chance(500), self.chance(500));
                (Fault::Set(node, distributor, consumer), Some(Fault::Set(node, true, true)))
            }
            11 => (Fault::Look(node), None),
            _ => (Fault::TakeAway(node), None),
        };
        self.at(at, What::Fault(fault));
        if let Some(end) = end {
            self.at(later, What::Fault(end));
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.trace {
            println!("{:>7} {fault:?}", self.now);
        }
        if self.quiet {
            return;
        }
        match fault {
            Fault::Crash(node) => self.crash(node),
            Fault::Wipe(node) => self.wipe(node),
            Fault::Restart(node) => self.start(node),
            Fault::Cut(from, to) => self.cut(from, to),
            Fault::Heal(from, to) => self.heal(from, to),
            Fault::Slow(from, to, by) => {
                self.network.slow.insert((from, to), by);
            }
            Fault::Full(node, full) => self.disks[node].full = full,
            Fault::Pause(node, time) => {
                self.nodes[node].paused = self.nodes[node].paused.max(self.now + time);
            }
            Fault::Jump(node, ahead, wall) => {
                self.nodes[node].ahead += ahead;
                self.nodes[node].wall = wall;
            }
            Fault::Set(node, distributor, consumer) => {
                (self.nodes[node].distributor, self.nodes[node].consumer) = (distributor, consumer);
                self.tell(node, Event::Set { distributor, consumer, since: 0 });
            }
            Fault::TakeAway(node) => self.take_away(node),
            Fault::Look(node) if self.nodes[node].alive => {
                self.tell(node, Event::Look);
                let (complete, open) = self.disks[node].have();
                let have = Event::Have { complete, open, given: self.disks[node].given };
                let at = self.now + self.random.random_range(0..300);
                let work = Box::new(Work::Tell(have));
                self.at(at, What::Done { node, life: self.nodes[node].life, work });
            }
            Fault::Look(_) => {}
            Fault::Join(node) => {
                self.ledger.insert(node);
                self.start(node);
                for other in 0..self.nodes.len() {
                    let at = self.now + self.random.random_range(0..3_000);
                    self.at(at, What::Listed(other));
                }
            }
        }
    }

    fn start(&mut self, node: usize) {
        let before = &self.nodes[node];
        if (before.alive && before.life > 0) || !self.ledger.contains(&node) {
            return;
        }
        let mut fresh = Node::new(number(node), self.disks[node].key, before.life + 1, self.now);
        (fresh.ahead, fresh.wall, fresh.distributor, fresh.consumer) =
            (self.random.random_range(0..1_000_000), before.wall, before.distributor, before.consumer);
        let (distributor, consumer) = (fresh.distributor, fresh.consumer);
        self.nodes[node] = fresh;
        let (complete, open) = self.disks[node].have();
        let given = self.disks[node].given;
        self.tell(node, Event::Set { distributor, consumer, since: 0 });
        self.tell_ledger(node);
        self.tell(node, Event::Have { complete, open, given });
        let own: Vec<(FileKey, usize)> =
            self.disks[node].open.iter().filter(|(_, open)| open.own).map(|(file, open)| (*file, open.table)).collect();
        for (file, table) in own {
            // What was open is sealed, or gone on with, or left to the machine.
            match self.random.random_range(0..3) {
                0 => self.seal_own(node, file),
                1 => drop(self.nodes[node].writing.insert(table, file)),
                _ => {}
            }
        }
    }

    fn crash(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        self.nodes[node].alive = false;
        self.nodes[node].paused = 0;
        // What was not synced may be there, from the first on, or not.
        for open in self.disks[node].open.values_mut() {
            let tail: Vec<u64> = open.rows.range(open.synced + 1..).map(|(ordinal, _)| *ordinal).collect();
            let kept = self.random.random_range(0..=tail.len());
            for (i, ordinal) in tail.into_iter().enumerate() {
                if i < kept {
                    open.synced = ordinal;
                } else {
                    open.rows.remove(&ordinal);
                }
            }
        }
        let links: Vec<(usize, u64)> = self
            .network
            .believed
            .iter()
            .filter(|((side, _), _)| *side == node)
            .map(|((_, mate), id)| (*mate, *id))
            .collect();
        for (mate, link) in links {
            self.network.believed.remove(&(node, mate));
            let at = self.now + self.random.random_range(1..8_000);
            self.at(at, What::LinkDead { link, node: mate });
        }
    }

    fn wipe(&mut self, node: usize) {
        self.crash(node);
        let key = u64::from(self.random.random::<u32>());
        let lost = std::mem::replace(&mut self.disks[node], Disk::new(key));
        let result = self.oracle.disk_lost(&lost, &self.disks);
        self.broken(result);
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.network.cut.insert((from, to), true);
        for (side, mate) in [(to, from), (from, to)] {
            if let Some(link) = self.network.link(side, mate) {
                let at = self.now + self.random.random_range(1_000..12_000);
                self.at(at, What::LinkDead { link, node: side });
            }
        }
    }

    fn heal(&mut self, from: usize, to: usize) {
        self.network.cut.insert((from, to), false);
        self.release(from, to);
    }

    // A complete file that another member has too is found to differ.
    fn take_away(&mut self, node: usize) {
        let elsewhere = |file: &FileKey| {
            self.disks.iter().enumerate().any(|(other, disk)| other != node && disk.complete.contains_key(file))
        };
        let files: Vec<FileKey> = self.disks[node].complete.keys().copied().filter(elsewhere).collect();
        let Some(file) = files.into_iter().choose(&mut self.random).filter(|_| self.nodes[node].alive) else { return };
        let rows = self.disks[node].complete.remove(&file).unwrap_or_default();
        // As if that much of a disk were lost: until it is fetched there is a copy less.
        let mut lost = Disk::default();
        lost.complete.insert(file, rows);
        let result = self.oracle.disk_lost(&lost, &self.disks);
        self.broken(result);
        self.tell(node, Event::Lost(file));
    }

    /// Everything is mended.
    pub(crate) fn calm_down(&mut self) {
        for node in 0..self.nodes.len() {
            self.disks[node].full = false;
            if !self.ledger.contains(&node) {
                self.fault(Fault::Join(node));
            }
        }
        let cuts: Vec<(usize, usize)> = self.network.cut.keys().copied().collect();
        for (from, to) in cuts {
            self.heal(from, to);
        }
        self.network.slow.clear();
        self.failing = 0;
        for node in 0..self.nodes.len() {
            self.start(node);
            self.tell(node, Event::Set { distributor: true, consumer: true, since: 0 });
        }
        self.quiet = true;
    }

    /// Waits until all have the same, or too long.
    pub(crate) fn rest(&mut self) -> Result<(), Violation> {
        let end = self.now + REST;
        loop {
            self.run_until(self.now + 500);
            for node in 0..self.nodes.len() {
                let result = self.oracle.once(&self.disks[node], node + 1);
                self.broken(result);
            }
            if let Some(violation) = &self.violation {
                return Err(violation.clone());
            }
            let state = self.oracle.converged(&self.disks).and_then(|()| self.agreed());
            if state.is_ok() || self.now > end {
                return state;
            }
            if self.actions > ACTIONS {
                return Err(format!("{} actions were not enough: {:?}", self.actions, state.err()));
            }
        }
    }

    // All machines know that all have the same, and nobody waits.
    fn agreed(&self) -> Result<(), Violation> {
        let consensus =
            |node: &Node| (0..self.nodes.len()).map(|p| node.member.consensus(number(p))).collect::<Vec<_>>();
        let first = consensus(&self.nodes[0]);
        for (i, node) in self.nodes.iter().enumerate() {
            // What was lost with all disks before it was acknowledged waits until the device gives up.
            let owed = |(_, waiting): &(&u64, &Waiting)| waiting.rows.iter().any(|row| self.oracle.owed(*row));
            if let Some((token, _)) = node.waiting.iter().find(owed) {
                return Err(format!("message {token} of member {} waits", number(i)));
            }
            for of in node.member.producers() {
                let last = self.disks[i]
                    .complete
                    .keys()
                    .filter(|file| file.producer == of.producer)
                    .map(|file| file.file)
                    .max();
                if !of.missing.is_empty()
                    || !of.parked.is_empty()
                    || !of.in_work.is_empty()
                    || of.consensus < last.unwrap_or(0)
                {
                    return Err(format!("member {} is not at rest, whose last is {last:?}: {of:?}", number(i)));
                }
            }
            if consensus(node) != first {
                return Err(format!("members 1 and {} do not agree: {first:?} and {:?}", number(i), consensus(node)));
            }
        }
        Ok(())
    }
}
