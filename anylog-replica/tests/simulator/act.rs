//! What whoever runs a member does: the actions of its machine, and its own files.

use anylog_replica::message::{Body, Sealed};
use anylog_replica::{Action, Event, FileKey};
use rand::Rng;

use crate::disk::{OpenFile, Rows};
use crate::node::{Waiting, pieces, rows_message, rows_of, sealed};
use crate::world::{Sabotage, What, Work, World, index, number};

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Send(..) => "Send",
        Action::Fetch { .. } => "Fetch",
        Action::SendFile { .. } => "SendFile",
        Action::SendRows { .. } => "SendRows",
        Action::StoreRows { .. } => "StoreRows",
        Action::Seal(_) => "Seal",
        Action::Adopt(_) => "Adopt",
        Action::Acknowledge(_) => "Acknowledge",
        Action::NumberFrom(_) => "NumberFrom",
        Action::Park { .. } => "Park",
        Action::Conflict { .. } => "Conflict",
    }
}

impl World {
    pub(crate) fn act(&mut self, node: usize, action: Action) {
        self.actions += 1;
        *self.kinds.entry(kind(&action)).or_default() += 1;
        let fails = self.fail_action == Some(self.actions) || self.failing > 0 && self.chance(self.failing);
        if fails && self.fail(node, &action) {
            return;
        }
        match action {
            Action::Send(to, message) => self.send(node, to, &message),
            Action::Fetch { from, want } => {
                let want = self.nodes[node].wish(from, want);
                self.send(node, from, &Body::Want(want).into());
            }
            Action::SendFile { to, want } => {
                let file = FileKey::from(want);
                match self.disks[node].complete.get(&file) {
                    Some(rows) => {
                        // The same disk gives the same bytes.
                        let content = self.disks[node].key * 1_000 + rows.len() as u64;
                        for piece in pieces(want, &rows.clone(), content) {
                            self.send(node, to, &Body::Piece(piece).into());
                        }
                    }
                    None => self.soon(node, Work::CannotSend { to, file }),
                }
            }
            Action::SendRows { to, after } => {
                let file = FileKey::from(after);
                let open = self.disks[node].open.get(&file);
                match open.map(|open| rows_message(file, after.ordinal, open.durable())) {
                    Some(Some((rows, last))) => {
                        self.send(node, to, &Body::Rows(rows).into());
                        self.soon(node, Work::RowsSent { to, sent: file.held(last) });
                    }
                    Some(None) => self.soon(node, Work::RowsSent { to, sent: after }),
                    None => self.soon(node, Work::CannotSend { to, file }),
                }
            }
            Action::StoreRows { from, rows } => self.work(node, Work::StoreRows { from, rows }),
            Action::Seal(sealed) => self.work(node, Work::SealCopy(sealed)),
            Action::Adopt(file) => self.work(node, Work::Adopt(file)),
            Action::Acknowledge(token) => {
                if let Some(Waiting { rows, copies }) = self.nodes[node].waiting.remove(&token) {
                    for row in rows {
                        let result = self.oracle.acknowledged(row, copies, &self.disks);
                        self.broken(result);
                    }
                }
            }
            Action::NumberFrom(number) => {
                if self.sabotage != Sabotage::NumbersAnew {
                    self.disks[node].given = self.disks[node].given.max(number);
                }
            }
            Action::Park { .. } => {}
            Action::Conflict { with, .. } => {
                if let Some(link) = index(with).and_then(|mate| self.network.link(node, mate)) {
                    self.at(self.now, What::LinkDead { link, node });
                }
            }
        }
    }

    // Fails an action in its way; answers whether it has one.
    fn fail(&mut self, node: usize, action: &Action) -> bool {
        if self.sabotage == Sabotage::HidesFailures && !matches!(action, Action::Send(..)) {
            return true;
        }
        match action {
            Action::Send(to, _) => {
                if let Some(link) = index(*to).and_then(|mate| self.network.link(node, mate)) {
                    self.at(self.now, What::LinkDead { link, node });
                }
            }
            Action::Fetch { from, want } => self.soon(node, Work::Failed { file: (*want).into(), from: Some(*from) }),
            Action::SendFile { to, want } => self.soon(node, Work::CannotSend { to: *to, file: (*want).into() }),
            Action::SendRows { to, after } => self.soon(node, Work::CannotSend { to: *to, file: (*after).into() }),
            Action::StoreRows { from, rows } => {
                let file = rows.key();
                self.soon(node, Work::Tell(Event::RowsFailed { from: *from, file }));
            }
            Action::Seal(sealed) => {
                self.soon(node, Work::Failed { file: sealed.key(), from: None });
            }
            Action::Adopt(file) => self.soon(node, Work::Failed { file: *file, from: None }),
            Action::Acknowledge(_) | Action::NumberFrom(_) | Action::Park { .. } | Action::Conflict { .. } => {
                return false;
            }
        }
        true
    }

