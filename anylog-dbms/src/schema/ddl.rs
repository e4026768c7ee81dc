//! CREATE texts: the portable one of a table policy, those that the engines take, and the way back.

mod reader;

use super::{Column, ColumnType, TableSchema};
use crate::{DbmsError, Engine};
pub(crate) use reader::parse_column;
pub use reader::parse_create;

/// Longest name that PostgreSQL keeps.
pub(crate) const MAX_NAME: usize = 63;

/// Words that neither engine takes as a plain name.
const RESERVED: &[&str] = &[
    "add",
    "all",
    "alter",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "autoincrement",
    "begin",
    "between",
    "binary",
    "both",
    "by",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "commit",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "delete",
    "desc",
    "distinct",
    "do",
    "drop",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "if",
    "ilike",
    "in",
    "index",
    "initially",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "nothing",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "over",
    "overlaps",
    "placing",
    "primary",
    "raise",
    "references",
    "returning",
    "right",
    "rollback",
    "select",
    "session_user",
    "set",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "transaction",
    "true",
    "union",
    "unique",
    "update",
    "user",
    "using",
    "values",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// The columns that the node itself fills, in order.
pub(crate) fn bookkeeping() -> Vec<Column> {
    let column = |name: &str, kind, not_null, default: Option<&str>| Column {
        name: name.into(),
        kind,
        not_null,
        default: default.map(str::to_owned),
    };
    vec![
        column("row_id", ColumnType::Serial, false, None),
        column("insert_timestamp", ColumnType::Timestamp, true, Some("now()")),
        column("tsd_name", ColumnType::Char(3), false, None),
        column("tsd_id", ColumnType::Int, false, None),
    ]
}

/// The portable CREATE text of a table policy: one statement for the table, one per index, each ended by `;`. Names that need
/// quotes stand between `|`, as policies write them.
#[must_use]
pub fn create_text(schema: &TableSchema) -> String {
    let columns: Vec<String> = schema.columns.iter().map(portable_column).collect();
    let mut text = format!("CREATE TABLE IF NOT EXISTS {}(  {} );", plain(&schema.name), columns.join(",  "));
    for index in &schema.indexes {
        let columns: Vec<String> = index.columns.iter().map(|column| plain(column)).collect();
        let name = plain(&format!("{}_{}", schema.name, index.suffix));
        text.push_str(&format!(" CREATE INDEX {name} ON {}({});", plain(&schema.name), columns.join(", ")));
    }
    text
}

fn portable_column(column: &Column) -> String {
    let mut text = format!("{} {}", plain(&column.name), column.kind.portable());
    if column.kind == ColumnType::Serial {
        text.push_str(" PRIMARY KEY");
    }
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(" DEFAULT ");
        text.push_str(if default == "now()" { "NOW()" } else { default });
    }
    text
}

/// A name as it is, or between `|` when SQL would read it otherwise.
fn plain(name: &str) -> String {
    let simple = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if simple { name.to_owned() } else { format!("|{}|", name.replace('|', "||")) }
}

/// A name in double quotes, for the engines.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The condition of the rows of a source file.
pub(crate) fn of_file(member: &str, file_id: i64) -> String {
    format!("tsd_name = '{}' AND tsd_id = {file_id}", member.replace('\'', "''"))
}

/// The statements that create a table under a physical name, with its indexes.
pub(crate) fn statements(schema: &TableSchema, physical: &str, engine: Engine, unlogged: bool) -> Vec<String> {
    let unlogged = if unlogged { "UNLOGGED " } else { "" };
    let mut statements =
        vec![format!("CREATE {unlogged}TABLE IF NOT EXISTS {}{}", quoted(physical), column_list(schema, engine))];
    for index in &schema.indexes {
        let columns: Vec<String> = index.columns.iter().map(|column| quoted(column)).collect();
        let name = bounded(&format!("{physical}_{}", index.suffix));
        statements.push(format!(
            "CREATE INDEX IF NOT EXISTS {} ON {}({})",
            quoted(&name),
            quoted(physical),
            columns.join(", ")
        ));
    }
    statements
}

/// The columns of a CREATE TABLE, in parentheses.
pub(crate) fn column_list(schema: &TableSchema, engine: Engine) -> String {
    let columns: Vec<String> = schema.columns.iter().map(|column| engine_column(column, engine)).collect();
    format!("({})", columns.join(", "))
}

fn engine_column(column: &Column, engine: Engine) -> String {
    let name = quoted(&column.name);
    if column.kind == ColumnType::Serial {
        return match engine {
            Engine::Sqlite => format!("{name} INTEGER PRIMARY KEY AUTOINCREMENT"),
            Engine::Postgres => format!("{name} BIGSERIAL PRIMARY KEY"),
        };
    }
    let kind = match (engine, column.kind) {
        // CHAR pads with blanks, CIDR refuses addresses of hosts with a mask: values would not come back as they came.
        (Engine::Postgres, ColumnType::Char(length)) => format!("VARCHAR({length})"),
        (Engine::Postgres, ColumnType::Cidr) => "INET".to_owned(),
        (_, kind) => kind.portable(),
    };
    let mut text = format!("{name} {kind}");
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(" DEFAULT ");
        text.push_str(&engine_default(default, column.kind, engine));
    }
    text
}

fn engine_default(default: &str, kind: ColumnType, engine: Engine) -> String {
    if default != "now()" {
        return default.to_owned();
    }
    let text = match (engine, kind) {
        (Engine::Sqlite, ColumnType::Date) => "(date('now'))",
        (Engine::Sqlite, ColumnType::Time) => "(time('now'))",
        (Engine::Sqlite, _) => "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
        (Engine::Postgres, ColumnType::Date) => "((now() at time zone 'utc')::date)",
        (Engine::Postgres, ColumnType::Time) => "((now() at time zone 'utc')::time)",
        (Engine::Postgres, _) => "(now() at time zone 'utc')",
    };
    text.to_owned()
}

/// A name that PostgreSQL does not cut: the end of a longer one becomes a number made of all of it.
pub(crate) fn bounded(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut end = MAX_NAME - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash:016x}", &name[..end])
}

/// Longest name of a table. The partitions of such a one are [`MAX_PARTITION`] long, and so the names of their files what file
/// systems take.
const MAX_TABLE: usize = 190;

/// Longest name of a partition, to which files add `.dbms` and `.dropped` or `.new-journal`.
const MAX_PARTITION: usize = 236;

/// Refuses a name that cannot be a table or a partition.
pub(crate) fn check_name(name: &str) -> Result<(), DbmsError> {
    let longest = if name.starts_with("par_") { MAX_PARTITION } else { MAX_TABLE };
    let reason = if name.is_empty() {
        "a table name must not be empty".to_owned()
    } else if name.len() > longest {
        format!("the name '{name}' has {} bytes; at most {longest} are possible", name.len())
    } else if name.starts_with('.') || name.contains(['/', '\\', '\0', '"']) {
        format!("the name '{name}' cannot be used for a table")
    } else if name.starts_with("anylog_") || name.starts_with("sqlite_") {
        format!("names such as '{name}' are kept for the node itself")
    } else {
        return Ok(());
    };
    Err(DbmsError::Declaration { reason })
}

#[cfg(test)]
mod tests;
