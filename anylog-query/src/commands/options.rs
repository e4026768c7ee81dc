//! The options of `sql`.

use anylog_core::command::Word;
use anylog_core::language::where_list;
use anylog_core::{CommandError, Declaration, Options, Session};
use jiff::tz::TimeZone;

use crate::format::Format;
use crate::zone;

/// Options that only a query over the network has.
const NETWORK: [&str; 15] = [
    "include",
    "nodes",
    "committed",
    "max_time",
    "table",
    "drop",
    "file",
    "topic",
    "info",
    "title",
    "source",
    "test",
    "option",
    "output",
    "subset",
];

/// The options of one call.
#[derive(Debug)]
pub(super) struct SqlOptions {
    pub(super) format: Format,
    pub(super) statistics: bool,
    pub(super) zone: TimeZone,
    extend: Vec<String>,
}

impl SqlOptions {
    /// Reads the words between the database and the statement.
    pub(super) fn read(session: &Session, declaration: &Declaration, words: &[Word]) -> Result<Self, CommandError> {
        let options =
            if words.is_empty() { Options::default() } else { where_list::parse(&session.node, declaration, words)? };
        if let Some((name, _)) = options.iter().find(|(name, _)| NETWORK.contains(name)) {
            return Err(CommandError::structure(format!("The option '{name}' is not available in a local query"))
                .hint("leave it out: this query reads the tables of this node"));
        }
        if let Some(dest) = options.text("dest")
            && !matches!(dest.to_lowercase().as_str(), "stdout" | "rest")
        {
            return Err(CommandError::structure(format!("dest = {dest} is not available in a local query"))
                .hint("use dest = stdout or dest = rest"));
        }
        let format = options.text("format").map(|word| Format::parse(&word)).transpose()?.unwrap_or_default();
        let local = session.node.time_zone();
        let zone = match options.text("timezone") {
            None => local,
            Some(name) => zone::parse(&name, &local).map_err(|name| {
                CommandError::structure(format!("timezone = {name} is not known"))
                    .hint("use utc, local, pt, mt, ct, et or a name such as America/New_York")
            })?,
        };
        let statistics = options.bool("stat").unwrap_or(true);
        Ok(Self { format, statistics, zone, extend: options.texts("extend") })
    }

    /// The columns of `extend`: names and values.
    pub(super) fn extended(
        &self,
        session: &Session,
        dbms: &str,
        table: &str,
    ) -> Result<Vec<(String, String)>, CommandError> {
        self.extend.iter().map(|text| extended(session, text, dbms, table)).collect()
    }
}

fn extended(session: &Session, text: &str, dbms: &str, table: &str) -> Result<(String, String), CommandError> {
    let form = "write extend = (@table_name, @dbms_name, @ip, @port, +variable) with 'as name' behind any of them";
    let wrong = |reason: &str| CommandError::structure(format!("extend: '{text}' {reason}")).hint(form);
    let words: Vec<&str> = text.split_whitespace().collect();
    let (value, title) = match words.as_slice() {
        [value] => (*value, None),
        [value, word, title] if word.eq_ignore_ascii_case("as") => (*value, Some((*title).to_lowercase())),
        _ => return Err(wrong("is not understood")),
    };
    let (ip, port) = match session.node.address().rsplit_once(':') {
        Some((ip, port)) => (ip.to_owned(), port.to_owned()),
        None => (session.node.address(), String::new()),
    };
    // A declared type follows a point: `+city.varchar`.
    let name = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    if let Some(variable) = value.strip_prefix('+') {
        let variable = name(variable);
        let stored = session.node.dictionary.get(&variable).ok_or_else(|| wrong("is not in the dictionary"))?;
        return Ok((title.unwrap_or(variable), stored));
    }
    let Some(known) = value.strip_prefix('@').map(name) else { return Err(wrong("needs the prefix @ or +")) };
    let value = match known.as_str() {
        "table_name" => table.to_owned(),
        "dbms_name" => dbms.to_owned(),
        "ip" => ip,
        "port" => port,
        _ => return Err(wrong("is not known")),
    };
    Ok((title.unwrap_or(known), value))
}
