//! Which nodes a command is for.

use std::time::Duration;

use anylog_core::language::expand::{is_reference, value_of_text};
use anylog_core::{CommandError, Session, Status, time};

use super::MOST_NODES;
use crate::Ledger;

/// Longer timeouts mean the same as this one: clocks can count so far.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// References in a destination are followed so deep.
const MAX_DEPTH: usize = 8;

/// The nodes that a command is for, and how long and how strictly they are waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// `ip:port` of each node, each once. None: the nodes that hold the data, for SQL.
    pub nodes: Vec<String>,
    /// Answer with what is there when a node fails.
    pub subset: bool,
    /// How long a node may take.
    pub timeout: Option<Duration>,
    /// Only nodes with data of this company.
    pub company: Option<String>,
    /// Only nodes with this database.
    pub dbms: Option<String>,
    /// Only nodes with this table.
    pub table: Option<String>,
}

impl Destination {
    /// These nodes.
    #[must_use]
    pub fn of(nodes: Vec<String>) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Reads a destination as `run client` takes it; queries in it are answered from the local copy of the ledger.
    ///
    /// # Errors
    /// [`Status::NO_DESTINATION`] for what is no destination, or a query that finds no node.
    pub async fn parse(session: &mut Session, text: &str) -> Result<Self, CommandError> {
        let text = text.trim();
        let mut destination = Self::default();
        match text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => destination.add_items(session, inner).await?,
            None => {
                if let Some((host, port)) = text.split_once(char::is_whitespace)
                    && !host.starts_with("blockchain")
                {
                    let host = value_of_text(&session.node, host).to_string();
                    destination.add_addresses(&format!("{host}:{}", port.trim()), text)?;
                } else {
                    destination.add_items(session, text).await?;
                }
                if destination.nodes.is_empty() {
                    return Err(nowhere(text));
                }
            }
        }
        if destination.nodes.len() > MOST_NODES {
            return Err(CommandError::new(
                Status::DESTINATION,
                format!(
                    "The destination names {} nodes, and at most {MOST_NODES} are asked at once",
                    destination.nodes.len()
                ),
            ));
        }
        Ok(destination)
    }

    async fn add_items(&mut self, session: &mut Session, text: &str) -> Result<(), CommandError> {
        // References stand for lists of their own, so items are worked off a stack.
        let mut open: Vec<(String, usize)> = items(text).into_iter().rev().map(|item| (item, 0)).collect();
        while let Some((item, depth)) = open.pop() {
            if is_reference(&item) {
                let value = value_of_text(&session.node, &item).to_string();
                if value.is_empty() {
                    return Err(CommandError::new(
                        Status::NO_DESTINATION,
                        format!("Missing dictionary definition for: '{item}'"),
                    )
                    .hint("set it to the ip:port of a node's TCP server"));
                }
                if depth >= MAX_DEPTH {
                    return Err(nowhere(&item));
                }
                let value = value.trim();
                let inner = value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(value);
                open.extend(items(inner).into_iter().rev().map(|item| (item, depth + 1)));
            } else if !self.take_option(&item)? {
                match query(&item) {
                    Some(query) => {
                        let found = Box::pin(session.execute(&query)).await?.into_text().await?;
                        if found.trim().is_empty() {
                            return Err(unsatisfied(&item));
                        }
                        self.add_addresses(&found, &item)?;
                    }
                    None => self.add_addresses(&item, &item)?,
                }
            }
        }
        Ok(())
    }

    /// Takes an item of the form `subset = true`; says whether it was one.
    fn take_option(&mut self, item: &str) -> Result<bool, CommandError> {
        let Some((key, value)) = item.split_once('=') else { return Ok(false) };
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        match key.trim() {
            "subset" => match value.to_ascii_lowercase().as_str() {
                "true" => self.subset = true,
                "false" => self.subset = false,
                _ => {
                    return Err(CommandError::structure(format!("Wrong value of 'subset': '{value}'"))
                        .hint("subset is true or false"));
                }
            },
            "timeout" => {
                let seconds = value.parse().ok().map(Duration::from_secs).or_else(|| time::interval(&value));
                let seconds = seconds.filter(|limit| !limit.is_zero()).ok_or_else(|| {
                    CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong timeout: '{value}'"))
                        .hint("give seconds, or a number with a unit: 2 minutes")
                })?;
                self.timeout = Some(seconds.min(LONGEST));
            }
            "company" => self.company = Some(value),
            "dbms" => self.dbms = Some(value),
            "table" => self.table = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds addresses separated by commas or blanks, as a query gives them.
    fn add_addresses(&mut self, text: &str, item: &str) -> Result<(), CommandError> {
        let separators = |c: char| c == ',' || c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '"' | '\'');
        let mut any = false;
        for address in text.split(separators).filter(|address| !address.is_empty()) {
            let well_formed =
                address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !well_formed {
                return Err(CommandError::new(
                    Status::DESTINATION,
                    format!("Wrong destination: '{address}' in '{item}' is not ip:port"),
                )
                .hint("give ip:port of TCP servers, or a query: blockchain get operator bring.ip_port"));
            }
            any = true;
            if !self.nodes.iter().any(|known| known == address) {
                self.nodes.push(address.to_owned());
            }
        }
        if any { Ok(()) } else { Err(nowhere(item)) }
    }

    /// Adds one operator of each cluster that holds what `company`, `dbms` and `table` name, when no node is named. SQL finds its
    /// nodes by itself.
    ///
    /// # Errors
    /// [`Status::NO_DESTINATION`] when nobody holds it.
    pub fn add_holders(&mut self, ledger: &Ledger) -> Result<(), CommandError> {
        if !self.nodes.is_empty() || (self.company.is_none() && self.dbms.is_none() && self.table.is_none()) {
            return Ok(());
        }
        let fits = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == "*" || wanted.eq_ignore_ascii_case(value))
        };
        let (view, own) = (ledger.view(), ledger.own_addresses());
        let mut clusters: Vec<&String> = Vec::new();
        for table in view.tables() {
            if fits(&self.company, &table.company) && fits(&self.dbms, &table.dbms) && fits(&self.table, &table.table) {
                clusters.extend(table.clusters.iter());
            }
        }
        clusters.sort();
        clusters.dedup();
        for cluster in clusters {
            let mut members: Vec<_> = view.operators_of(cluster).collect();
            members.sort_by_key(|member| (!ledger.is_active(&member.address()), !member.main));
            let policy = members.first().and_then(|member| ledger.policy(&member.id));
            if let Some(address) = policy.and_then(|policy| own.reach(&policy))
                && !self.nodes.contains(&address)
            {
                self.nodes.push(address);
            }
        }
        if self.nodes.is_empty() {
            let what: Vec<String> = [("company", &self.company), ("dbms", &self.dbms), ("table", &self.table)]
                .into_iter()
                .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} = {value}")))
                .collect();
            return Err(CommandError::new(
                Status::NO_DESTINATION,
                format!("No operator in the ledger holds {}", what.join(" and ")),
            )
            .hint("look at what is where with: get data nodes"));
        }
        Ok(())
    }
}

