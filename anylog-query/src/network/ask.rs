//! Asks one of the nodes that hold a part of the data, and the next one when it fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{CommandError, Status};
use anylog_dbms::Engine;
use anylog_net::peers::StreamDeadlines;
use anylog_net::{PeerError, PeerRequest};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::choose::{Candidate, Slot};
use super::part::PartRequest;
use super::sent::Sent;
use super::wire::{Decoder, Frame, PartEnd, WireError};
use crate::execute::Row;
use crate::history::NodeNote;
use crate::{QueryError, QueryService};

/// A node says that it is alive every second: one that is silent for longer is given up. The first answer takes opening a connection.
const FIRST: Duration = Duration::from_secs(6);
const NEXT: Duration = Duration::from_secs(10);

/// What came of a part.
#[derive(Debug)]
pub(super) enum Event {
    /// The node began to answer.
    Begun(Engine),
    /// Some of its rows.
    Rows(Vec<Row>),
    /// The node failed. Another one gives the rows from the start, or those that did not come, as [`Asking::again`] says.
    Again,
    /// The node that began lacks files of its cluster, and no other one answered.
    Lacking(Missing),
    /// All rows came; the address of the node that answered.
    Done { address: String, end: PartEnd },
    /// None of the nodes answered for the part, or the one that did ended early.
    Missing(Missing),
    /// The query cannot be answered.
    Failed(QueryError),
}

/// A part that is missing: its name, and why each node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) name: String,
    pub(super) reasons: Vec<(String, CommandError)>,
}

/// What all parts of a query share.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) service: Arc<QueryService>,
    /// How long no row may come.
    pub(super) timeout: Option<Duration>,
    /// When the query must be done.
    pub(super) until: Option<(Instant, Duration)>,
    /// What a node gives that takes a part over.
    pub(super) again: Again,
}

/// What a node gives that takes over the part of one that failed.
#[derive(Debug)]
pub(super) enum Again {
    /// All rows: those that came are forgotten.
    FromTheStart,
    /// The rows that did not come. These columns tell rows apart.
    WithoutRowsThatCame(Vec<usize>),
}

/// A failed attempt.
struct Failed {
    error: CommandError,
    /// The node cannot be reached or is silent.
    silent: bool,
    /// It refused because it is being filled: how many files it lacks.
    behind: Option<u64>,
}

impl Failed {
    fn new(error: CommandError) -> Self {
        Self { error, silent: false, behind: None }
    }

    /// The statement itself is refused: another node would refuse it too.
    fn is_final(&self) -> bool {
        matches!(
            self.error.status,
            Status::SQL_PARSE
                | Status::SQL_SELECT
                | Status::COMMAND_STRUCTURE
                | Status::VOLUME_EXCEEDED
                | Status::TIME_EXCEEDED
        )
    }
}

/// Asks for a part until a node answered or none is left; ends when nobody wants the rows any more.
pub(super) async fn ask(
    asking: Arc<Asking>,
    slot: Slot,
    request: PartRequest,
    note: NodeNote,
    out: mpsc::Sender<(usize, Event)>,
    index: usize,
) {
    let attempts = attempts(&asking, &slot, &request, &note, &out, index);
    let event = tokio::select! {
        () = out.closed() => return note.ended("Stopped"),
        event = attempts => event,
    };
    note.ended(&event_text(&event));
    out.send((index, event)).await.ok();
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Done { end, .. } if end.rows == 0 => "Empty set".to_owned(),
        Event::Missing(missing) => match missing.reasons.last() {
            Some((_, error)) => format!("Error: {}", error.message),
            None => "Error: no active operator".to_owned(),
        },
        Event::Failed(error) => format!("Error: {error}"),
        _ => "Completed".to_owned(),
    }
}

