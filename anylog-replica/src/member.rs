//! The state of one member, driven by events.

use crate::files::{FileKey, FileSet};
use crate::message::{Message, Rows, RowsHeld, Sealed, Want};

mod views;

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
    /// What is on this member's stable storage: at the start, and whenever it changed otherwise than by this machine's actions.
    Have {
        /// Complete files by producer.
        complete: Vec<(i64, FileSet)>,
        /// Open files, own and of mates, up to which ordinal.
        open: Vec<RowsHeld>,
        /// The highest number that this member gave to an own file.
        given: i64,
    },
    /// A link to a mate is up. Whatever was under way before is lost.
    Up(i64),
    /// The link is down.
    Down(i64),
    /// A message of a mate, save [`crate::message::Body::Piece`], which whoever runs the member puts together by itself.
    Received(i64, Message),
    /// An own file was opened.
    Opened(FileKey),
    /// Rows of an own open file up to this ordinal are on stable storage.
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
    /// All pieces of a wanted file are here and it is being stored; it need not be sent again.
    Arrived(FileKey),
    /// The file is stored completely: [`Action::Fetch`], [`Action::Seal`] or [`Action::Adopt`] is done.
    Stored(FileKey),
    /// An action about a file of a mate failed.
    Failed {
        /// The file.
        file: FileKey,
        /// Who had been asked, when somebody was.
        from: Option<i64>,
        /// Why.
        reason: String,
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
    /// A complete file is to be fetched anew: it differs from its mates', and was taken away here.
    Lost(FileKey),
    /// Time passed. Comes at least once a second.
    Tick,
}

/// What is to be done. Actions of one call are done in their order; none is waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a message to a mate.
    Send(i64, Message),
    /// Ask a mate for a file: like [`Action::Send`] of a `Want`, whose offset whoever runs the member fills in from what it has of
    /// an earlier attempt. Then store what arrives: [`Event::Arrived`], [`Event::Stored`] or [`Event::Failed`].
    Fetch {
        /// Whom to ask.
        from: i64,
        /// For what.
        want: Want,
    },
    /// Give a mate the file that it wants, as pieces; [`Event::CannotSend`] when that is not possible.
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
    /// Store rows of a mate's open file: journal, tables. [`Event::RowsStored`] when they are on stable storage.
    StoreRows {
        /// Who sent them.
        from: i64,
        /// The rows.
        rows: Rows,
    },
    /// All rows of a mate's open file are here, and its producer sealed it: seal the copy. [`Event::Stored`] or [`Event::Failed`].
    Seal(Sealed),
    /// This member produced an open file that only mates still had, and now has all that is left of it: go on with it as an own
    /// file and seal it. [`Event::Complete`].
    Adopt(FileKey),
    /// `copies` members have the rows that a message waits for.
    Acknowledge(u64),
    /// The member's numbering must go on behind this number: mates know files up to it.
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
}

impl Member {
    /// A member that knows nothing yet: tell it what it has and who its mates are.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// What happened, at `now`; answers what is to be done, in order.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let _ = (now, event);
        Vec::new()
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.config.member
    }
}