pub(super) fn nowhere(text: &str) -> CommandError {
    CommandError::new(Status::NO_DESTINATION, format!("'{text}' names no node"))
        .hint("name one: run client (10.0.0.1:32148) get status")
}

/// Types of policies that have an address.
const TYPES: [&str; 4] = ["operator", "query", "master", "publisher"];

/// Nobody in the ledger is meant by an item.
fn unsatisfied(item: &str) -> CommandError {
    let error = CommandError::new(Status::NO_DESTINATION, format!("No node in the ledger satisfies '{item}'"));
    let first = item.split(|c: char| c.is_whitespace() || c == '(').find(|word| !word.is_empty()).unwrap_or_default();
    if first == "localhost" || first.contains('.') {
        return error.hint(format!("an address has a port: {first}:32148"));
    }
    match anylog_core::error::nearest(first, TYPES) {
        Some(meant) if meant != first => error.hint(format!("did you mean '{meant}'?")),
        _ => error.hint("look at the ledger with: blockchain get operator"),
    }
}

/// The query that an item stands for: itself with `bring.ip_port` when it brings nothing; none for an address.
fn query(item: &str) -> Option<String> {
    let brings = item.split_whitespace().any(|word| word == "bring" || word.starts_with("bring."));
    let with_bring = |query: String| if brings { query } else { format!("{query} bring.ip_port") };
    if item.starts_with("blockchain ") {
        return Some(with_bring(item.to_owned()));
    }
    // A short form begins with types: `operator`, `operator where ...`, `(operator, query) where ...`.
    let is_address = !item.starts_with('(') && item.split_whitespace().next().is_some_and(|first| first.contains(':'));
    (!is_address).then(|| with_bring(format!("blockchain get {item}")))
}

/// The items of a list, parted by commas outside quotes, parentheses and brackets. A comma after `=` is a value: `separator = ,`.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut item = String::new();
    let (mut depth, mut quote) = (0_usize, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 && !item.trim_end().ends_with('=') => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parted_at_their_own_commas() {
        assert_eq!(items("a:1, b:2"), ["a:1", "b:2"]);
        assert_eq!(items(""), Vec::<String>::new());
        assert_eq!(
            items("blockchain get (operator, query) where [name] = \"a, b\" bring.ip_port, subset = true"),
            ["blockchain get (operator, query) where [name] = \"a, b\" bring.ip_port", "subset = true"]
        );
        assert_eq!(
            items("blockchain get operator bring [*][ip] : [*][port] separator = , , timeout=5"),
            ["blockchain get operator bring [*][ip] : [*][port] separator = ,", "timeout=5"]
        );
    }

    #[test]
    fn short_forms_become_queries() {
        assert_eq!(query("10.0.0.1:7"), None);
        assert_eq!(query("operator").unwrap(), "blockchain get operator bring.ip_port");
        assert_eq!(
            query("(operator, query) where country = US").unwrap(),
            "blockchain get (operator, query) where country = US bring.ip_port"
        );
        let whole = "blockchain get operator bring [operator][ip] : [operator][port]";
        assert_eq!(query(whole).unwrap(), whole);
    }

    proptest::proptest! {
        #[test]
        fn no_list_panics(text in "[a-z:0-9,=()\\[\\]\"' !]{0,40}") {
            for item in items(&text) {
                proptest::prop_assert!(!item.is_empty());
                query(&item);
            }
        }
    }
}