async fn attempts(
    asking: &Asking,
    slot: &Slot,
    request: &PartRequest,
    note: &NodeNote,
    out: &mpsc::Sender<(usize, Event)>,
    index: usize,
) -> Event {
    let mut missing = Missing { name: slot.name.clone(), reasons: Vec::new() };
    let columns = match &asking.again {
        Again::FromTheStart => Vec::new(),
        Again::WithoutRowsThatCame(columns) => columns.clone(),
    };
    let mut sent = Sent::new(columns, asking.service.merger().held());
    let mut request = request.clone();
    let mut turns: VecDeque<Turn> =
        slot.candidates.iter().map(|candidate| Turn { candidate: candidate.clone(), lacking: None }).collect();
    let mut behind = Behind::default();
    while let Some(turn) = turns.pop_front() {
        let candidate = &turn.candidate;
        request.although_behind = turn.lacking.is_some();
        let lacking = turn.lacking.as_ref().map(|error| Missing {
            name: slot.name.clone(),
            reasons: vec![(candidate.address.clone(), error.clone())],
        });
        note.asked(&candidate.address);
        let is_last = turns.is_empty() && behind.members.is_empty();
        let way = Way { note, out, index, is_last, lacking: lacking.as_ref() };
        let attempt = attempt(asking, candidate, &mut request, &mut sent, way);
        let result = match asking.until {
            None => attempt.await,
            Some((until, after)) => match tokio::time::timeout_at(until, attempt).await {
                Ok(result) => result,
                Err(_) => return Event::Failed(QueryError::MaxTime { seconds: after.as_secs() }),
            },
        };
        let failed = match result {
            Ok(end) => {
                report(asking, candidate, true);
                return Event::Done { address: candidate.address.clone(), end };
            }
            Err(failed) => failed,
        };
        if failed.silent {
            report(asking, candidate, false);
        }
        tracing::info!(node = %candidate.address, error = %failed.error, "A node did not answer its part of a query");
        if failed.is_final() {
            return Event::Failed(QueryError::Peer { address: candidate.address.clone(), error: failed.error });
        }
        if turn.lacking.is_none() {
            behind.note(candidate, &failed);
        }
        missing.reasons.push((candidate.address.clone(), failed.error));
        if turns.is_empty() {
            turns = behind.turns();
        }
        if sent.any() && !turns.is_empty() {
            let known = matches!(asking.again, Again::FromTheStart) || sent.again();
            if !known || out.send((index, Event::Again)).await.is_err() {
                break;
            }
        }
    }
    Event::Missing(missing)
}

/// A node that is asked, also one that refused because it lacks files: with its refusal.
struct Turn {
    candidate: Candidate,
    lacking: Option<CommandError>,
}

/// The members that refused because they lack files: when no other one can answer, they are asked again (QRY-2).
#[derive(Default)]
struct Behind {
    members: Vec<(u64, Turn)>,
    /// One that was reached failed for another reason.
    failed: bool,
}

impl Behind {
    fn note(&mut self, candidate: &Candidate, failed: &Failed) {
        match failed.behind {
            Some(files) => {
                let turn = Turn { candidate: candidate.clone(), lacking: Some(failed.error.clone()) };
                self.members.push((files, turn));
            }
            None => self.failed |= !failed.silent,
        }
    }

    /// Once: those that are asked again, first the one that lacks least.
    fn turns(&mut self) -> VecDeque<Turn> {
        let mut members = std::mem::take(&mut self.members);
        if self.failed {
            return VecDeque::new();
        }
        // 0: it does not know how many.
        members.sort_by_key(|(files, _)| files.wrapping_sub(1));
        members.into_iter().map(|(_, turn)| turn).collect()
    }
}

/// What is known of this node itself needs no report.
fn report(asking: &Asking, candidate: &Candidate, active: bool) {
    if candidate.reach.is_some() {
        asking.service.ledger().report_node(&candidate.address, active);
    }
}

