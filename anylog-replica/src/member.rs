//! The state of one member, driven by events.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{FileKey, FileSet};
use crate::message::{Body, Message, Rows, RowsHeld, Sealed, Want};

use copies::Copies;
use mate::Mate;
use orphans::Orphans;
use pull::Pull;
use waits::Waits;

mod copies;
mod links;
mod mate;
mod orphans;
mod pull;
mod push;
mod rows;
mod unsettled;
mod views;
mod waits;

pub use views::{MateView, Parked, ProducerView};

/// Milliseconds on a clock that only goes forward; where it begins does not matter.
pub type Millis = u64;

/// Who a member is, and what it was told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its number.
    pub member: i64,
    /// The id of its cluster.
    pub cluster: String,
    /// The id of its operator policy.
    pub policy: String,
    /// The key of the node.
    pub key: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Settings: whether the distributor runs, whether the consumer runs and since when it fills up (microseconds since 1970, 0: all).
    Set {
        /// `run data distributor`.
        distributor: bool,
        /// `run data consumer`, and its mode is active.
        consumer: bool,
        /// Its `start_date`.
        since: i64,
    },
    /// The other members of the cluster by their numbers, as the ledger tells them.
    Mates(Vec<i64>),
    /// It begins to be looked at what is on stable storage: what changes until [`Event::Have`] says it is added to that.
    Look,
    /// What is on this member's stable storage: at the start, and whenever it changed otherwise than by this machine's actions.
    Have {
        /// Complete files by producer.
        complete: Vec<(i64, FileSet)>,
        /// Open files, own and of mates, up to which ordinal.
        open: Vec<RowsHeld>,
        /// The highest number that this member gave to an own file.
        given: i64,
    },
    /// A mate's greeting says [`crate::message::Hello::since`], and these are the first files from then on, by producer. Comes between
    /// [`Event::Up`] and the greeting; without it the mate is told of all files.
    Narrow {
        /// The mate.
        mate: i64,
        /// The first number by producer; those of producers that are not named count as newer.
        first: Vec<(i64, i64)>,
    },
    /// A link to a mate is up. Whatever was under way before is lost.
    Up(i64),
    /// The link is down.
    Down(i64),
    /// A message of a mate, in the order in which it sent them, save [`crate::message::Body::Piece`], which whoever runs the member puts together by itself.
    Received(i64, Message),
    /// An own file got its number and is open. Best told of every file, also of those whose rows mates do not follow: a number that
    /// this member gave and does not name counts as one that does not exist.
    Opened(FileKey),
    /// Rows of an own open file, which mates follow, are on stable storage up to this ordinal. It never goes back: a file whose
    /// journal lost rows is not gone on with.
    Written(RowsHeld),
    /// An own file is complete: registered, archived. `rows` 0: it came to nothing and does not exist for mates.
    Complete {
        /// What mates that followed it are told.
        sealed: Sealed,
        /// How many rows it has.
        rows: u64,
    },
    /// The rows that a message brought to an own open file wait for `copies` members in all to have them up to `ordinal`.
    Await {
        /// Names the waiting message in [`Action::Acknowledge`].
        token: u64,
        /// The file.
        file: FileKey,
        /// The last row.
        ordinal: u64,
        /// Members that are to have it, this one included.
        copies: u32,
    },
    /// [`Action::StoreRows`] is done: this member has the file up to `held.ordinal`. Also when the rows did not follow what it has.
    RowsStored {
        /// Who sent them.
        from: i64,
        /// What is there now.
        held: RowsHeld,
    },
    /// All pieces of a wanted file are here and it is being stored; it need not be sent again. Comes before [`Event::Down`] of the link
    /// over which they came.
    Arrived(FileKey),
    /// The file is stored completely: [`Action::Fetch`], [`Action::Seal`] or [`Action::Adopt`] is done.
    Stored(FileKey),
    /// An action about a file failed. Not said of a fetch whose link broke, [`Event::Down`] says that; nor of one whose place another one
    /// took.
    Failed {
        /// The file.
        file: FileKey,
        /// Whose file could not be had or stored, for [`Action::Fetch`]; nobody for [`Action::Seal`] and [`Action::Adopt`].
        from: Option<i64>,
        /// Why.
        reason: String,
    },
    /// [`Action::StoreRows`] failed. It says nothing of the whole file, which may be on its way from the same mate.
    RowsFailed {
        /// Who sent them.
        from: i64,
        /// Of which file they are.
        file: FileKey,
    },
    /// [`Action::SendRows`] is done: rows up to this ordinal are under way to a mate.
    RowsSent {
        /// To whom.
        to: i64,
        /// Up to which row.
        sent: RowsHeld,
    },
    /// [`Action::SendFile`] or [`Action::SendRows`] cannot be done.
    CannotSend {
        /// To whom.
        to: i64,
        /// The file.
        file: FileKey,
        /// Why.
        reason: String,
    },
    /// The message that waited under this token waits no longer: its time is over.
    Withdraw(u64),
    /// A complete file is to be fetched anew: it differs from its mates', and counts as incomplete here from now on.
    Lost(FileKey),
    /// Time passed. Comes at least once a second: whatever is tried again later is tried then.
    Tick,
}

