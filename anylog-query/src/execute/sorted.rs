//! Puts rows that come in order from several places into one order, while they stream.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anylog_dbms::{Dbms, SqlValue, Target};

use super::{BATCH_BYTES, BATCH_ROWS, Row, Sink, read_part, size};
use crate::QueryError;
use crate::plan::Key;

/// Pieces that wait at each place.
const AHEAD: usize = 2;

/// Gives the next rows of one place, none at its end.
pub(crate) type Feed<'a> = Box<dyn FnMut() -> Result<Option<Vec<Row>>, QueryError> + 'a>;

/// Which rows of the order are part of the answer, and which of their columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) keys: &'a [Key],
    pub(crate) width: usize,
    pub(crate) skip: u64,
    pub(crate) limit: Option<u64>,
}

/// The order of two rows.
pub(crate) fn compare(keys: &[Key], left: &Row, right: &Row) -> Ordering {
    for key in keys {
        let (Some(left), Some(right)) = (left.get(key.column), right.get(key.column)) else { continue };
        let order = compare_by(key, left, right);
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The order of two values of a key.
pub(super) fn compare_by(key: &Key, left: &SqlValue, right: &SqlValue) -> Ordering {
    let null = if key.nulls_first { Ordering::Less } else { Ordering::Greater };
    match (left, right) {
        (SqlValue::Null, SqlValue::Null) => Ordering::Equal,
        (SqlValue::Null, _) => null,
        (_, SqlValue::Null) => null.reverse(),
        (left, right) if key.descending => compare_values(right, left),
        (left, right) => compare_values(left, right),
    }
}

/// SQLite's order: numbers before texts, texts by their bytes.
pub(super) fn compare_values(left: &SqlValue, right: &SqlValue) -> Ordering {
    match (left, right) {
        (SqlValue::Text(left), SqlValue::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (SqlValue::Text(_), _) => Ordering::Greater,
        (_, SqlValue::Text(_)) => Ordering::Less,
        (left, right) => match (whole(left), whole(right)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => number(left).total_cmp(&number(right)),
        },
    }
}

fn whole(value: &SqlValue) -> Option<i64> {
    match value {
        SqlValue::Int(value) => Some(*value),
        SqlValue::Bool(value) => Some(i64::from(*value)),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "only compared with floats")]
fn number(value: &SqlValue) -> f64 {
    match value {
        // Zero has one place in the order, whatever its sign.
        SqlValue::Float(value) => *value + 0.0,
        other => whole(other).unwrap_or(0) as f64,
    }
}

/// The next row of a place; the greatest in the heap is the first in the order.
struct Head<'a> {
    row: Row,
    place: usize,
    keys: &'a [Key],
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.keys, &other.row, &self.row).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

/// Merges the rows of all places.
pub(crate) fn merge(feeds: Vec<Feed<'_>>, window: Window<'_>, sink: &mut dyn Sink) -> Result<(), QueryError> {
    let mut places: Vec<(Feed<'_>, std::vec::IntoIter<Row>)> =
        feeds.into_iter().map(|feed| (feed, Vec::new().into_iter())).collect();
    let mut heads = BinaryHeap::with_capacity(places.len());
    for place in 0..places.len() {
        heads.extend(next(&mut places, place)?.map(|row| Head { row, place, keys: window.keys }));
    }
    let (mut skip, mut left) = (window.skip, window.limit);
    while left != Some(0) {
        let Some(Head { mut row, place, keys }) = heads.pop() else { break };
        heads.extend(next(&mut places, place)?.map(|row| Head { row, place, keys }));
        if skip > 0 {
            skip -= 1;
            continue;
        }
        left = left.map(|left| left - 1);
        row.truncate(window.width);
        if sink.row(row).is_break() {
            break;
        }
    }
    Ok(())
}

fn next(places: &mut [(Feed<'_>, std::vec::IntoIter<Row>)], place: usize) -> Result<Option<Row>, QueryError> {
    let Some((feed, rows)) = places.get_mut(place) else { return Ok(None) };
    loop {
        if let Some(row) = rows.next() {
            return Ok(Some(row));
        }
        match feed()? {
            Some(more) => *rows = more.into_iter(),
            None => return Ok(None),
        }
    }
}

/// Reads all places of a node side by side and merges their rows.
pub(super) fn run(
    dbms: &Arc<dyn Dbms>,
    parts: &[(Target, String)],
    window: Window<'_>,
    sink: &mut dyn Sink,
) -> Result<(), QueryError> {
    std::thread::scope(|scope| {
        let mut feeds: Vec<Feed<'_>> = Vec::with_capacity(parts.len());
        for (target, sql) in parts {
            let (sender, rows) = sync_channel::<Result<Vec<Row>, QueryError>>(AHEAD);
            scope.spawn(move || {
                let mut batch = Vec::new();
                let mut bytes = 0;
                let result = read_part(dbms, target, sql, &|| true, &mut |row| {
                    bytes += size(&row);
                    batch.push(row);
                    if batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
                        return ControlFlow::Continue(());
                    }
                    bytes = 0;
                    // Nobody wants the rows any more once the receiver is gone.
                    match sender.send(Ok(std::mem::take(&mut batch))) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                });
                sender.send(result.map(|()| batch)).ok();
            });
            feeds.push(Box::new(move || rows.recv().ok().transpose()));
        }
        merge(feeds, window, sink)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::Kept;

    fn key(column: usize, descending: bool) -> Key {
        Key { column, descending, nulls_first: !descending, text: false }
    }

    #[test]
    fn rows_of_all_places_are_in_one_order() {
        let int = |values: &[i64]| values.iter().map(|n| vec![SqlValue::Int(*n), SqlValue::Null]).collect::<Vec<Row>>();
        let pieces = [vec![int(&[1, 4]), int(&[9])], vec![], vec![int(&[2]), vec![], int(&[4, 5])]];
        let feeds = pieces.map(|pieces| {
            let mut pieces = pieces.into_iter();
            Box::new(move || Ok(pieces.next())) as Feed<'_>
        });
        let mut kept = Kept::default();
        let window = Window { keys: &[key(0, false)], width: 1, skip: 1, limit: Some(4) };
        merge(feeds.into(), window, &mut kept).unwrap();
        assert_eq!(kept.0, [2, 4, 4, 5].map(|n| vec![SqlValue::Int(n)]));
    }

    #[test]
    fn values_have_the_order_of_sqlite() {
        let values = [
            SqlValue::Null,
            SqlValue::Float(-1.5),
            SqlValue::Int(0),
            SqlValue::Float(0.5),
            SqlValue::Bool(true),
            SqlValue::Int(i64::MAX - 1),
            SqlValue::Int(i64::MAX),
            SqlValue::Text("B".into()),
            SqlValue::Text("a".into()),
            SqlValue::Text("ä".into()),
        ];
        for descending in [false, true] {
            for (at, value) in values.iter().enumerate() {
                for (other_at, other) in values.iter().enumerate() {
                    let expected = if descending { other_at.cmp(&at) } else { at.cmp(&other_at) };
                    let found = compare(&[key(0, descending)], &vec![value.clone()], &vec![other.clone()]);
                    assert_eq!(found, expected, "{value:?} {other:?} {descending}");
                }
            }
        }
    }
}
