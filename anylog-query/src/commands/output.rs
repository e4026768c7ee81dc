//! Where the rows of an answer go when they are not the reply: a file, a table.

use std::path::PathBuf;
use std::sync::Arc;

use anylog_core::{Access, CommandError, CommandResult, Options, Reply, Session, Status};
use anylog_dbms::{Catalog, Column, ColumnType, SqlValue, TableSchema, Target};
use tokio::io::AsyncWriteExt;

use crate::format::Writer;
use crate::service::Answer;
use crate::{Cell, QueryError};

/// The database of result tables.
const SYSTEM_QUERY: &str = "system_query";

/// Where rows can go.
const PLACES: &str = "rows can go to: dest = stdout or rest (the reply), dest = file and file = <path>, \
                      dest = <dbms>.<table> or table = <name> (a table of system_query)";

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// They are the reply.
    Reply,
    /// A file.
    File(PathBuf),
    /// A table of a database, made anew or added to.
    Table { dbms: String, name: String, anew: bool },
}

impl Output {
    /// Reads the options `dest`, `file`, `table` and `drop`.
    pub(super) fn read(session: &Session, options: &Options) -> Result<Self, CommandError> {
        let dest = options.text("dest").map(|dest| dest.to_lowercase());
        let (file, table) = (options.text("file"), options.text("table"));
        if let Some(topic) = options.text("topic") {
            return Err(CommandError::structure(format!("topic = {topic}: rows are not sent to brokers")).hint(PLACES));
        }
        let named =
            dest.as_deref().and_then(|dest| dest.split_once('.')).filter(|(dbms, name)| is_name(dbms) && is_name(name));
        let into = match (dest.as_deref(), table, named) {
            (None | Some("stdout" | "rest"), Some(table), _) => Some((SYSTEM_QUERY.to_owned(), table)),
            (Some("dbms"), Some(table), _) => Some((SYSTEM_QUERY.to_owned(), table)),
            (Some("dbms"), None, _) => {
                return Err(CommandError::structure("dest = dbms needs the name of a table")
                    .hint("write: dest = dbms and table = results, or dest = mydb.results"));
            }
            (_, None, Some((dbms, table))) => Some((dbms.to_owned(), table.to_owned())),
            (Some(dest), Some(table), _) => {
                return Err(CommandError::structure(format!(
                    "table = {table} and dest = {dest} contradict each other"
                ))
                .hint("write: dest = dbms and table = results, or dest = mydb.results"));
            }
            (_, None, None) => None,
        };
        if let Some((dbms, name)) = into {
            session.require(Access::Admin, "sql with a table for its rows")?;
            return Ok(Self::Table { dbms, name, anew: options.bool("drop").unwrap_or(true) });
        }
        match (dest.as_deref(), file) {
            (None | Some("stdout" | "rest"), None) => Ok(Self::Reply),
            (None | Some("file"), Some(file)) => {
                session.require(Access::Admin, "sql with the option file")?;
                Ok(Self::File(session.permit_path(&file_name(session, &file))?))
            }
            (Some("file"), None) => Err(CommandError::structure("dest = file needs the name of a file")
                .hint("write: dest = file and file = !prep_dir/result.json")),
            (Some(dest @ ("stdout" | "rest")), Some(file)) => {
                Err(CommandError::structure(format!("file = {file} and dest = {dest} contradict each other"))
                    .hint("leave one of them out"))
            }
            (Some(dest), _) => {
                Err(CommandError::structure(format!("dest = {dest}: rows cannot go there")).hint(PLACES))
            }
        }
    }

    /// Takes all rows there, and tells how many they were.
    pub(super) async fn take(self, mut answer: Answer, writer: Writer, catalog: &Catalog) -> CommandResult {
        match self {
            Self::Reply => Err(CommandError::process("The rows are the reply")),
            Self::File(path) => write_file(path, &mut answer, writer).await,
            Self::Table { dbms, name, anew } => fill_table(&dbms, name, anew, &mut answer, catalog).await,
        }
    }
}

/// A name that ends in `*` gets the time, one without a type the type `out`.
fn file_name(session: &Session, file: &str) -> String {
    let time: String = anylog_core::time::stored(session.node.clock.now())
        .chars()
        .map(|c| if c.is_ascii_digit() { c } else { '_' })
        .collect();
    let named = match file.strip_suffix('*') {
        Some(start) => format!("{start}{time}"),
        None => file.to_owned(),
    };
    let last = named.rsplit(['/', '\\']).next().unwrap_or_default();
    if last.contains('.') { named } else { format!("{named}.out") }
}

