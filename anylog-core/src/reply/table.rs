//! Tables in the documented text layout, which clients parse: they find columns by the `|` of the rule line.
//!
//! Lines end `\r\n`; the text starts with `\r\n`; an optional title line; a heading line, each heading padded to the
//! column's width and one blank; a rule of `-` with `|` behind each column; rows with cells padded to the width and `|`
//! behind each. Numbers are right-justified. A heading that holds a new line takes two lines. A cell longer than the
//! widest allowed wraps onto further lines.

#[cfg(test)]
mod tests;

use std::fmt;

/// Cells longer than this wrap, unless [`Table::max_width`] says otherwise (`set output table width`).
pub const DEFAULT_MAX_WIDTH: usize = 100;

/// A table to be shown as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    title: Option<String>,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    indent: usize,
    max_width: usize,
}

impl Table {
    /// An empty table with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self {
            title: None,
            headings: headings.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            indent: 0,
            max_width: DEFAULT_MAX_WIDTH,
        }
    }

    /// Puts a title line above the headings.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Indents every line by this many blanks.
    #[must_use]
    pub fn indent(mut self, blanks: usize) -> Self {
        self.indent = blanks;
        self
    }

    /// Cells longer than this wrap.
    #[must_use]
    pub fn max_width(mut self, width: usize) -> Self {
        self.max_width = width.max(1);
        self
    }

    /// Appends a row; missing cells are empty, cells beyond the headings are dropped.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .map(|cell| cell.into().replace(['\r', '\n', '\t'], " "))
            .take(self.headings.len())
            .collect();
        row.resize(self.headings.len(), String::new());
        self.rows.push(row);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as a JSON list of objects, keyed by heading.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.rows
            .iter()
            .map(|row| {
                let object: serde_json::Map<String, serde_json::Value> = self
                    .headings
                    .iter()
                    .zip(row)
                    .map(|(heading, cell)| (heading.replace('\n', " "), serde_json::Value::from(cell.as_str())))
                    .collect();
                serde_json::Value::Object(object)
            })
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<(&str, &str)> =
            self.headings.iter().map(|heading| heading.split_once('\n').unwrap_or((heading.as_str(), ""))).collect();
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(column, (first, second))| {
                let cells = self.rows.iter().map(|row| width(&row[column]).min(self.max_width));
                // The new line counts as a character of the second line: clients know that width.
                let second = if second.is_empty() { 0 } else { width(second) + 1 };
                cells.chain([width(first), second]).max().unwrap_or(0)
            })
            .collect();
        let margin = " ".repeat(self.indent);
        f.write_str("\r\n")?;
        if let Some(title) = &self.title {
            write!(f, "{margin}{title}\r\n")?;
        }
        let two_lines = headings.iter().any(|(_, second)| !second.is_empty());
        for line in 0..=usize::from(two_lines) {
            f.write_str(&margin)?;
            for ((first, second), width) in headings.iter().zip(&widths) {
                write!(f, "{:<width$} ", if line == 0 { first } else { second })?;
            }
            f.write_str("\r\n")?;
        }
        f.write_str(&margin)?;
        for width in &widths {
            write!(f, "{}|", "-".repeat(*width))?;
        }
        f.write_str("\r\n")?;
        for row in &self.rows {
            let wrapped: Vec<Vec<String>> = row.iter().map(|cell| wrap(cell, self.max_width)).collect();
            for line in 0..wrapped.iter().map(Vec::len).max().unwrap_or(1) {
                f.write_str(&margin)?;
                for (cell, width) in wrapped.iter().zip(&widths) {
                    let text = cell.get(line).map_or("", String::as_str);
                    if is_number(text) {
                        write!(f, "{text:>width$}|")?;
                    } else {
                        write!(f, "{text:<width$}|")?;
                    }
                }
                f.write_str("\r\n")?;
            }
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn wrap(cell: &str, max: usize) -> Vec<String> {
    if width(cell) <= max {
        return vec![cell.to_owned()];
    }
    let chars: Vec<char> = cell.chars().collect();
    chars.chunks(max).map(|chunk| chunk.iter().collect()).collect()
}

/// Numbers, and digits with thousands commas under 20 characters, are shown right-justified.
fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
        || (text.len() < 20
            && text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_digit() || b == b','))
}