    // Done beside the disk.
    fn soon(&mut self, node: usize, work: Work) {
        let at = self.now + self.random.random_range(0..5);
        let life = self.nodes[node].life;
        self.at(at, What::Done { node, life, work: Box::new(work) });
    }

    pub(crate) fn done(&mut self, node: usize, work: Work) {
        match work {
            Work::Written { file, ordinal, rows } => self.written(node, file, ordinal, rows),
            Work::StoreRows { from, rows } => self.store_rows(node, from, &rows),
            Work::Store { file, from, rows } => self.store(node, file, from, rows),
            Work::SealCopy(sealed) => self.seal_copy(node, &sealed),
            Work::SealOwn(file) | Work::Adopt(file) => self.complete(node, file),
            Work::RowsSent { to, sent } => self.tell(node, Event::RowsSent { to, sent }),
            Work::CannotSend { to, file } => {
                self.tell(node, Event::CannotSend { to, file, reason: "it is not there".to_owned() });
            }
            Work::Tell(event) => self.tell(node, event),
            Work::Failed { file, from } => self.tell_failed(node, file, from, "it is to fail"),
        }
    }

    fn tell_failed(&mut self, node: usize, file: FileKey, from: Option<i64>, reason: &str) {
        self.tell(node, Event::Failed { file, from, reason: reason.to_owned() });
    }

    fn store_rows(&mut self, node: usize, from: i64, message: &anylog_replica::message::Rows) {
        let file = message.key();
        let disk = &mut self.disks[node];
        if disk.full {
            return self.tell(node, Event::RowsFailed { from, file });
        }
        let last = |open: &OpenFile| open.rows.keys().next_back().copied().unwrap_or(0);
        let here = disk.open.get(&file).map_or(0, last);
        if !disk.complete.contains_key(&file) && (message.previous <= here || self.sabotage == Sabotage::TakesGaps) {
            let open = disk.open.entry(file).or_default();
            open.rows.extend(rows_of(message).into_iter().filter(|(ordinal, _)| *ordinal > here));
            if self.sabotage != Sabotage::AnswersBeforeSync {
                open.synced = last(open);
            }
        }
        let ordinal = disk.open.get(&file).map_or(0, last);
        self.tell(node, Event::RowsStored { from, held: file.held(ordinal) });
    }

    // A file that was fetched takes the place of what is here of it.
    fn store(&mut self, node: usize, file: FileKey, from: i64, rows: Rows) {
        if self.disks[node].full {
            return self.tell_failed(node, file, Some(from), "the disk is full");
        }
        if self.sabotage == Sabotage::LosesFiles && self.chance(200) {
            return self.tell(node, Event::Stored(file));
        }
        self.put(node, file, rows, "a file was stored in its place");
        self.tell(node, Event::Stored(file));
    }

    fn put(&mut self, node: usize, file: FileKey, rows: Rows, how: &str) {
        let open = self.disks[node].open.remove(&file);
        let complete = self.disks[node].complete.insert(file, rows);
        let removed: Vec<u64> = open
            .into_iter()
            .flat_map(|open| open.rows)
            .chain(complete.into_iter().flatten())
            .map(|(_, row)| row)
            .collect();
        let result = self.oracle.removed(removed, &self.disks, how);
        self.broken(result);
    }

    fn seal_copy(&mut self, node: usize, sealed: &Sealed) {
        let file = sealed.key();
        if self.disks[node].full {
            return self.tell_failed(node, file, None, "the disk is full");
        }
        let void = sealed.about.as_ref().is_some_and(|about| about.rows == 0);
        if void {
            self.disks[node].open.remove(&file);
        } else if let Some(open) = self.disks[node].open.get(&file) {
            let rows: Rows = open.durable().collect();
            if sealed.about.as_ref().is_some_and(|about| about.rows != rows.len() as u64) {
                return self.tell_failed(node, file, None, "the copy lacks rows");
            }
            self.put(node, file, rows, "a copy was sealed");
        } else if !self.disks[node].complete.contains_key(&file) {
            return self.tell_failed(node, file, None, "there is no copy");
        }
        self.tell(node, Event::Stored(file));
    }

