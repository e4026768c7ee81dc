//! A node's part of a query: the statement that another node divided, over the rows of this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anylog_core::CommandError;
use anylog_core::reply::Chunks;
use futures_util::stream;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::wire::{Frame, PartEnd};
use crate::execute::{self, Piece, Progress, Sender};
use crate::extend;
use crate::history::PartRecord;
use crate::mode::Until;
use crate::service::part_steps;
use crate::sql::Now;
use crate::sql::bind::Scope;
use crate::sql::expr::{CastType, Expr};
use crate::{QueryError, QueryService};

/// A node that is at work says so this often.
pub(super) const ALIVE: Duration = Duration::from_secs(1);

/// What another node asks for. It travels as JSON; unknown fields are ignored, so that later versions may add some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRequest {
    /// The node that put the question together, and the number of the query there.
    pub(crate) from: String,
    pub(crate) id: u64,
    /// The logical database.
    pub(crate) dbms: String,
    /// The table, to describe it; the statement names it too.
    pub(crate) table: String,
    /// The statement in the dialect; times are UTC. Empty to be told the table's CREATE statement.
    pub(crate) sql: String,
    /// Columns that the statement may name and the words of their types; those that the table lacks are null.
    #[serde(default)]
    pub(crate) columns: Vec<(String, String)>,
    /// Columns whose values are taken from this node: names, and what they show.
    #[serde(default)]
    pub(crate) added: Vec<(String, String)>,
    /// Whether rows of one group may come in several pieces, from each place of this node its own.
    #[serde(default)]
    pub(crate) loose: bool,
    /// Only rows that all members of the cluster have.
    #[serde(default)]
    pub(crate) committed: bool,
    /// Which rows these are: for each member the number of its last file, as the member said that this one replaces.
    #[serde(default)]
    pub(crate) upto: Option<Vec<(i64, i64)>>,
    /// Also of a member that is being filled: no other one answered, and the asker says that rows are lacking.
    #[serde(default)]
    pub(crate) although_behind: bool,
}

impl PartRequest {
    /// The word by which the type of a missing column travels.
    pub(crate) fn word(kind: CastType) -> &'static str {
        match kind {
            CastType::Integer => "integer",
            CastType::Double => "double",
            CastType::Text => "text",
        }
    }

    /// The command by which a node asks for it.
    pub(crate) fn command(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        // Hexadecimal: the text means nothing to the command language.
        json.bytes().fold(String::from("query part "), |mut text, byte| {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
            text
        })
    }

    /// Reads what [`PartRequest::command`] wrote after the command's own words.
    pub(crate) fn parse(hex: &str) -> Result<Self, QueryError> {
        let wrong = |reason: &str| QueryError::Option {
            reason: format!("the part of a query cannot be read: {reason}"),
            hint: "this command is sent by nodes; ask with: sql <dbms> \"<statement>\"".to_owned(),
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(pair).collect();
        let bytes = bytes.ok_or_else(|| wrong("it is not hexadecimal"))?;
        serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))
    }
}

/// The head of a part's rows.
#[derive(Debug)]
pub(crate) struct PartHead {
    engine: anylog_dbms::Engine,
    columns: usize,
    places: u32,
    no_table: bool,
    upto: Option<Vec<(i64, i64)>>,
}

