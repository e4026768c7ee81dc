//! Commands for other nodes: the header `destination`.
//!
//! `network` is `run client ()`, anything else the text inside `run client ( ... )`.

use std::time::Duration;

use anylog_core::language::expand;
use anylog_core::{Caller, CommandError, Session, Status, time};
use anylog_ledger::client::{calls, forward_access};

use super::RestServer;
use super::asked::Asked;
use super::failure::Failure;

/// What a request may take longer than each of the nodes that it asks: one of them may be replaced by another.
const GRACE: Duration = Duration::from_secs(5);

/// Where a command is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// At this node.
    Local,
    /// At other nodes: what stands in the parentheses of `run client ( ... )`.
    Nodes(String),
}

impl Destination {
    /// The commands that this node runs for it, one for each part between `&`.
    pub(super) fn commands(&self, command: &str) -> Result<Vec<String>, CommandError> {
        match self {
            Destination::Local => Ok(vec![command.to_owned()]),
            Destination::Nodes(nodes) => calls(&format!("({nodes})"), command),
        }
    }
}

impl RestServer {
    /// Where a request wants its command to run.
    pub(super) fn destination(&self, caller: &Caller, asked: &Asked, command: &str) -> Result<Destination, Failure> {
        let nodes = match asked.get("destination").map(str::trim) {
            None => return Ok(Destination::Local),
            Some(text) if text.eq_ignore_ascii_case("local") => return Ok(Destination::Local),
            Some(text) if text.eq_ignore_ascii_case("network") => String::new(),
            Some(text) if self.is_this_node(text) => return Ok(Destination::Local),
            Some("") => return Err(nowhere().into()),
            Some(text) => text.to_owned(),
        };
        // To the other nodes the request comes from this one, so the caller is judged here.
        Session::new(self.node.clone(), caller.clone()).require(forward_access(&self.node, command), command)?;
        let mut items: Vec<String> = Some(nodes).filter(|nodes| !nodes.is_empty()).into_iter().collect();
        match asked.get("subset").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => {}
            Some("true") => items.push("subset = true".to_owned()),
            Some(other) => {
                let error = CommandError::new(Status::REST_HEADERS, format!("Wrong header 'subset: {other}'"));
                return Err(error.hint("subset is true or false").into());
            }
        }
        if let Some(seconds) = self.deadline_seconds(asked)? {
            items.push(format!("timeout = {seconds}"));
        }
        Ok(Destination::Nodes(items.join(", ")))
    }

    /// Whether a destination names this node's own TCP server, and no other.
    fn is_this_node(&self, text: &str) -> bool {
        let Some(running) = self.listeners.address(anylog_net::ServerKind::Tcp) else { return false };
        let own = [running.address.external, running.address.internal, running.bound.to_string()];
        let named = expand::value_of_text(&self.node, text).to_string();
        let separators = |c: char| c == ',' || c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '"' | '\'');
        let mut named = named.split(separators).filter(|node| !node.is_empty()).peekable();
        named.peek().is_some() && named.all(|node| own.iter().any(|own| own == node))
    }

    /// How long the answer of a request may take to begin. At other nodes each has its own time, which must pass first: its end tells
    /// which node did not answer.
    pub(super) fn limit(&self, asked: &Asked, destination: &Destination) -> Result<Option<Duration>, CommandError> {
        match destination {
            Destination::Local => Ok(self.timeout()),
            Destination::Nodes(_) => {
                Ok(self.deadline_seconds(asked)?.map(|seconds| Duration::from_secs(seconds).saturating_add(GRACE)))
            }
        }
    }

    /// How long each node may take: the header `timeout`, else what the server allows.
    fn deadline_seconds(&self, asked: &Asked) -> Result<Option<u64>, CommandError> {
        let Some(text) = asked.get("timeout") else {
            return Ok(self.timeout().map(|timeout| timeout.as_secs().max(1)));
        };
        let seconds = text.parse().ok().or_else(|| time::interval(text).map(|limit| limit.as_secs()));
        seconds.filter(|seconds| *seconds > 0).map(Some).ok_or_else(|| {
            CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong timeout: '{text}'"))
                .hint("give seconds, or a number with a unit: 2 minutes")
        })
    }
}

fn nowhere() -> CommandError {
    CommandError::new(Status::DESTINATION, "Wrong destination: ''")
        .hint("give ip:port of TCP servers, `network`, or leave the header out for this node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_command_goes_to_the_destination() {
        let nodes = Destination::Nodes("a:1, subset = true".to_owned());
        assert_eq!(
            nodes.commands("get status & print \"a & b\"").unwrap(),
            ["run client (a:1, subset = true) get status", "run client (a:1, subset = true) print \"a & b\""]
        );
        assert_eq!(Destination::Nodes(String::new()).commands("sql d \"x\"").unwrap(), ["run client () sql d \"x\""]);
        assert_eq!(Destination::Local.commands("a & b").unwrap(), ["a & b"]);
    }
}
