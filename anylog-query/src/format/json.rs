//! Rows as JSON objects.

use crate::Cell;

/// Appends one row; `between` separates its fields. The names are in JSON quotes.
pub(super) fn object(names: &[String], row: &[Cell], between: &str, out: &mut String) {
    out.push('{');
    for (index, (name, cell)) in names.iter().zip(row).enumerate() {
        if index > 0 {
            out.push_str(between);
        }
        out.push_str(name);
        out.push(':');
        cell.write_json(out);
    }
    out.push('}');
}