impl QueryService {
    /// Answers a part of another node's query: frames of rows. A part that ends early ends the stream with an error.
    pub(crate) fn part(self: &Arc<Self>, request: PartRequest) -> Chunks {
        let record = self.parts().begin(&request);
        let progress = Arc::clone(record.progress());
        let mode = self.mode();
        let (mut sender, receiver) =
            execute::stream::<PartHead>(tokio::runtime::Handle::current(), progress, mode.max_volume);
        let service = Arc::clone(self);
        let note = Arc::clone(&record);
        // The task ends by itself: at the end of its rows, or when the receiver is dropped.
        let _detached = tokio::spawn(async move {
            let permit = service.pool().parts().acquire_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                let _until_the_last_row = permit;
                let result =
                    if sender_is_gone(&sender) { Ok(()) } else { service.work_part(&request, &note, &mut sender) };
                note.complete(&result);
                sender.finish(result);
            });
            work.await.ok();
        });
        let answer = PartAnswer { receiver, record, until: mode.until(), head: None, refused: None, ended: false };
        Box::pin(stream::unfold(answer, |mut answer| async move { answer.next().await.map(|next| (next, answer)) }))
    }

    fn work_part(
        &self,
        request: &PartRequest,
        record: &PartRecord,
        sender: &mut Sender<PartHead>,
    ) -> Result<(), QueryError> {
        // What the table looks like is asked of the database too.
        let started = Instant::now();
        let database = self.catalog().get(&request.dbms)?;
        let dbms = Arc::clone(database.dbms());
        let engine = dbms.engine();
        let schema = dbms.schema(&request.table)?;
        // What all members have is here too, but another one that says which files these are may not know what this one lost since.
        // A table is described by whoever has it.
        let may_lack = !request.committed || request.upto.is_some();
        let needs_all = may_lack && (schema.is_none() || !request.sql.is_empty());
        if needs_all && !request.although_behind {
            self.refuse_behind()?;
        }
        let Some(schema) = schema else {
            sender.head(PartHead { engine, columns: 0, places: 0, no_table: true, upto: None });
            return Ok(());
        };
        if request.sql.is_empty() {
            sender.head(PartHead { engine, columns: 1, places: 0, no_table: false, upto: None });
            let text = anylog_dbms::schema::create_text(&schema);
            let _one_row = execute::Sink::row(sender, vec![anylog_dbms::SqlValue::Text(text)]);
            return Ok(());
        }
        let upto = match &request.upto {
            // All members have these files, so this one does, as it lacks none.
            Some(upto) if request.committed => Some(upto.clone()),
            _ if request.committed => self.committed_files()?,
            _ => None,
        };
        let constants = self.constants(request, &schema);
        let now = Now { instant: self.node().clock.now(), zone: TimeZone::UTC };
        let scope = Scope { constants: &constants, ..Scope::new(&request.dbms, &schema) };
        let compiled = crate::sql::on_deep_stack(|| self.compile_part(request, &dbms, &scope, &now, upto.as_deref()))?;
        let (select, steps) = compiled;
        let places = u32::try_from(steps.places()).unwrap_or(u32::MAX);
        record.planned(places);
        sender.head(PartHead { engine, columns: select.items.len(), places, no_table: false, upto });
        let again = || part_steps(request, &select, &dbms, &scope);
        let result = execute::run(&dbms, &steps, &again, self.merger(), sender);
        let busy = started.elapsed().saturating_sub(sender.waited());
        record.progress().database.store(u64::try_from(busy.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }

    /// What stands for columns that this node fills, and for those that its table lacks.
    fn constants(&self, request: &PartRequest, schema: &anylog_dbms::TableSchema) -> Vec<(String, Expr)> {
        let text = |value: Option<String>| value.map_or(Expr::Null, Expr::Text);
        let added = request.added.iter().map(|(name, shown)| {
            let value = extend::value(self.node(), shown, &request.dbms, &request.table);
            (name.clone(), Expr::Cast(Box::new(text(value)), CastType::Text))
        });
        let absent = request.columns.iter().filter(|(name, _)| schema.column(name).is_none()).map(|(name, kind)| {
            let kind = match kind.as_str() {
                "integer" => CastType::Integer,
                "double" => CastType::Double,
                _ => CastType::Text,
            };
            (name.clone(), Expr::Cast(Box::new(Expr::Null), kind))
        });
        added.chain(absent).collect()
    }
}

fn sender_is_gone(sender: &Sender<PartHead>) -> bool {
    execute::Sink::closed(sender)
}

/// The rows of a part as frames.
struct PartAnswer {
    receiver: mpsc::Receiver<Result<Piece<PartHead>, QueryError>>,
    record: Arc<PartRecord>,
    until: Option<Until>,
    head: Option<PartHead>,
    /// Why the part is refused, after the frame that says so.
    refused: Option<QueryError>,
    ended: bool,
}

impl PartAnswer {
    async fn next(&mut self) -> Option<Result<bytes::Bytes, CommandError>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error.into()));
        }
        if self.ended {
            return None;
        }
        let piece = tokio::select! {
            biased;
            late = Until::passed(self.until) => {
                self.receiver.close();
                Some(Err(late))
            }
            piece = self.receiver.recv() => piece,
            () = tokio::time::sleep(ALIVE) => return Some(Ok(Frame::Alive.encode())),
        };
        Some(match piece {
            Some(Ok(Piece::Head(head))) => {
                let frame = Frame::Head { engine: head.engine, columns: head.columns, upto: head.upto.clone() };
                self.head = Some(head);
                Ok(frame.encode())
            }
            Some(Ok(Piece::Rows(rows))) => Ok(Frame::Rows(rows).encode()),
            Some(Ok(Piece::End)) => {
                self.ended = true;
                Ok(Frame::End(self.end()).encode())
            }
            Some(Err(error)) => {
                self.ended = true;
                match error {
                    QueryError::Behind { files } => {
                        self.refused = Some(error);
                        Ok(Frame::Behind(files).encode())
                    }
                    error => Err(error.into()),
                }
            }
            None => {
                self.ended = true;
                Err(QueryError::Worker { reason: "it sent no end of the rows".to_owned() }.into())
            }
        })
    }

    fn end(&self) -> PartEnd {
        let progress: &Progress = self.record.progress();
        PartEnd {
            rows: progress.rows.load(Ordering::Relaxed),
            micros: progress.database.load(Ordering::Relaxed),
            places: self.head.as_ref().map_or(0, |head| head.places),
            no_table: self.head.as_ref().is_some_and(|head| head.no_table),
        }
    }
}

impl Drop for PartAnswer {
    fn drop(&mut self) {
        self.record.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_travel_as_commands() {
        let request = PartRequest {
            from: "10.0.0.1:32148".into(),
            id: 7,
            dbms: "d".into(),
            table: "t".into(),
            sql: "select \"a\" from \"t\" where (\"b\" = 'ü\"''x')".into(),
            columns: vec![("a".into(), "text".into())],
            added: vec![("host".into(), "+host".into())],
            loose: true,
            committed: true,
            upto: Some(vec![(7, 12)]),
            although_behind: true,
        };
        let command = request.command();
        assert_eq!(PartRequest::parse(command.strip_prefix("query part ").unwrap()), Ok(request));
        for wrong in ["", "7", "zz", "7b7d", "ä"] {
            assert!(PartRequest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
