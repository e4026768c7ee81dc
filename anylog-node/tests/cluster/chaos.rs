//! Members killed, ended, emptied, cut off and healed at random while all of them take rows.
//!
//! The life of a cluster has phases. In each, things go wrong as the seed decides, and at most one disk is lost; then everything is
//! healed, and the members must become equal and hold what was acknowledged: at `replicated(2)` all of it, at `local` all but
//! what was only on the disk that was lost. No row may be there more often than it was sent.

use std::time::{Duration, Instant};

use super::chance::{Chance, setting};
use super::check::converge;
use super::links::Way;
use super::load::Senders;
use super::network::{Cluster, Reach};
use super::record::Record;

/// What went wrong so far.
#[derive(Debug, Default)]
struct Totals {
    phases: u64,
    kills: u64,
    ends: u64,
    wipes: u64,
    cuts: u64,
    master_kills: u64,
}

// DUR-3, DUR-6, R6, R20, R21
#[test]
fn members_become_equal_whatever_dies() {
    let seed = setting("ANYLOG_CHAOS_SEED").unwrap_or(1);
    let whole = Duration::from_secs(setting("ANYLOG_CHAOS_SECONDS").unwrap_or(12));
    eprintln!("chaos for {whole:?}: ANYLOG_CHAOS_SEED={seed}");
    let mut chaos = Chaos::new(seed);
    let start = Instant::now();
    // A phase is long enough for some losses, and short enough for many comparisons.
    let phase = (whole / 2).min(Duration::from_secs(20));
    let mut senders = Senders::new(chaos.cluster.members.len());
    while start.elapsed() < whole {
        senders = chaos.phase(phase, senders);
        let counts = chaos.record.counts();
        eprintln!("  after {:.0?}: {:?}, {counts}", start.elapsed(), chaos.totals);
    }
    converge(&chaos.cluster, &chaos.record, 0, &format!("seed {seed}, at the end"));
    for node in &mut chaos.cluster.members {
        assert_eq!(node.terminate().code(), Some(0), "{}: {}", node.name, node.last_words());
    }
    let counts = chaos.record.counts();
    eprintln!("chaos: seed {seed}, {:.0?}: {:?}, {counts}: 0 lost, 0 doubled", start.elapsed(), chaos.totals);
}

struct Chaos {
    seed: u64,
    cluster: Cluster,
    record: Record,
    chance: Chance,
    totals: Totals,
    /// When a node that does not run is started again; the master comes last.
    back: Vec<Option<Instant>>,
    /// Members that came back empty in this phase: they need the master to know who they are.
    fresh: Vec<bool>,
    /// Links that are to carry again: both ends, and when.
    cuts: Vec<(usize, usize, Instant)>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::start(3, Reach::OverLinks);
        let nodes = cluster.members.len() + 1;
        Self {
            seed,
            cluster,
            record: Record::default(),
            chance: Chance::new(seed),
            totals: Totals::default(),
            back: vec![None; nodes],
            fresh: vec![false; nodes],
            cuts: Vec::new(),
        }
    }

    fn master(&self) -> usize {
        self.cluster.members.len()
    }

    fn phase(&mut self, length: Duration, senders: Senders) -> Senders {
        let load = senders.start(&self.cluster, &self.record, &mut self.chance);
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.something();
            let pause = self.chance.millis(100, 1200);
            self.wait(pause);
        }
        self.heal();
        let senders = load.settle();
        let phase = self.record.phase();
        converge(&self.cluster, &self.record, phase, &format!("seed {}, phase {phase}", self.seed));
        self.record.next_phase();
        self.totals.phases += 1;
        senders
    }

    /// Lets time pass, in which nodes come back and links carry again.
    fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.due();
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        for node in 0..self.back.len() {
            if self.back[node].is_some_and(|time| time <= now) {
                self.starts(node);
            }
        }
        let links = &self.cluster.links;
        self.cuts.retain(|(one, other, until)| {
            let over = *until <= now;
            if over {
                links.between(*one, *other, Way::Carries);
            }
            !over
        });
    }

    fn starts(&mut self, node: usize) {
        self.back[node] = None;
        if node == self.master() {
            let process = self.cluster.master.spawn();
            self.cluster.links.is_process(node, Some(process));
        } else {
            self.cluster.spawn(node);
        }
    }

    /// Something goes wrong.
    fn something(&mut self) {
        match self.chance.below(100) {
            0..25 => self.kills(),
            25..38 => self.ends(),
            38..55 => self.wipes(),
            55..92 => self.cuts(),
            _ => self.kills_the_master(),
        }
    }

    /// A member that runs, or none when the one that chance chose does not.
    fn member(&mut self) -> Option<usize> {
        let member = usize::try_from(self.chance.below(self.cluster.members.len() as u64)).unwrap();
        self.cluster.members[member].runs().then_some(member)
    }

    fn comes_back(&mut self, node: usize) {
        self.back[node] = Some(Instant::now() + self.chance.millis(0, 2500));
    }

    fn kills(&mut self) {
        let Some(member) = self.member() else { return };
        self.cluster.members[member].kill();
        self.totals.kills += 1;
        self.comes_back(member);
    }

    fn ends(&mut self) {
        let Some(member) = self.member() else { return };
        let status = self.cluster.members[member].terminate();
        assert_eq!(status.code(), Some(0), "{}", self.cluster.members[member].last_words());
        self.totals.ends += 1;
        self.comes_back(member);
    }

    /// A member loses its disk: the only one in this phase, as rows are on two.
    fn wipes(&mut self) {
        if self.fresh.iter().any(|fresh| *fresh) {
            return self.kills();
        }
        let Some(member) = self.member() else { return };
        let node = &mut self.cluster.members[member];
        node.kill();
        node.wipe();
        self.record.loses(member);
        self.fresh[member] = true;
        self.totals.wipes += 1;
        let master = self.master();
        self.cluster.links.between(member, master, Way::Carries);
        if self.back[master].is_some() {
            self.starts(master);
        }
        self.comes_back(member);
    }

    /// The links between two nodes, or all of one, fail.
    fn cuts(&mut self) {
        let nodes = self.back.len() as u64;
        let pick = |chance: &mut Chance| usize::try_from(chance.below(nodes)).unwrap();
        let (one, way) = (pick(&mut self.chance), self.chance.below(6));
        let way = Way::CUTS.get(usize::try_from(way).unwrap()).copied().unwrap_or(Way::Slow);
        let others: Vec<usize> = match self.chance.percent(40) {
            true => (0..self.back.len()).collect(),
            false => vec![pick(&mut self.chance)],
        };
        let until = Instant::now() + self.chance.millis(200, 4000);
        let master = self.master();
        for other in others {
            // A member that came back empty asks the master who it is.
            let needed = (one == master && self.fresh[other]) || (other == master && self.fresh[one]);
            if one != other && !needed {
                self.cluster.links.between(one, other, way);
                self.cuts.push((one, other, until));
                self.totals.cuts += 1;
            }
        }
    }

    fn kills_the_master(&mut self) {
        let master = self.master();
        if self.cluster.master.runs() && !self.fresh.iter().any(|fresh| *fresh) {
            self.cluster.master.kill();
            self.totals.master_kills += 1;
            self.comes_back(master);
        }
    }

    /// Everything works again.
    fn heal(&mut self) {
        self.cuts.clear();
        self.cluster.links.heal();
        for node in 0..self.back.len() {
            if self.back[node].is_some() {
                self.starts(node);
            }
        }
        self.cluster.master.ready();
        self.cluster.all_ready();
        self.fresh.fill(false);
    }
}
