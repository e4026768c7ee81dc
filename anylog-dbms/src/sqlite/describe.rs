//! What the engine knows of a table, read back as a schema.

use std::ops::ControlFlow;

use crate::dbms::Visit;
use crate::schema::{Index, parse_create};
use crate::{Column, ColumnType, DbmsError, SqlValue, TableSchema};

/// Runs a SELECT.
pub(super) type Select<'a> = dyn FnMut(&str, Visit<'_>) -> Result<(), DbmsError> + 'a;

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn text(value: Option<&SqlValue>) -> String {
    match value {
        Some(SqlValue::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn flag(value: Option<&SqlValue>) -> bool {
    matches!(value, Some(SqlValue::Int(value)) if *value != 0)
}

fn collect(select: &mut Select<'_>, sql: &str) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
    let mut rows = Vec::new();
    select(sql, &mut |_, row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// The tables, without those of the engine and of the node's own bookkeeping, sorted.
pub(super) fn table_names(select: &mut Select<'_>) -> Result<Vec<String>, DbmsError> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
               AND name NOT LIKE 'anylog\\_%' ESCAPE '\\' ORDER BY name";
    Ok(collect(select, sql)?.iter().map(|row| text(row.first())).collect())
}

/// The columns and indexes of a table; none when it is not there.
pub(super) fn schema(table: &str, select: &mut Select<'_>) -> Result<Option<TableSchema>, DbmsError> {
    let table_text = literal(table);
    let sql = format!("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info({table_text})");
    let columns: Vec<Column> = collect(select, &sql)?.iter().map(|row| column(row)).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let sql = format!(
        "SELECT l.name, i.name FROM pragma_index_list({table_text}) l, pragma_index_info(l.name) i \
         WHERE l.origin = 'c' ORDER BY l.seq DESC, i.seqno"
    );
    let mut indexes: Vec<Index> = Vec::new();
    for row in collect(select, &sql)? {
        let (name, column) = (text(row.first()), text(row.get(1)));
        let suffix = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_')).unwrap_or(&name).to_owned();
        match indexes.iter_mut().find(|index| index.suffix == suffix) {
            Some(index) => index.columns.push(column),
            None => indexes.push(Index { suffix, columns: vec![column] }),
        }
    }
    Ok(Some(TableSchema { name: table.to_owned(), columns, indexes }))
}

/// A row of `table_info`: name, type, not null, default, key. A type of a foreign file that is not known reads as text.
fn column(row: &[SqlValue]) -> Column {
    let (name, declared, default) = (text(row.first()), text(row.get(1)), text(row.get(3)));
    let key = flag(row.get(4));
    let kind = ColumnType::parse(&declared).unwrap_or(ColumnType::Varchar);
    let serial = key && declared.eq_ignore_ascii_case("integer");
    let kind = if serial { ColumnType::Serial } else { kind };
    Column { name, kind, not_null: flag(row.get(2)), default: known_default(kind, &default) }
}

/// The default as the schema writes it, by the reader of CREATE texts.
fn known_default(kind: ColumnType, default: &str) -> Option<String> {
    if default.is_empty() {
        return None;
    }
    let create = format!("create table t(c {} default {default})", kind.portable());
    parse_create(&create).ok()?.column("c")?.default.clone()
}
