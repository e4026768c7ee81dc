//! From values to the answer of a `bring`.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::items::{Item, Items, single, text_of};
use super::path::inner;
use super::{Bring, Figure, Pick, Shape};
use crate::reply::Table;
use crate::{CommandError, Reply};

impl Bring {
    /// The answer over these documents, in their order. [`Reply::Empty`] when none gives a value; a count of nothing
    /// is 0.
    ///
    /// # Errors
    /// A column to sort by that does not exist.
    pub fn evaluate(&self, documents: &[&Value]) -> Result<Reply, CommandError> {
        let documents = self.pick(documents);
        if self.figure == Some(Figure::Count) {
            return Ok(self.count(&documents));
        }
        if documents.is_empty() {
            return Ok(Reply::Empty);
        }
        if let Some(figure) = self.figure {
            return Ok(self.extreme(&documents, figure));
        }
        match self.shape {
            Some(Shape::Table) => self.table(&documents),
            _ if self.items.is_empty() => Ok(Reply::Json(self.whole(&documents))),
            Some(Shape::Json) => self.objects(&documents),
            Some(Shape::List) => Ok(self.list(&documents)),
            None => Ok(self.concatenated(&documents)),
        }
    }

    /// The documents that give a value, of those the first or most recent when asked for.
    fn pick<'a>(&self, documents: &[&'a Value]) -> Vec<&'a Value> {
        let gives = |document: &&&Value| self.items.paths() == 0 || self.items.text(document).is_some();
        // A table and `null` show documents without the values too.
        let keep_all = self.pick.is_none() && (self.null || self.shape == Some(Shape::Table));
        let documents: Vec<&Value> = documents.iter().filter(|document| keep_all || gives(document)).copied().collect();
        let Some(pick) = self.pick else { return documents };
        let dated: Vec<(&str, &Value)> =
            documents.iter().filter_map(|document| Some((date(document)?, *document))).collect();
        let picked = match pick {
            // Of equal dates the first in order, or the last.
            Pick::First => {
                dated.iter().min_by_key(|(date, _)| *date).map(|(_, document)| *document).or(documents.first().copied())
            }
            Pick::Recent => {
                dated.iter().max_by_key(|(date, _)| *date).map(|(_, document)| *document).or(documents.last().copied())
            }
        };
        picked.into_iter().collect()
    }

    fn whole(&self, documents: &[&Value]) -> Value {
        let mut seen = HashSet::new();
        let fresh = |document: &&&Value| !self.unique || seen.insert(document.to_string());
        documents.iter().filter(fresh).map(|document| (*document).clone()).collect()
    }

    fn count(&self, documents: &[&Value]) -> Reply {
        let count = if self.unique {
            let text = |document: &&Value| {
                if self.items.is_empty() { Some(document.to_string()) } else { self.items.text(document) }
            };
            documents.iter().filter_map(text).collect::<HashSet<_>>().len()
        } else {
            documents.len()
        };
        if self.shape == Some(Shape::Json) {
            Reply::Json(serde_json::json!([{ "count": count }]))
        } else {
            Reply::Text(count.to_string())
        }
    }

    fn extreme(&self, documents: &[&Value], figure: Figure) -> Reply {
        let values = documents.iter().flat_map(|document| self.items.values(document)).filter(|value| !value.is_null());
        let best = values.map(|value| text_of(&value)).reduce(|best, value| {
            let wins = if figure == Figure::Min { Ordering::Less } else { Ordering::Greater };
            if compare(&value, &best) == wins { value } else { best }
        });
        match (best, self.shape) {
            (None, _) => Reply::Empty,
            (Some(best), Some(Shape::Json)) => {
                let label = self.items.labels().into_iter().next().unwrap_or_default();
                Reply::Json(serde_json::json!([{ label: best }]))
            }
            (Some(best), _) => Reply::Text(best),
        }
    }

    fn concatenated(&self, documents: &[&Value]) -> Reply {
        let outputs = self.ordered(documents.iter().filter_map(|document| self.items.text(document)).collect());
        if outputs.is_empty() {
            return Reply::Empty;
        }
        Reply::Text(outputs.join(self.separator.as_deref().unwrap_or_default()))
    }

    /// Texts without repetitions and sorted, as the modifiers say.
    fn ordered(&self, mut texts: Vec<String>) -> Vec<String> {
        if self.unique {
            let mut seen = HashSet::new();
            texts.retain(|text| seen.insert(text.clone()));
        }
        if self.sort.is_some() {
            texts.sort_by(|a, b| compare(a, b));
        }
        texts
    }

    fn list(&self, documents: &[&Value]) -> Reply {
        let has_literals = self.items.0.iter().any(|item| matches!(item, Item::Literal(_)));
        let mut values: Vec<Value> = if has_literals {
            documents.iter().filter_map(|document| self.items.text(document)).map(Value::from).collect()
        } else {
            documents.iter().flat_map(|document| self.items.cells(document)).flatten().collect()
        };
        if self.unique {
            let mut seen = HashSet::new();
            values.retain(|value| seen.insert(value.to_string()));
        }
        if self.sort.is_some() {
            values.sort_by(|a, b| compare(&text_of(a), &text_of(b)));
        }
        if values.is_empty() { Reply::Empty } else { Reply::Json(Value::Array(values)) }
    }

    fn objects(&self, documents: &[&Value]) -> Result<Reply, CommandError> {
        let labels = self.items.labels();
        let object = |cells: Vec<Option<Value>>| {
            let mut object = Map::new();
            for (label, cell) in labels.iter().zip(cells) {
                match cell {
                    Some(cell) => drop(object.insert(label.clone(), cell)),
                    None if self.null => drop(object.insert(label.clone(), Value::from(""))),
                    None => {}
                }
            }
            Value::Object(object)
        };
        let rows = self.rows(documents, labels.len())?;
        Ok(Reply::Json(rows.into_iter().map(object).collect()))
    }

    fn table(&self, documents: &[&Value]) -> Result<Reply, CommandError> {
        let items = if self.items.is_empty() { Items::members(documents) } else { self.items.clone() };
        let labels = items.labels();
        let shown = Bring { items, ..self.clone() };
        let rows = shown.rows(documents, labels.len())?;
        if rows.iter().all(|row| row.iter().all(Option::is_none)) {
            return Ok(Reply::Empty);
        }
        let mut table = Table::new(labels.iter().map(|label| capitalised(label)));
        if let Some(width) = self.width {
            table = table.max_width(width);
        }
        for row in rows {
            table.push(row.into_iter().map(|cell| cell.as_ref().map(text_of).unwrap_or_default()));
        }
        Ok(Reply::Table(table))
    }

    /// One row of cells per document, without repetitions and sorted, as the modifiers say.
    fn rows(&self, documents: &[&Value], width: usize) -> Result<Vec<Vec<Option<Value>>>, CommandError> {
        let mut rows: Vec<Vec<Option<Value>>> = documents.iter().map(|document| self.items.cells(document)).collect();
        if self.unique {
            let mut seen = HashSet::new();
            rows.retain(|row| seen.insert(format!("{row:?}")));
        }
        let Some(sort) = &self.sort else { return Ok(rows) };
        if let Some(column) = sort.iter().find(|column| **column >= width) {
            return Err(CommandError::structure(format!("There is no column {column} to sort by"))
                .hint(format!("columns are counted from 0 to {}", width.saturating_sub(1))));
        }
        let columns: Vec<usize> = if sort.is_empty() { (0..width).collect() } else { sort.clone() };
        let text = |row: &[Option<Value>], column: usize| {
            row.get(column).and_then(Option::as_ref).map(text_of).unwrap_or_default()
        };
        rows.sort_by(|a, b| {
            let by = |column: &usize| compare(&text(a, *column), &text(b, *column));
            columns.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        Ok(rows)
    }
}

impl Items {
    /// The name of each path's column.
    fn labels(&self) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|item| match item {
                Item::Paths(paths) => paths.first().map(super::path::Path::label),
                Item::Literal(_) => None,
            })
            .collect()
    }

    /// The value of each path.
    fn cells(&self, document: &Value) -> Vec<Option<Value>> {
        self.0
            .iter()
            .filter_map(|item| match item {
                Item::Paths(paths) => Some(single(paths, document)),
                Item::Literal(_) => None,
            })
            .collect()
    }

    /// A path to every member that the documents have, for a table of whole documents.
    fn members(documents: &[&Value]) -> Self {
        use super::path::{Path, Segment};
        let mut seen = HashSet::new();
        let keys = documents.iter().filter_map(|document| inner(document).unwrap_or(document).as_object());
        let mut paths = Vec::new();
        for key in keys.flat_map(Map::keys).filter(|key| seen.insert(key.as_str())) {
            let segment = Segment::Key { key: key.clone(), part: None };
            paths.push(Item::Paths(vec![Path::new(vec![segment])]));
        }
        Self(paths)
    }
}

/// The `date` of a policy, or of a document that has one.
fn date(document: &Value) -> Option<&str> {
    let own = document.get("date").and_then(Value::as_str);
    inner(document).and_then(|inner| inner.get("date")?.as_str()).or(own)
}

/// By number when both are numbers, else by text.
fn compare(a: &str, b: &str) -> Ordering {
    if let (Ok(a), Ok(b)) = (a.parse::<i128>(), b.parse::<i128>()) {
        return a.cmp(&b);
    }
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
