//! Commands for other nodes: the header `destination`.

use std::time::Duration;

use anylog_core::language::{expand, lexer};
use anylog_core::{Access, Caller, CommandError, Reply, Session, Status, reply, time};
use anylog_net::{PeerError, PeerReply, PeerRequest};
use axum::response::Response;
use serde_json::Value;

use super::asked::Asked;
use super::failure::Failure;
use super::{RestServer, answer};

/// The most nodes that one request may name.
const MOST_NODES: usize = 256;

/// Replies longer than this begin on a line of their own.
const LONG_REPLY: usize = 120;

/// Where a command is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// At this node.
    Local,
    /// At all nodes that hold the data: `run client ()`.
    Network,
    /// At these nodes.
    Nodes(Vec<String>),
}

impl Destination {
    /// The command that this node runs for it.
    pub(super) fn command(&self, command: &str) -> String {
        match self {
            Destination::Local => command.to_owned(),
            Destination::Network => format!("run client () {command}"),
            Destination::Nodes(nodes) => format!("run client ({}) {command}", nodes.join(",")),
        }
    }
}

impl RestServer {
    /// Where a request wants its command to run.
    pub(super) async fn destination(&self, caller: &Caller, asked: &Asked) -> Result<Destination, Failure> {
        let destination = match asked.get("destination") {
            None => return Ok(Destination::Local),
            Some(text) if text.eq_ignore_ascii_case("local") => return Ok(Destination::Local),
            Some(text) if text.eq_ignore_ascii_case("network") => Destination::Network,
            Some(text) => Destination::Nodes(self.nodes(caller, text).await?),
        };
        if let Destination::Nodes(nodes) = &destination
            && nodes.iter().all(|node| self.is_own(node))
        {
            return Ok(Destination::Local);
        }
        if destination == Destination::Network && self.node.registry.find(&["run", "client"]).is_none() {
            return Err(unavailable("destination: network").into());
        }
        Ok(destination)
    }

    fn is_own(&self, node: &str) -> bool {
        let own = |running: anylog_net::RunningServer| {
            [running.address.external, running.address.internal, running.bound.to_string()]
                .iter()
                .any(|own| own == node)
        };
        self.listeners.address(anylog_net::ServerKind::Tcp).is_some_and(own)
    }

