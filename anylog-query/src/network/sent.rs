//! Which rows of a part were handed on, so that another member of the cluster can give the others.
//!
//! Members of a cluster hold the same rows, in any order. The one that takes over gives all of them again, and each row that was
//! handed on is left out once: what the caller gets is each row as often as the cluster has it (QRY-3).

use std::collections::HashMap;

use anylog_dbms::Engine;

use crate::execute::digest::{self, Plain};
use crate::execute::{Held, Row};

/// The most rows that are remembered: 32 MB. A part of more rows is not taken over any more.
const MOST: u64 = 2 * 1024 * 1024;

/// Digests that are kept together: a list of many grows without being copied.
const PIECE: usize = 16 * 1024;

/// The rows of a part that were handed on.
#[derive(Debug)]
pub(super) struct Sent {
    /// The columns that tell rows apart.
    columns: Vec<usize>,
    rows: u64,
    pieces: Vec<Vec<u128>>,
    /// Rows that the node which took over gives again.
    again: HashMap<u128, u32, Plain>,
    /// The engine of the node that handed them on: another one may give the same values other types.
    engine: Option<Engine>,
    /// None once there are too many rows to be remembered.
    held: Option<Held>,
    buffer: Vec<u8>,
}

impl Sent {
    /// No rows yet; `held` counts the memory that they take.
    pub(super) fn new(columns: Vec<usize>, held: Held) -> Self {
        Self {
            columns,
            rows: 0,
            pieces: Vec::new(),
            again: HashMap::default(),
            engine: None,
            held: Some(held),
            buffer: Vec::new(),
        }
    }

    /// True when rows were handed on.
    pub(super) fn any(&self) -> bool {
        self.rows > 0
    }

    /// Another node gives all rows again. False when it is not known any more which of them came.
    pub(super) fn again(&mut self) -> bool {
        self.again.clear();
        for digest in self.pieces.iter().flatten() {
            *self.again.entry(*digest).or_default() += 1;
        }
        self.held.is_some()
    }

    /// The node that gives rows from now on. False when its values cannot be compared with those that came.
    pub(super) fn begins(&mut self, engine: Engine) -> bool {
        let suits = !self.any() || self.engine == Some(engine);
        self.engine = Some(engine);
        suits
    }

    /// Leaves out rows that came before. The others are remembered when there is still a node that could take over.
    pub(super) fn admit(&mut self, mut rows: Vec<Row>, remember: bool) -> Vec<Row> {
        if self.again.is_empty() && (!remember || self.held.is_none()) {
            self.rows += rows.len() as u64;
            return rows;
        }
        rows.retain(|row| {
            let digest = digest::of_row(self.columns.iter().filter_map(|column| row.get(*column)), &mut self.buffer);
            if let Some(left) = self.again.get_mut(&digest) {
                *left -= 1;
                if *left == 0 {
                    self.again.remove(&digest);
                }
                return false;
            }
            self.rows += 1;
            if remember {
                self.note(digest);
            }
            true
        });
        if !remember {
            self.give_up();
        }
        rows
    }

    fn note(&mut self, digest: u128) {
        let Some(held) = &self.held else { return };
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            let too_many = self.rows > MOST || held.take((PIECE * size_of::<u128>()) as u64).is_err();
            if too_many {
                return self.give_up();
            }
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(digest);
        }
    }

    fn give_up(&mut self) {
        (self.pieces, self.held) = (Vec::new(), None);
    }
}
