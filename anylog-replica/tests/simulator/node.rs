//! What runs a simulated member besides its machine: what is lost with its process.

use std::collections::{BTreeMap, BTreeSet};

use anylog_replica::message::{About, Form, Piece, Rows as RowsMessage, Sealed, Want};
use anylog_replica::{Config, FileKey, Member};

use crate::disk::{Row, Rows};
use crate::network::Time;

/// The id of the cluster.
pub(crate) const CLUSTER: &str = "cluster";

/// How many rows are in a piece, and in a message with rows.
const ROWS: usize = 3;

/// A member's process, and what it was told.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) alive: bool,
    /// Told apart: what was begun by an earlier process is not done by this one.
    pub(crate) life: u64,
    pub(crate) member: Member,
    pub(crate) started: Time,
    /// What the clock of the process is ahead of the world's, and what its wall clock is.
    pub(crate) ahead: Time,
    pub(crate) wall: i64,
    /// It stands still until then.
    pub(crate) paused: Time,
    /// What is done on the disk is done one after the other.
    pub(crate) busy: Time,
    pub(crate) distributor: bool,
    pub(crate) consumer: bool,
    /// By table the file that is written.
    pub(crate) writing: BTreeMap<usize, FileKey>,
    /// Files that are about to be sealed.
    pub(crate) sealing: BTreeSet<FileKey>,
    /// Messages that wait to be acknowledged.
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) incoming: BTreeMap<FileKey, Incoming>,
}

/// A message that waits to be acknowledged.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) rows: Vec<Row>,
    pub(crate) copies: u32,
}

/// A file that is fetched: what came of it outlives links.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// From whom it is expected now.
    pub(crate) from: Option<i64>,
    content: u64,
    bytes: Vec<u8>,
    rows: u64,
}

/// What a piece made of a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    More,
    All(Rows),
    Wrong(&'static str),
}

impl Node {
    pub(crate) fn new(number: i64, key: u64, life: u64, now: Time) -> Self {
        let config = Config {
            member: number,
            cluster: CLUSTER.to_owned(),
            policy: format!("policy {number}"),
            key: key.to_string(),
        };
        Self {
            alive: true,
            life,
            member: Member::new(config),
            started: now,
            ahead: 0,
            wall: 0,
            paused: 0,
            busy: 0,
            distributor: true,
            consumer: true,
            writing: BTreeMap::new(),
            sealing: BTreeSet::new(),
            waiting: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }

    /// The wish for a file, with what is here of it.
    pub(crate) fn wish(&mut self, from: i64, want: Want) -> Want {
        let incoming = self.incoming.entry(want.into()).or_default();
        incoming.from = Some(from);
        Want { offset: incoming.bytes.len() as u64, content: incoming.content, ..want }
    }

    /// A piece came.
    pub(crate) fn take(&mut self, from: i64, piece: &Piece) -> Taken {
        let file = piece.key();
        let Some(incoming) = self.incoming.get_mut(&file).filter(|incoming| incoming.from == Some(from)) else {
            return Taken::More;
        };
        if piece.content != incoming.content {
            (incoming.content, incoming.bytes) = (piece.content, Vec::new());
        }
        if piece.offset != incoming.bytes.len() as u64 {
            return Taken::Wrong("a piece does not follow the one before");
        }
        incoming.bytes.extend(&piece.bytes);
        if let Some(about) = &piece.about {
            incoming.rows = about.rows;
        }
        if !piece.last {
            return Taken::More;
        }
        let rows = decode(&incoming.bytes);
        let expected = incoming.rows;
        self.incoming.remove(&file);
        if rows.len() as u64 == expected { Taken::All(rows) } else { Taken::Wrong("rows are missing") }
    }

    /// The link to a mate is gone: nothing comes from it any more.
    pub(crate) fn forget(&mut self, mate: i64) {
        for incoming in self.incoming.values_mut().filter(|incoming| incoming.from == Some(mate)) {
            incoming.from = None;
        }
    }
}

/// What a server sends for a wish: `content` names the file's bytes as this server gives them.
pub(crate) fn pieces(want: Want, rows: &Rows, content: u64) -> Vec<Piece> {
    let bytes = encode(rows);
    let start = if want.content == content { (want.offset as usize).min(bytes.len()) } else { 0 };
    let mut pieces = Vec::new();
    let mut offset = start;
    loop {
        let end = (offset + ROWS * 16).min(bytes.len());
        pieces.push(Piece {
            producer: want.producer,
            file: want.file,
            content,
            offset: offset as u64,
            bytes: bytes[offset..end].to_vec(),
            last: end == bytes.len(),
            about: (offset == start).then(|| about(rows.len())),
        });
        offset = end;
        if offset == bytes.len() {
            return pieces;
        }
    }
}

pub(crate) fn about(rows: usize) -> About {
    About { rows: rows as u64, form: Form::Archive as i32, ..About::default() }
}

pub(crate) fn sealed(file: FileKey, rows: &Rows) -> Sealed {
    let ordinal = rows.keys().next_back().copied().unwrap_or(0);
    Sealed { producer: file.producer, file: file.file, ordinal, about: Some(about(rows.len())), refused: Vec::new() }
}

fn encode(rows: &Rows) -> Vec<u8> {
    rows.iter().flat_map(|(ordinal, row)| ordinal.to_le_bytes().into_iter().chain(row.to_le_bytes())).collect()
}

fn decode(bytes: &[u8]) -> Rows {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|row| (number(&row[..8]), number(&row[8..]))).collect()
}

/// A message with the next rows behind an ordinal, and the last of them.
pub(crate) fn rows_message(
    file: FileKey,
    after: u64,
    rows: impl Iterator<Item = (u64, Row)>,
) -> Option<(RowsMessage, u64)> {
    use anylog_replica::message::Run;
    let next: Vec<(u64, Row)> = rows.filter(|(ordinal, _)| *ordinal > after).take(ROWS).collect();
    let last = next.last()?.0;
    let run = |(ordinal, row): &(u64, Row)| Run { first: *ordinal, rows: vec![row.to_string()], ..Run::default() };
    let runs = next.iter().map(run).collect();
    let message =
        RowsMessage { producer: file.producer, file: file.file, about: Some(about(0)), previous: after, runs };
    Some((message, last))
}

/// The rows of a message.
pub(crate) fn rows_of(message: &RowsMessage) -> Vec<(u64, Row)> {
    let row = |text: &String| text.parse().expect("a row");
    message.runs.iter().flat_map(|run| (run.first..).zip(run.rows.iter().map(row))).collect()
}
