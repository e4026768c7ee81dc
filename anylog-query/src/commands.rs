//! The commands of queries: thin adapters over [`QueryService`](crate::QueryService).

mod mode;
mod monitor;
mod network;
mod options;
mod output;

use std::sync::Arc;

use anylog_core::command::Word;
use anylog_core::language::expand;
use anylog_core::{
    Access, Command, CommandError, CommandResult, Declaration, Invocation, Method, OptionKind, Reply, Session, Surface,
    command,
};
use bytes::Bytes;
use futures_util::stream;

use crate::Network;
use crate::format::Writer;
use crate::service::{Answer, QueryService, Request};
pub use network::network_sql;
use options::SqlOptions;
use output::Output;

/// The commands of this crate.
#[must_use]
pub fn commands(service: Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    let mut commands = vec![command(declaration(), Arc::new(Arc::clone(&service)), |service, session, call| {
        Box::pin(sql(service, session, call))
    })];
    commands.extend(network::commands(Arc::clone(&service)));
    commands.extend(mode::commands(&service));
    commands.extend(monitor::commands(service));
    commands
}

fn declaration() -> Declaration {
    Declaration::new("sql", "Runs an SQL statement over the tables of a database.")
        .grammar("<dbms> [<option> = <value> and ...] \"<statement>\"")
        .access_by(access)
        .method(Method::Any)
        .returns("the rows of a SELECT in the format asked for, with statistics; the number of changed rows of another statement")
        .example("sql mydb \"select timestamp, value from readings where timestamp >= now() - 1 day limit 10\"")
        .example("sql mydb format = table and stat = false \"select device, avg(value) from readings group by device\"")
        .example("sql mydb \"select increments(hour, 1, timestamp), min(timestamp), avg(value)::float(2) from readings\"")
        .example("sql mydb format = json:list \"select device, value from readings where period(hour, 12, now(), timestamp)\"")
        .option("format", OptionKind::Text, "layout of the rows: json, json:list, json:output or table")
        .default_is("json")
        .option("timezone", OptionKind::Text, "zone of times in the answer: local, utc, pt, mt, ct, et or a name")
        .default_is("local")
        .option("stat", OptionKind::Bool, "whether statistics follow the rows")
        .default_is("true")
        .repeated("extend", OptionKind::Text, "columns in front: (@table_name, @dbms_name, @ip, @port, +variable [as name])")
        .option("dest", OptionKind::Text, "where rows go: stdout, rest, file, or a table by dbms.table")
        .option("pass_through", OptionKind::Bool, "false puts all rows together before the first is shown; sorted and plain rows stream in either case")
        .repeated("include", OptionKind::Text, "other tables that are treated as the queried one: (table, dbms.table)")
        .option("nodes", OptionKind::Text, "main or all: which members of a cluster answer over the network")
        .option("committed", OptionKind::Bool, "only rows that all members of their cluster are known to have")
        .option("max_time", OptionKind::Text, "longest time of a query over the network: seconds, or a number with a unit")
        .option("table", OptionKind::Text, "puts the rows into this table, of system_query unless dest = <dbms>; they are not shown")
        .option("drop", OptionKind::Bool, "whether that table is made anew, or rows are added")
        .option("file", OptionKind::Text, "writes the rows to a file; a * at the end becomes the time")
        .option("topic", OptionKind::Text, "accepted for older scripts to say what there is instead: rows are not sent to brokers")
        .repeated("info", OptionKind::Text, "which address @ip and @port tell; over the network")
        .option("title", OptionKind::Text, "title of a test file; over the network")
        .option("source", OptionKind::Text, "a file to compare with; over the network")
        .option("test", OptionKind::Bool, "writes a test file; over the network")
        .option("option", OptionKind::Text, "options of a test file; over the network")
        .option("output", OptionKind::Bool, "whether rows are shown; over the network")
}

/// What a statement does, told by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Select,
    Change,
}

fn kind_of(text: &str) -> Option<Kind> {
    let first = text.trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    match first.to_lowercase().as_str() {
        "select" => Some(Kind::Select),
        "insert" | "update" | "delete" | "create" => Some(Kind::Change),
        _ => None,
    }
}

/// The index of the word that begins the statement: it is no value of an option.
fn statement_at(words: &[&str]) -> Option<(usize, Kind)> {
    words.iter().enumerate().skip(1).find_map(|(index, word)| {
        let kind = kind_of(word)?;
        (words[index - 1] != "=").then_some((index, kind))
    })
}

/// SELECT reads; everything else administers. The command looks again at the statement that it runs.
fn access(words: &[&str]) -> Access {
    match statement_at(words) {
        Some((_, Kind::Change)) => Access::Admin,
        _ => Access::Read,
    }
}

async fn sql(service: &Arc<QueryService>, session: &mut Session, call: Invocation) -> CommandResult {
    sql_over(service, session, call, None).await
}