/// What is to be done. Actions of one call are done in their order; none is waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a message to a mate.
    Send(i64, Message),
    /// Ask a mate for a file: like [`Action::Send`] of a `Want`, whose offset whoever runs the member fills in from what it has of
    /// an earlier attempt. Then store what arrives in the place of what is here of the file, open or complete: [`Event::Arrived`],
    /// [`Event::Stored`] or [`Event::Failed`], which comes also when nothing arrives for long. A second one for the same file takes
    /// the place of the first. The mate's [`crate::message::Body::Missing`] goes to the machine, which says what follows; what was
    /// asked of it is over then.
    Fetch {
        /// Whom to ask.
        from: i64,
        /// For what.
        want: Want,
    },
    /// Give a mate the file that it wants, as pieces; [`Event::CannotSend`] when that is not possible. A second one for the same file
    /// takes the place of the first.
    SendFile {
        /// The mate.
        to: i64,
        /// Its wish.
        want: Want,
    },
    /// Send rows of an open file behind an ordinal to a mate, some or all: [`Event::RowsSent`] or [`Event::CannotSend`].
    SendRows {
        /// The mate.
        to: i64,
        /// The last row that was sent.
        after: RowsHeld,
    },
    /// Store rows of an open file that came from a mate: journal, tables. [`Event::RowsStored`] when they are on stable storage, or
    /// when they do not follow what is here; [`Event::RowsFailed`] when they cannot be stored. One of both always comes, also when the
    /// link is down meanwhile: the mate is not told what is here before. Those of one file are stored in the order in which they
    /// come. Rows of an own file are what mates had of it: it is no own open file until [`Action::Adopt`], and nothing
    /// else is added to it and nothing else seals it, also after a restart.
    StoreRows {
        /// Who sent them.
        from: i64,
        /// The rows.
        rows: Rows,
    },
    /// All rows of a mate's open file are here, and its producer sealed it: seal the copy. With 0 rows in its `about` it came to
    /// nothing, and the copy is given up, with its rows in the tables. [`Event::Stored`] or [`Event::Failed`].
    Seal(Sealed),
    /// This member produced an open file that only mates still had, and now has all that is left of it: seal it as an own file.
    /// Also said of one that was open here when this member started and that it did not add to since. [`Event::Complete`], or
    /// [`Event::Failed`].
    Adopt(FileKey),
    /// `copies` members have the rows that a message waits for.
    Acknowledge(u64),
    /// The member's numbering must go on behind this number: mates know files near it, and may come to know of some behind those.
    NumberFrom(i64),
    /// A file cannot be had: it is named in the node's status, and tried again later.
    Park {
        /// The file.
        file: FileKey,
        /// Why.
        reason: String,
    },
    /// Another node with this member's number, or of another cluster, was met: say so. The link is ended.
    Conflict {
        /// Which mate's link.
        with: i64,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// One member of a cluster.
#[derive(Debug)]
pub struct Member {
    config: Config,
    now: Millis,
    distributor: bool,
    consumer: bool,
    since: i64,
    mates: BTreeMap<i64, Mate>,
    // What this member has: complete files by producer, open ones, and own ones that came to nothing in this life.
    complete: BTreeMap<i64, FileSet>,
    open: BTreeMap<FileKey, Open>,
    void: FileSet,
    // The highest number that this member gave, and that its mates said that they gave.
    given: i64,
    producers: BTreeMap<i64, i64>,
    waits: Waits,
    copies: Copies,
    pull: Pull,
    orphans: Orphans,
    // What changed while it is looked at what is here.
    looking: Option<Look>,
    // What is to be looked at before `handle` returns.
    due: Due,
    actions: Vec<Action>,
}

// An open file here.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    // The last row on stable storage.
    ordinal: u64,
    // This member writes it: rows were added, or it was opened, since the member started.
    live: bool,
}