/// Where what comes of a part goes.
#[derive(Clone, Copy)]
struct Way<'a> {
    note: &'a NodeNote,
    out: &'a mpsc::Sender<(usize, Event)>,
    index: usize,
    /// No other node could take over.
    is_last: bool,
    /// What the node lacks.
    lacking: Option<&'a Missing>,
}

impl Way<'_> {
    async fn send(&self, event: Event) -> Result<(), Failed> {
        let gone = |_| Failed::new(CommandError::process("nobody wants the rows"));
        self.out.send((self.index, event)).await.map_err(gone)
    }
}

async fn attempt(
    asking: &Asking,
    candidate: &Candidate,
    request: &mut PartRequest,
    sent: &mut Sent,
    way: Way<'_>,
) -> Result<PartEnd, Failed> {
    let mut pieces = pieces(asking, candidate, request).await?;
    let mut decoder = Decoder::default();
    let mut last_row = Instant::now();
    let mut behind = None;
    let streams = matches!(asking.again, Again::WithoutRowsThatCame(_));
    loop {
        while let Some(frame) = decoder.frame().map_err(|error| broken(&error))? {
            match frame {
                Frame::Head { engine, upto, .. } => {
                    if streams && !sent.begins(engine) {
                        return Err(broken(&"it has another database engine than the node that it would replace"));
                    }
                    // A node that takes over answers for the same files.
                    request.upto = upto.or(request.upto.take());
                    way.send(Event::Begun(engine)).await?;
                    if let Some(lacking) = way.lacking {
                        way.send(Event::Lacking(lacking.clone())).await?;
                    }
                }
                Frame::Behind(files) => behind = Some(files),
                Frame::Alive => {}
                Frame::Rows(rows) => {
                    last_row = Instant::now();
                    way.note.rows(rows.len() as u64);
                    let rows = sent.admit(rows, streams && !way.is_last);
                    if !rows.is_empty() {
                        way.send(Event::Rows(rows)).await?;
                    }
                }
                Frame::End(end) => {
                    way.note.database(end.places, end.micros);
                    return Ok(end);
                }
            }
        }
        if asking.timeout.is_some_and(|timeout| last_row.elapsed() > timeout) {
            let after = asking.timeout.unwrap_or_default();
            let error = PeerError::TimeOut { address: candidate.address.clone(), after };
            return Err(Failed::new(error.into()));
        }
        match pieces.next().await {
            Some(Ok(piece)) => decoder.push(&piece),
            Some(Err(failed)) => return Err(Failed { behind, ..failed }),
            None => return Err(broken(&"the rows ended without an end")),
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failed {
    Failed::new(CommandError::new(Status::NETWORK, error.to_string()))
}

impl From<WireError> for CommandError {
    fn from(error: WireError) -> Self {
        CommandError::new(Status::NETWORK, error.to_string())
    }
}

/// The bytes that a node, or this one, answers with.
async fn pieces(
    asking: &Asking,
    candidate: &Candidate,
    request: &PartRequest,
) -> Result<BoxStream<'static, Result<Bytes, Failed>>, Failed> {
    let Some(reach) = &candidate.reach else {
        return Ok(asking.service.part(request.clone()).map(move |piece| piece.map_err(Failed::new)).boxed());
    };
    let failed = |error: PeerError| Failed {
        silent: matches!(error, PeerError::Unreachable { .. } | PeerError::TimeOut { .. }),
        error: match error {
            PeerError::Refused { error, .. } => error,
            other => other.into(),
        },
        behind: None,
    };
    let command = PeerRequest::Command { text: request.command() };
    let within =
        |limit: Duration| asking.timeout.map_or(limit, |timeout| limit.min(timeout.max(Duration::from_secs(1))));
    let deadlines = StreamDeadlines { first: within(FIRST), next: NEXT };
    let pieces = asking.service.peers().stream(reach, command, deadlines).await.map_err(failed)?;
    Ok(pieces.map(move |piece| piece.map_err(failed)).boxed())
}