async fn write_file(path: PathBuf, answer: &mut Answer, mut writer: Writer) -> CommandResult {
    let failed = |error: std::io::Error| {
        CommandError::new(Status::WRITE_FAILURE, format!("{} cannot be written: {error}", path.display()))
            .hint("name a file in a directory that the node may write to")
    };
    // Beside the file until it is complete: a query that fails leaves the file as it was.
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = async {
        let mut file = tokio::io::BufWriter::new(tokio::fs::File::create(&part).await.map_err(failed)?);
        while let Some(rows) = answer.next().await {
            file.write_all(writer.rows(rows?).as_bytes()).await.map_err(failed)?;
        }
        let end = writer.finish(answer.elapsed(), answer.nodes());
        file.write_all(end.as_bytes()).await.map_err(failed)?;
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&part, &path).await.map_err(failed)
    };
    if let Err(error) = written.await {
        tokio::fs::remove_file(&part).await.ok();
        return Err(error);
    }
    Ok(Reply::Json(serde_json::json!({ "Reply": "Query output written to file", "Rows": writer.count() })))
}

async fn fill_table(dbms: &str, name: String, anew: bool, answer: &mut Answer, catalog: &Catalog) -> CommandResult {
    let database = match catalog.get(dbms) {
        Ok(database) => database,
        Err(_) if dbms == SYSTEM_QUERY => {
            return Err(CommandError::new(Status::DBMS_NOT_OPEN, "Local query database not available")
                .hint("connect it: connect dbms system_query where type = sqlite and memory = true"));
        }
        Err(error) => return Err(QueryError::from(error).into()),
    };
    if !database.dbms().partitions(&name)?.is_empty() {
        return Err(CommandError::parameter(format!(
            "The rows cannot go to '{dbms}.{name}': it is split in partitions"
        ))
        .hint("name a table that is not there yet"));
    }
    let columns = answer.columns().to_vec();
    let mut kinds = answer.kinds();
    let mut made = false;
    loop {
        let rows = answer.next().await.transpose()?;
        if !made {
            for (index, kind) in kinds.iter_mut().enumerate() {
                let first = rows.iter().flatten().filter_map(|row| row.get(index)).find(|cell| **cell != Cell::Null);
                kind.get_or_insert_with(|| kind_of(first));
            }
        }
        let (database, name, columns, kinds) = (Arc::clone(&database), name.clone(), columns.clone(), kinds.clone());
        let create = !std::mem::replace(&mut made, true);
        let ended = rows.is_none();
        let work = tokio::task::spawn_blocking(move || -> Result<(), QueryError> {
            let dbms = database.dbms();
            if create {
                if anew {
                    dbms.drop_table(&name)?;
                }
                let column = |(name, kind): (&String, &Option<ColumnType>)| Column {
                    name: name.clone(),
                    kind: kind.unwrap_or(ColumnType::Varchar),
                    not_null: false,
                    default: None,
                };
                let list = columns.iter().zip(&kinds).map(column).collect();
                dbms.create_table(&TableSchema { name: name.clone(), columns: list, indexes: Vec::new() })?;
            }
            let rows: Vec<Vec<SqlValue>> =
                rows.unwrap_or_default().into_iter().map(|row| row.into_iter().map(stored).collect()).collect();
            if rows.is_empty() { Ok(()) } else { Ok(dbms.apply(&Target::table(&name), &columns, &rows, &[])?) }
        });
        work.await.map_err(|error| CommandError::process(format!("The table was not filled: {error}")))??;
        if ended {
            break;
        }
    }
    let mut reply = serde_json::json!({ "Query.output.all": format!("Data in table '{name}'") });
    if let (Some(object), missing) = (reply.as_object_mut(), answer.nodes().missing)
        && !missing.is_empty()
    {
        object.insert("Missing Nodes".to_owned(), serde_json::json!(missing));
    }
    Ok(Reply::Json(reply))
}

fn kind_of(cell: Option<&Cell>) -> ColumnType {
    match cell {
        Some(Cell::Bool(_)) => ColumnType::Boolean,
        Some(Cell::Int(_)) => ColumnType::BigInt,
        Some(Cell::Float(_)) => ColumnType::Double,
        Some(Cell::Number(_)) => ColumnType::Decimal,
        Some(Cell::Text(_) | Cell::Null) | None => ColumnType::Varchar,
    }
}

fn stored(cell: Cell) -> SqlValue {
    match cell {
        Cell::Null => SqlValue::Null,
        Cell::Bool(value) => SqlValue::Bool(value),
        Cell::Int(value) => SqlValue::Int(value),
        Cell::Float(value) => SqlValue::Float(value),
        Cell::Number(text) | Cell::Text(text) => SqlValue::Text(text),
    }
}
