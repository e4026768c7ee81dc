//! What the server's catalogue knows of a table, read back as a schema.

use crate::schema::{Index, parse_create};
use crate::{Column, ColumnType, SqlValue, TableSchema};

/// All tables but the node's own bookkeeping, sorted as bytes. A name that was shortened stands in the comment on the table.
pub(super) const TABLES: &str = "SELECT coalesce(substring(d.description from '^anylog:(.*)$'), c.relname::text) COLLATE \"C\" AS name \
    FROM pg_class c LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0 \
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname NOT LIKE 'anylog\\_%' ORDER BY name";

/// The same of those whose names lie between two.
pub(super) const PARTITIONS: &str = "SELECT coalesce(substring(d.description from '^anylog:(.*)$'), c.relname::text) COLLATE \"C\" AS name \
    FROM pg_class c LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0 \
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname >= ?::name AND c.relname < ?::name \
    ORDER BY name";

/// The columns of a table.
pub(super) const COLUMNS: &str = "SELECT coalesce(substring(n.description from '^anylog:(.*)$'), a.attname::text), \
    format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) \
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
    LEFT JOIN pg_description n ON n.objoid = a.attrelid AND n.classoid = 'pg_class'::regclass AND n.objsubid = a.attnum \
    WHERE a.attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?)) AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attnum";

/// The columns of a table and the numbers of their types; of a domain, the type that it is made of.
pub(super) const TYPES: &str = "SELECT a.attname::text, (CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END)::int8 \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    WHERE a.attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?)) AND a.attnum > 0 AND NOT a.attisdropped";

/// The columns of the indexes of a table, but of its key.
pub(super) const INDEXES: &str = "SELECT i.relname::text, coalesce(substring(n.description from '^anylog:(.*)$'), a.attname::text) \
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
    CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum \
    LEFT JOIN pg_description n ON n.objoid = a.attrelid AND n.classoid = 'pg_class'::regclass AND n.objsubid = a.attnum \
    WHERE x.indrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?)) AND NOT x.indisprimary \
    ORDER BY i.oid, k.place";

fn text(value: Option<&SqlValue>) -> String {
    match value {
        Some(SqlValue::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

/// The schema from the rows of [`COLUMNS`] and [`INDEXES`]; none without columns.
pub(super) fn schema(table: &str, columns: &[Vec<SqlValue>], indexes: &[Vec<SqlValue>]) -> Option<TableSchema> {
    if columns.is_empty() {
        return None;
    }
    let mut found: Vec<Index> = Vec::new();
    for row in indexes {
        let (name, column) = (text(row.first()), text(row.get(1)));
        let suffix = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_')).unwrap_or(&name).to_owned();
        match found.iter_mut().find(|index| index.suffix == suffix) {
            Some(index) => index.columns.push(column),
            None => found.push(Index { suffix, columns: vec![column] }),
        }
    }
    let columns = columns.iter().map(|row| column(row)).collect();
    Some(TableSchema { name: table.to_owned(), columns, indexes: found })
}

/// A row of [`COLUMNS`]: name, type, not null, default. A type that is not known reads as text.
fn column(row: &[SqlValue]) -> Column {
    let (name, declared, default) = (text(row.first()), text(row.get(1)), text(row.get(3)));
    let length = declared.strip_prefix("character varying(").and_then(|rest| rest.strip_suffix(')'));
    let kind = match length.and_then(|length| length.parse().ok()) {
        Some(length) => ColumnType::Char(length),
        None => ColumnType::parse(&declared).unwrap_or(ColumnType::Varchar),
    };
    if default.starts_with("nextval(") {
        return Column { name, kind: ColumnType::Serial, not_null: false, default: None };
    }
    let not_null = row.get(2) == Some(&SqlValue::Bool(true));
    Column { name, kind, not_null, default: known_default(kind, &default) }
}

/// The default as the schema writes it, by the reader of CREATE texts.
fn known_default(kind: ColumnType, default: &str) -> Option<String> {
    if default.is_empty() {
        return None;
    }
    let create = format!("create table t(c {} default {default})", kind.portable());
    parse_create(&create).ok()?.column("c")?.default.clone()
}