/// Runs a call of `sql` on this node, or over the network.
async fn sql_over(
    service: &Arc<QueryService>,
    session: &mut Session,
    call: Invocation,
    network: Option<Network>,
) -> CommandResult {
    let words = call.rest();
    let usage = || format!("usage: {}", declaration().usage());
    let Some(name) = words.first() else {
        return Err(CommandError::structure("The name of a database is missing after 'sql'").hint(usage()));
    };
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let Some((at, kind)) = statement_at(&texts) else {
        return Err(CommandError::structure("There is no SQL statement: select, insert, update, delete or create")
            .hint(usage()));
    };
    let dbms = dbms_name(session, name)?;
    let options = SqlOptions::read(session, &declaration(), &words[1..at], network)?;
    let statement =
        if words[at].quoted { words[at].text.clone() } else { call.text_from(call.key_words + at).to_owned() };
    if words[at].quoted && at + 1 < words.len() {
        let after = call.text_from(call.key_words + at + 1);
        return Err(CommandError::structure(format!("'{after}' follows the statement")).hint(usage()));
    }
    let statement = substituted(session, &statement)?;
    match kind {
        Kind::Select => select(service, session, dbms, statement, options).await,
        Kind::Change if options.network.is_some() => Err(CommandError::structure("Only SELECT runs over the network")
            .hint("change rows where they are: connect to the node and use sql there")),
        Kind::Change => {
            session.require(Access::Admin, "sql")?;
            let service = Arc::clone(service);
            let changed = tokio::task::spawn_blocking(move || service.execute(&dbms, &statement)).await;
            let rows =
                changed.map_err(|error| CommandError::process(format!("The statement did not end: {error}")))??;
            Ok(Reply::Json(serde_json::json!({ "reply": "Success", "Rows": rows })))
        }
    }
}

fn dbms_name(session: &Session, word: &Word) -> Result<String, CommandError> {
    let value = expand::value_of(&session.node, word).to_string();
    if value.is_empty() {
        return Err(CommandError::structure(format!("Missing dictionary definition for: '{}'", word.text))
            .hint(format!("set it first: {} = <name of a database>", word.text.trim_start_matches('!'))));
    }
    Ok(value)
}

async fn select(
    service: &Arc<QueryService>,
    session: &Session,
    dbms: String,
    sql: String,
    options: SqlOptions,
) -> CommandResult {
    let terminal = session.caller.surface == Surface::Terminal;
    let output = if terminal { "stdout" } else { "rest" }.to_owned();
    let extend = match options.network {
        Some(_) => Vec::new(),
        None => options.extended(session, &dbms, &table_of(&sql))?,
    };
    let (network, committed) = (options.network, options.committed);
    let mut answer =
        service.select(Request { dbms, sql, zone: options.zone, extend, output, network, committed }).await?;
    if terminal && service.mode().show_id {
        session.console.print(&format!("[{}]", answer.id()));
    }
    let writer = Writer::new(options.format, options.statistics, terminal, answer.columns().to_vec());
    if options.output != Output::Reply {
        return options.output.take(answer, writer, service.catalog()).await;
    }
    // The first rows before the reply: a query that fails early is an error, not half an answer.
    let first = answer.next().await.transpose()?;
    let rows = Rows { answer, writer, first, ended: false, shown: false, error: None };
    let chunks = stream::unfold(rows, |mut rows| async move { rows.next().await.map(|chunk| (chunk, rows)) });
    Ok(Reply::Stream { json: options.format.is_json(), chunks: Box::pin(chunks) })
}

struct Rows {
    answer: Answer,
    writer: Writer,
    first: Option<Vec<Vec<crate::Cell>>>,
    ended: bool,
    /// Whether a part of the answer was handed over.
    shown: bool,
    /// Why the rows ended early.
    error: Option<CommandError>,
}

impl Rows {
    async fn next(&mut self) -> Option<Result<Bytes, CommandError>> {
        if let Some(error) = self.error.take() {
            // What was shown is sent before the answer breaks off.
            tokio::task::yield_now().await;
            return Some(Err(error));
        }
        while !self.ended {
            let rows = match self.first.take() {
                Some(rows) => Some(Ok(rows)),
                None => self.answer.next().await,
            };
            let text = match rows {
                Some(Ok(rows)) => self.writer.rows(rows),
                Some(Err(error)) => {
                    self.ended = true;
                    let error = CommandError::from(error);
                    if !self.shown {
                        return Some(Err(error));
                    }
                    // The rows that were shown are not the answer: it says so, and breaks off.
                    let text = self.writer.broken(&error);
                    self.error = Some(error);
                    return Some(Ok(Bytes::from(text)));
                }
                None => {
                    self.ended = true;
                    self.writer.finish(self.answer.elapsed(), self.answer.nodes())
                }
            };
            if !text.is_empty() {
                self.shown = true;
                return Some(Ok(Bytes::from(text)));
            }
        }
        None
    }
}

/// The word after FROM, for `@table_name`.
fn table_of(sql: &str) -> String {
    let mut words = sql.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("from"));
    let table = words.nth(1).unwrap_or_default();
    table.trim_matches(['"', ';', ')', '(']).to_lowercase()
}

/// `!name` in a statement is its value, as is a literal that is only `'!name'`, whose value stays within the quotes.
fn substituted(session: &Session, sql: &str) -> Result<String, CommandError> {
    let mut out = String::with_capacity(sql.len());
    let mut quote: Option<char> = None;
    let mut before = ' ';
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let name = rest[c.len_utf8()..].split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        let after = &rest[c.len_utf8() + name.len()..];
        let whole = quote.is_none_or(|quote| before == quote && after.starts_with(quote));
        if c == '!' && !name.is_empty() && whole {
            let value = session.node.dictionary.get(name).ok_or_else(|| {
                CommandError::structure(format!("Missing dictionary definition for: '!{name}' in the statement"))
                    .hint(format!("set it first: {name} = <value>"))
            })?;
            match quote {
                Some(quote) => out.push_str(&value.replace(quote, &format!("{quote}{quote}"))),
                None => out.push_str(&value),
            }
            rest = after;
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        out.push(c);
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    Ok(out)
}