// What changed since it is looked at what is here.
#[derive(Debug, Default)]
struct Look {
    complete: BTreeMap<i64, FileSet>,
    open: BTreeMap<FileKey, u64>,
    closed: BTreeSet<FileKey>,
    lost: BTreeSet<FileKey>,
}

#[derive(Debug, Default)]
struct Due {
    offers: bool,
    pull: bool,
    orphans: bool,
}

impl Member {
    /// A member that knows nothing yet: tell it what it has and who its mates are.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            now: 0,
            distributor: false,
            consumer: false,
            since: 0,
            mates: BTreeMap::new(),
            complete: BTreeMap::new(),
            open: BTreeMap::new(),
            void: FileSet::new(),
            given: 0,
            producers: BTreeMap::new(),
            waits: Waits::default(),
            copies: Copies::default(),
            pull: Pull::default(),
            orphans: Orphans::default(),
            looking: None,
            due: Due::default(),
            actions: Vec::new(),
        }
    }

    /// What happened, at `now`; answers what is to be done, in order.
    ///
    /// A time before that of an earlier call counts as the earlier one's.
    #[must_use]
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Set { distributor, consumer, since } => self.set(distributor, consumer, since),
            Event::Mates(mates) => self.listed(&mates),
            Event::Look => self.looking = Some(Look::default()),
            Event::Have { complete, open, given } => self.have(complete, &open, given),
            Event::Narrow { mate, first } => self.narrow(mate, first),
            Event::Up(mate) => self.up(mate),
            Event::Down(mate) => self.down(mate),
            Event::Received(from, message) => self.received(from, message),
            Event::Opened(file) => self.opened(file),
            Event::Written(held) => self.written(held),
            Event::Complete { sealed, rows } => self.completed(sealed, rows),
            Event::Await { token, file, ordinal, copies } => self.wait(token, file, ordinal, copies),
            Event::Withdraw(token) => self.waits.withdraw(token),
            Event::RowsStored { from, held } => self.rows_stored(from, held),
            Event::Arrived(file) => self.arrived(file),
            Event::Stored(file) => self.stored(file),
            Event::Failed { file, from, reason } => self.failed(file, from, &reason),
            Event::RowsFailed { from, file } => self.cannot_store_rows(file, from),
            Event::RowsSent { to, sent } => self.rows_sent(to, sent),
            Event::CannotSend { to, file, reason } => self.cannot_send(to, file, reason),
            Event::Lost(file) => self.lost(file),
            Event::Tick => self.tick(),
        }
        self.settle();
        std::mem::take(&mut self.actions)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.config.member
    }

    fn set(&mut self, distributor: bool, consumer: bool, since: i64) {
        let greet_again = self.since != since;
        (self.distributor, self.consumer, self.since) = (distributor, consumer, since);
        self.pull.start_over();
        self.due.pull = true;
        self.due.offers = true;
        if greet_again {
            self.greet_again();
        }
    }

    fn have(&mut self, complete: Vec<(i64, FileSet)>, open: &[RowsHeld], given: i64) {
        let meanwhile = self.looking.take().unwrap_or_default();
        self.complete = complete.into_iter().filter(|(_, files)| !files.is_empty()).collect();
        for (producer, files) in &meanwhile.complete {
            self.complete.entry(*producer).or_default().extend(files);
        }
        for file in &meanwhile.lost {
            if let Some(files) = self.complete.get_mut(&file.producer) {
                files.remove(file.file);
            }
        }
        let before = std::mem::take(&mut self.open);
        let opened = meanwhile.open.iter().map(|(file, ordinal)| (*file, *ordinal));
        for (file, ordinal) in open.iter().map(|held| (FileKey::from(*held), held.ordinal)).chain(opened) {
            if file.is_valid() && !self.has(file) && !meanwhile.closed.contains(&file) {
                let live = before.get(&file).is_some_and(|open| open.live);
                let open = self.open.entry(file).or_default();
                *open = Open { ordinal: open.ordinal.max(ordinal), live };
            }
        }
        let own = self.complete.get(&self.number()).and_then(FileSet::last).unwrap_or(0);
        let open = self.open.range(FileKey::all_of(self.number())).next_back().map_or(0, |(file, _)| file.file);
        self.given = self.given.max(given).max(own).max(open);
        self.pull.forget_what_is_there(&self.complete);
        self.due = Due { offers: true, pull: true, orphans: true };
        self.tell_all();
        self.numbers_known();
        let waiting: Vec<FileKey> = self.waits.files().collect();
        for file in waiting {
            self.acknowledge(file);
        }
        self.follow_all();
    }

    // Does what follows from what happened.
    fn settle(&mut self) {
        self.tell_settled();
        let due = std::mem::take(&mut self.due);
        if due.orphans {
            self.care_for_orphans();
        }
        if due.pull || self.due.pull {
            self.due.pull = false;
            self.fetch_missing();
        }
        if due.offers {
            self.offer_all();
        }
    }

    fn tick(&mut self) {
        self.resend_rows();
        self.ask_for_stalled_rows();
        self.seal_again();
        self.fetch_again();
        self.give_up_on_silence();
        self.due = Due { offers: true, pull: true, orphans: true };
    }

    // Whether this member has a file completely.
    fn has(&self, file: FileKey) -> bool {
        self.complete.get(&file.producer).is_some_and(|files| files.contains(file.file))
    }

    // There is more of an open file here.
    fn note_open(&mut self, file: FileKey, ordinal: u64, live: bool) {
        if let Some(look) = &mut self.looking {
            look.open.insert(file, ordinal);
            look.closed.remove(&file);
        }
        self.open.insert(file, Open { ordinal, live });
    }

    // Up to which ordinal this member has an open file.
    fn ordinal(&self, file: FileKey) -> u64 {
        self.open.get(&file).map_or(0, |open| open.ordinal)
    }

    fn send(&mut self, to: i64, body: Body) {
        self.actions.push(Action::Send(to, body.into()));
    }

    // Sends to all mates with which messages are exchanged.
    fn send_all(&mut self, body: &Body) {
        let mates: Vec<i64> = self.speaking().collect();
        for mate in mates {
            self.send(mate, body.clone());
        }
    }

    fn speaking(&self) -> impl Iterator<Item = i64> + '_ {
        self.mates.iter().filter(|(_, mate)| mate.speaks()).map(|(number, _)| *number)
    }

    fn active(&self) -> impl Iterator<Item = (i64, &Mate)> + '_ {
        self.mates.iter().filter(|(_, mate)| mate.active()).map(|(number, mate)| (*number, mate))
    }

    fn listed_mates(&self) -> impl Iterator<Item = (i64, &Mate)> + '_ {
        self.mates.iter().filter(|(_, mate)| mate.listed).map(|(number, mate)| (*number, mate))
    }
}
