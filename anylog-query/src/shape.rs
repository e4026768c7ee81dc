//! From an engine's rows to those of the answer: types, casts, zone, extended columns, `limit n per column`.

use std::collections::HashMap;

use anylog_dbms::ColumnType;
use jiff::tz::TimeZone;

use crate::execute::Row;
use crate::sql::bind::Select;
use crate::sql::cast::{self, Cast};
use crate::{Cell, QueryError};

/// Shapes the rows of one answer.
#[derive(Debug)]
pub(crate) struct Shaper {
    columns: Vec<(Option<ColumnType>, Vec<Cast>)>,
    zone: TimeZone,
    extend: Vec<Cell>,
    names: Vec<String>,
    per: Option<Per>,
}

/// `limit n per column`.
#[derive(Debug)]
struct Per {
    index: usize,
    limit: u64,
    seen: HashMap<Option<String>, u64>,
}

impl Shaper {
    pub(crate) fn new(select: &Select, zone: TimeZone, extend: Vec<(String, String)>, names: Vec<String>) -> Self {
        let per = select.per.as_ref().zip(select.limit).and_then(|(per, limit)| {
            let index = names.iter().position(|name| name == per)?;
            Some(Per { index, limit, seen: HashMap::new() })
        });
        Self {
            columns: select.items.iter().map(|item| (item.kind, item.casts.clone())).collect(),
            zone,
            extend: extend.into_iter().map(|(_, value)| Cell::Text(value)).collect(),
            names,
            per,
        }
    }

    /// The types of the columns as they are shown, as far as they are known.
    pub(crate) fn kinds(&self) -> Vec<Option<ColumnType>> {
        let extended = self.extend.iter().map(|_| Some(ColumnType::Varchar));
        // A cast gives what it gives.
        let shown = self.columns.iter().map(|(kind, casts)| kind.filter(|_| casts.is_empty()));
        extended.chain(shown).collect()
    }

    pub(crate) fn rows(&mut self, rows: Vec<Row>) -> Result<Vec<Vec<Cell>>, QueryError> {
        let mut shaped = Vec::with_capacity(rows.len());
        for row in rows {
            let row = self.row(row)?;
            if self.per.as_mut().is_none_or(|per| per.admits(&row)) {
                shaped.push(row);
            }
        }
        Ok(shaped)
    }

    fn row(&self, row: Row) -> Result<Vec<Cell>, QueryError> {
        if self.columns.iter().all(|(_, casts)| casts.is_empty()) {
            return Ok(self.plain(row));
        }
        let typed = row.into_iter().zip(&self.columns).map(|(value, (kind, _))| Cell::typed(value, *kind));
        let cells: Vec<Cell> = self.extend.iter().cloned().chain(typed).collect();
        let mut out = Vec::with_capacity(cells.len());
        for (index, cell) in cells.iter().enumerate() {
            let column = index.checked_sub(self.extend.len()).and_then(|index| self.columns.get(index));
            out.push(match column {
                Some((Some(ColumnType::Timestamp), casts)) if casts.is_empty() => cell.clone().in_zone(&self.zone),
                Some((_, casts)) if !casts.is_empty() => {
                    let row = cast::Row { names: &self.names, cells: &cells };
                    casts.iter().try_fold(cell.clone(), |cell, cast| cast.apply(cell, &row))?
                }
                _ => cell.clone(),
            });
        }
        Ok(out)
    }

    /// A row without casts.
    fn plain(&self, row: Row) -> Vec<Cell> {
        let mut out = Vec::with_capacity(self.extend.len() + row.len());
        out.extend(self.extend.iter().cloned());
        out.extend(row.into_iter().zip(&self.columns).map(|(value, (kind, _))| {
            let cell = Cell::typed(value, *kind);
            if *kind == Some(ColumnType::Timestamp) { cell.in_zone(&self.zone) } else { cell }
        }));
        out
    }
}

impl Per {
    fn admits(&mut self, row: &[Cell]) -> bool {
        let seen = self.seen.entry(row.get(self.index).and_then(Cell::text)).or_insert(0);
        *seen += 1;
        *seen <= self.limit
    }
}
