//! The options of `sql`.

use anylog_core::command::Word;
use anylog_core::language::where_list;
use anylog_core::{CommandError, Declaration, Options, Session};
use jiff::tz::TimeZone;

use crate::extend::{self, Extend};
use crate::format::Format;
use crate::{Destination, Network, zone};

use super::network::seconds;
use super::output::Output;

/// Options that no query has yet.
const LATER: [&str; 5] = ["title", "source", "test", "option", "output"];

/// The options of one call.
#[derive(Debug)]
pub(super) struct SqlOptions {
    pub(super) format: Format,
    pub(super) statistics: bool,
    pub(super) zone: TimeZone,
    /// Over other nodes; an answer of this node alone needs none.
    pub(super) network: Option<Network>,
    pub(super) output: Output,
    pub(super) committed: bool,
    extend: Vec<String>,
}

impl SqlOptions {
    /// Reads the words between the database and the statement.
    pub(super) fn read(
        session: &Session,
        declaration: &Declaration,
        words: &[Word],
        network: Option<Network>,
    ) -> Result<Self, CommandError> {
        let options =
            if words.is_empty() { Options::default() } else { where_list::parse(&session.node, declaration, words)? };
        if let Some((name, _)) = options.iter().find(|(name, _)| LATER.contains(name)) {
            return Err(CommandError::structure(format!("The option '{name}' is not available yet"))
                .hint("leave it out: the rows are the answer of the command"));
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
        let extend = options.texts("extend");
        let network = over_network(session, &options, &extend, network)?;
        let output = Output::read(session, &options)?;
        let committed = options.bool("committed").unwrap_or(false);
        Ok(Self { format, statistics, zone, network, output, committed, extend })
    }

    /// The columns of `extend` as this node fills them: names and values.
    pub(super) fn extended(
        &self,
        session: &Session,
        dbms: &str,
        table: &str,
    ) -> Result<Vec<(String, String)>, CommandError> {
        let filled = |(name, shown): Extend| {
            let value = extend::value(&session.node, &shown, dbms, table);
            value.map(|value| (name, value)).ok_or_else(|| {
                CommandError::structure(format!("extend: '{shown}' is not in the dictionary"))
                    .hint(format!("set it first: {} = <value>", shown.trim_start_matches('+')))
            })
        };
        extends(&self.extend)?.into_iter().map(filled).collect()
    }
}

fn extends(texts: &[String]) -> Result<Vec<Extend>, CommandError> {
    texts.iter().map(|text| extend::parse(text)).collect()
}

/// The options of a query over the network. A query of this node that includes other tables is one over this node alone.
fn over_network(
    session: &Session,
    options: &Options,
    extend: &[String],
    network: Option<Network>,
) -> Result<Option<Network>, CommandError> {
    let include = options.texts("include");
    let own = || Destination::Nodes(vec![session.node.address()]);
    let network = match network {
        None if include.is_empty() => {
            let names = ["nodes", "max_time"];
            if let Some((name, _)) = options.iter().find(|(name, _)| names.contains(name)) {
                return Err(CommandError::structure(format!("The option '{name}' is not available in a local query"))
                    .hint("leave it out, or ask over the network: run client () sql .."));
            }
            return Ok(None);
        }
        None => Network { destination: own(), ..Network::default() },
        Some(network) => network,
    };
    let main = match options.text("nodes").as_deref().unwrap_or("main") {
        "main" => true,
        "all" => false,
        other => {
            return Err(CommandError::structure(format!("nodes = {other} is not known")).hint("use main or all"));
        }
    };
    let included = |text: &String| match text.trim().split_once('.') {
        Some((dbms, table)) => (Some(dbms.trim().to_owned()), table.trim().to_owned()),
        None => (None, text.trim().to_owned()),
    };
    let max_time = options.text("max_time").map(|text| seconds(&text)).transpose()?.flatten();
    Ok(Some(Network {
        main,
        include: include.iter().map(included).collect(),
        extend: extends(extend)?,
        max_time: max_time.or(network.max_time),
        ..network
    }))
}