    /// Seals an own file, once.
    pub(crate) fn seal_own(&mut self, node: usize, file: FileKey) {
        self.nodes[node].writing.retain(|_, writing| *writing != file);
        if self.nodes[node].sealing.insert(file) {
            self.work(node, Work::SealOwn(file));
        }
    }

    fn complete(&mut self, node: usize, file: FileKey) {
        self.nodes[node].writing.retain(|_, writing| *writing != file);
        self.nodes[node].sealing.remove(&file);
        let Some(open) = self.disks[node].open.get(&file) else {
            if !self.disks[node].complete.contains_key(&file) && !self.void.contains(&file) {
                self.tell_failed(node, file, None, "there is nothing of it");
            }
            return;
        };
        if self.disks[node].full {
            self.tell_failed(node, file, None, "the disk is full");
            return;
        }
        let rows: Rows = open.durable().collect();
        let sealed = sealed(file, &rows);
        if self.void.contains(&file) || rows.is_empty() {
            self.disks[node].open.remove(&file);
            return self.tell(node, Event::Complete { sealed, rows: 0 });
        }
        let count = rows.len() as u64;
        self.put(node, file, rows, "a file was sealed");
        self.tell(node, Event::Complete { sealed, rows: count });
    }

    /// A device sends a message.
    pub(crate) fn produce(&mut self, node: usize) {
        if !self.nodes[node].alive || self.disks[node].full || self.quiet || !self.ledger.contains(&node) {
            return;
        }
        let table = self.random.random_range(0..self.tables.len());
        let file = match self.nodes[node].writing.get(&table) {
            Some(file) => *file,
            None => match self.open_file(node, table) {
                Some(file) => file,
                None => return,
            },
        };
        let count = self.random.random_range(1..=3);
        let mut ordinal = self.disks[node].open[&file].rows.keys().next_back().copied().unwrap_or(0);
        let mut rows = Vec::new();
        for _ in 0..count {
            ordinal += if self.chance(50) { 2 } else { 1 };
            let row = self.next_row;
            self.next_row += 1;
            self.oracle.sent(row, file, ordinal);
            if self.void.contains(&file) {
                self.oracle.void(row);
            }
            if let Some(open) = self.disks[node].open.get_mut(&file) {
                open.rows.insert(ordinal, row);
            }
            rows.push(row);
        }
        self.work(node, Work::Written { file, ordinal, rows });
        if self.chance(200) {
            self.seal_own(node, file);
        }
    }

    fn open_file(&mut self, node: usize, table: usize) -> Option<FileKey> {
        if !self.disks[node].numbered {
            let waits = self.now < self.nodes[node].started + 3_000;
            match (self.nodes[node].member.unheard().is_empty(), waits) {
                _ if self.sabotage == Sabotage::NumbersAnew => {}
                (true, _) => {}
                (false, true) => return None,
                // Nobody knows what was given: the clock is behind all that was given before.
                (false, false) => {
                    let clock = (1_000_000_000 + self.now as i64 + self.nodes[node].wall).max(1_000);
                    self.disks[node].given = self.disks[node].given.max(clock);
                }
            }
            self.disks[node].numbered = true;
        }
        self.disks[node].given += 1;
        let file = FileKey { producer: number(node), file: self.disks[node].given };
        self.disks[node].open.insert(file, OpenFile { own: true, table, ..OpenFile::default() });
        self.nodes[node].writing.insert(table, file);
        if self.chance(50) {
            self.void.insert(file);
        }
        if self.tables[table] > 1 || self.chance(500) {
            self.tell(node, Event::Opened(file));
        }
        Some(file)
    }

    fn written(&mut self, node: usize, file: FileKey, ordinal: u64, rows: Vec<u64>) {
        let table = match self.disks[node].open.get_mut(&file) {
            Some(open) => {
                open.synced = open.synced.max(ordinal);
                open.table
            }
            None => return,
        };
        let copies = self.tables[table];
        if copies == 1 {
            for row in rows {
                let result = self.oracle.acknowledged(row, 1, &self.disks);
                self.broken(result);
            }
            return;
        }
        self.tell(node, Event::Written(file.held(ordinal)));
        let token = self.next_token;
        self.next_token += 1;
        self.nodes[node].waiting.insert(token, Waiting { rows, copies });
        let waited = if self.sabotage == Sabotage::AcknowledgesEarly { copies - 1 } else { copies };
        self.tell(node, Event::Await { token, file, ordinal, copies: waited });
        if self.chance(20) {
            self.nodes[node].waiting.remove(&token);
            self.tell(node, Event::Withdraw(token));
        }
    }
}
