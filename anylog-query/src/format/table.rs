//! Rows as a table, a page at a time, each page with its own widths.

use crate::Cell;

/// Rows of a page.
const PAGE: usize = 25;

/// A table in pages.
#[derive(Debug)]
pub(super) struct Pages {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Pages {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { names, rows: Vec::new() }
    }

    /// Takes a row and writes the page when it is full.
    pub(super) fn row(&mut self, row: Vec<Cell>, out: &mut String) {
        let text = |cell: Cell| cell.text().unwrap_or_else(|| "null".to_owned()).replace(['\r', '\n', '\t'], " ");
        self.rows.push(row.into_iter().map(text).collect());
        if self.rows.len() == PAGE {
            self.flush(out);
        }
    }

    /// Writes the rows that are left.
    pub(super) fn flush(&mut self, out: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        let last = self.names.len().saturating_sub(1);
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .names
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell));
                cells.chain([length(name)]).max().unwrap_or(0)
            })
            .collect();
        out.push('\n');
        for (column, (name, width)) in self.names.iter().zip(&widths).enumerate() {
            if column == last { out.push_str(name) } else { out.push_str(&format!("{name:<width$} ")) }
        }
        out.push('\n');
        for width in &widths {
            out.push_str(&"-".repeat(*width));
            out.push(' ');
        }
        out.push('\n');
        for row in &rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match (column == last, is_number(cell)) {
                    (true, true) => out.push_str(&format!("{cell:>width$}")),
                    (true, false) => out.push_str(cell),
                    (false, true) => out.push_str(&format!("{cell:>width$} ")),
                    (false, false) => out.push_str(&format!("{cell:<width$} ")),
                }
            }
            out.push('\n');
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}
