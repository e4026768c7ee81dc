//! Names that are longer than the server takes.
//!
//! PostgreSQL cuts names after 63 bytes, and names of partitions are easily longer. Such a name is shortened to its beginning and a
//! number made of all of it, wherever it is sent; the whole one is kept as the comment on what it names, and read back from there.

use std::borrow::Cow;

use crate::TableSchema;
use crate::schema::ddl::{MAX_NAME, bounded, quoted};

/// What the comment on something with a shortened name begins with; see the queries of [`super::describe`].
const MARK: &str = "anylog:";

/// A name as the server has it.
pub(super) fn at_server(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME { Cow::Borrowed(name) } else { Cow::Owned(bounded(name)) }
}

/// A statement with its quoted names as the server has them. Text between single quotes stays.
pub(super) fn shortened(sql: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut quote = None;
    for (at, byte) in sql.bytes().enumerate() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some((byte, at)),
            // A doubled quote ends one and begins the next; together they are longer than the name, which is enough to be shortened.
            (Some((open, start)), close) if close == open => {
                let name = &sql[start + 1..at];
                if open == b'"' && name.len() > MAX_NAME {
                    out.push_str(&sql[copied..start]);
                    out.push_str(&quoted(&at_server(name)));
                    copied = at + 1;
                }
                quote = None;
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(sql);
    }
    out.push_str(&sql[copied..]);
    Cow::Owned(out)
}

/// The statements that keep the whole names of a table and its columns, where they are shortened.
pub(super) fn comments(schema: &TableSchema, physical: &str) -> Vec<String> {
    let literal = |name: &str| format!("'{MARK}{}'", name.replace('\'', "''"));
    let mut comments = Vec::new();
    if physical.len() > MAX_NAME {
        comments.push(format!("COMMENT ON TABLE {} IS {}", quoted(physical), literal(physical)));
    }
    for column in schema.columns.iter().filter(|column| column.name.len() > MAX_NAME) {
        let name = &column.name;
        comments.push(format!("COMMENT ON COLUMN {}.{} IS {}", quoted(physical), quoted(name), literal(name)));
    }
    comments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened_where_they_are_names() {
        let long = format!("par_{}_2026_01_01_d01_insert_timestamp", "x".repeat(40));
        let short = at_server(&long).into_owned();
        assert!(short.len() <= MAX_NAME && long.starts_with(&short[..40]));
        let sql = |name: &str| {
            format!("select \"a\", 'it''s \"{long}\"' from \"{name}\" union all select 1 from \"{name}\" t")
        };
        assert_eq!(shortened(&sql(&long)), sql(&short));
        for whole in ["select 1", "", "'", "\"", "select \"größe\" from \"t\"", "'\"' \"a\" '\"'"] {
            assert!(matches!(shortened(whole), Cow::Borrowed(same) if same == whole));
        }
        let close = long.replace("2026_01_01", "2026_01_02");
        assert_ne!(at_server(&close), short);
    }
}