    /// The addresses in a destination: `ip:port[,ip:port]`, `!name`, or a command that gives them.
    async fn nodes(&self, caller: &Caller, text: &str) -> Result<Vec<String>, Failure> {
        let listed = if text.starts_with("blockchain ") {
            let mut session = Session::new(self.node.clone(), caller.clone());
            session.execute(text).await?.into_text().await?
        } else {
            expand::value_of_text(&self.node, text).to_string()
        };
        let separators = |c: char| c == ',' || c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '"' | '\'');
        let nodes: Vec<String> = listed.split(separators).filter(|node| !node.is_empty()).map(str::to_owned).collect();
        let malformed = nodes.iter().find(|node| {
            !node.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        if nodes.is_empty() || nodes.len() > MOST_NODES || malformed.is_some() {
            let wrong = malformed.map_or(text, String::as_str);
            return Err(CommandError::new(Status::DESTINATION, format!("Wrong destination: '{wrong}'"))
                .hint("give ip:port of TCP servers, `network`, or leave the header out for this node")
                .into());
        }
        Ok(nodes)
    }

    /// Runs a command at other nodes and puts their replies together.
    pub(super) async fn forward(
        &self,
        caller: Caller,
        asked: &Asked,
        nodes: &[String],
        command: &str,
    ) -> Result<Response, Failure> {
        self.may_forward(&caller, command)?;
        let first = lexer::lex(command)?.into_iter().next().map(|word| word.text);
        if first.as_deref() == Some("sql") {
            if self.node.registry.find(&["run", "client"]).is_none() {
                return Err(unavailable("sql with a destination").into());
            }
            let line = Destination::Nodes(nodes.to_vec()).command(command);
            let (reply, printed) = self.run_all(caller, vec![line]).await?;
            return Ok(answer::of_reply(reply, printed).await?);
        }
        let deadline = self.deadline(asked)?;
        let calls = nodes.iter().map(|node| {
            let request = PeerRequest::Command { text: command.to_owned() };
            self.peers.call(node, request, deadline)
        });
        let answers = futures_util::future::join_all(calls).await;
        let partial = asked.get("subset").is_some_and(|subset| subset.eq_ignore_ascii_case("true"));
        let reply = joined(nodes, answers, partial)?;
        Ok(answer::of_reply(reply, String::new()).await?)
    }

    /// A caller asks other nodes only for what it may do here: to them the request comes from this node.
    fn may_forward(&self, caller: &Caller, command: &str) -> Result<(), CommandError> {
        let words = lexer::lex(command)?;
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let found = self.node.registry.find(&texts);
        let access = found.map_or(Access::Admin, |(command, _)| command.declaration().access_of(&texts));
        Session::new(self.node.clone(), caller.clone()).require(access, command)
    }

    fn deadline(&self, asked: &Asked) -> Result<Duration, CommandError> {
        let Some(text) = asked.get("timeout") else {
            return Ok(self.timeout().unwrap_or(Duration::from_secs(3600)));
        };
        let seconds = text.parse().ok().map(Duration::from_secs).or_else(|| time::interval(text));
        seconds.filter(|limit| !limit.is_zero()).ok_or_else(|| {
            CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong timeout: '{text}'"))
                .hint("give seconds, or a number with a unit: 2 minutes")
        })
    }
}

/// The replies of several nodes as one: an object by node when some answered in JSON, else one text after another.
fn joined(nodes: &[String], answers: Vec<Result<PeerReply, PeerError>>, partial: bool) -> Result<Reply, CommandError> {
    let mut json = serde_json::Map::new();
    let mut messages = String::new();
    for (node, answer) in nodes.iter().zip(answers) {
        let text = match answer {
            Ok(PeerReply::Text(text)) => text,
            Ok(_) => {
                return Err(CommandError::process(format!("node {node} gave another answer")));
            }
            Err(error) if partial => CommandError::from(error).to_string(),
            Err(error) => return Err(error.into()),
        };
        match serde_json::from_str::<Value>(&text) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => {
                json.insert(node.clone(), value);
            }
            _ => {
                let long = text.len() > LONG_REPLY || text.contains('\n');
                let separator = if long { "\r\n" } else { " " };
                messages.push_str(&format!("\r\n[From Node {node}]{separator}{text}"));
            }
        }
    }
    if json.is_empty() {
        return Ok(Reply::Text(messages));
    }
    if !messages.is_empty() {
        json.insert("messages".to_owned(), Value::from(messages));
    }
    Ok(Reply::Text(reply::json::text(&Value::Object(json))))
}

fn unavailable(what: &str) -> CommandError {
    CommandError::new(Status::NO_DESTINATION, format!("'{what}' is not available yet on this node"))
        .hint("leave the destination out to ask this node for its own data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<PeerReply, PeerError> {
        Ok(PeerReply::Text(text.to_owned()))
    }

    fn gone() -> Result<PeerReply, PeerError> {
        Err(PeerError::Unreachable { address: "b:2".into(), reason: "refused".into() })
    }

    #[tokio::test]
    async fn replies_are_joined_in_the_documented_shape() {
        let nodes = ["a:1".to_owned(), "b:2".to_owned()];
        let joined_text = |answers, partial| async move {
            joined(&["a:1".to_owned(), "b:2".to_owned()], answers, partial)?.into_text().await
        };
        let both = joined_text(vec![text("x"), text("y\nz")], false).await.unwrap();
        assert_eq!(both, "\r\n[From Node a:1] x\r\n[From Node b:2]\r\ny\nz");
        let json = joined_text(vec![text(r#"{"k": 1}"#), text("down")], false).await.unwrap();
        assert_eq!(json, r#"{"a:1": {"k": 1}, "messages": "\r\n[From Node b:2] down"}"#);
        assert!(joined(&nodes, vec![text("x"), gone()], false).is_err());
        let part = joined_text(vec![text("x"), gone()], true).await.unwrap();
        assert!(part.contains("[From Node a:1] x") && part.contains("cannot be reached"), "{part}"); // R24
    }
}
