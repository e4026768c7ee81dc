//! Queries over the network: what `run client (..) sql ..` runs, and what nodes ask of each other for it.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::language::lexer;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, Options, Reply, Session, Status, command,
};
use anylog_ledger::client::NetworkSql;
use async_trait::async_trait;

use crate::network::PartRequest;
use crate::{Destination, Network, QueryService};

/// `query part`.
pub(super) fn commands(service: Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    let part = Declaration::new("query part", "Answers a part of another node's query; sent by nodes.")
        .reads()
        .word("request", "what is asked, in hexadecimal digits")
        .returns("rows in frames, which nodes understand")
        .example("query part 7b7d");
    vec![command(part, Arc::new(service), |service, _, call| Box::pin(async move { run_part(service, &call) }))]
}

fn run_part(service: &Arc<QueryService>, call: &Invocation) -> CommandResult {
    let request = PartRequest::parse(&call.expect_positional("request")?)?;
    Ok(Reply::Stream { json: false, chunks: service.part(request) })
}

/// Lets `run client` answer SQL as one answer out of many nodes:
/// [`Ledger::set_network_sql`](anylog_ledger::Ledger::set_network_sql) takes it.
#[must_use]
pub fn network_sql(service: Arc<QueryService>) -> Arc<dyn NetworkSql> {
    Arc::new(OverNetwork(service))
}

struct OverNetwork(Arc<QueryService>);

#[async_trait]
impl NetworkSql for OverNetwork {
    async fn sql(
        &self,
        session: &mut Session,
        destination: &anylog_ledger::client::Destination,
        command: &str,
    ) -> CommandResult {
        let nodes = destination.nodes.clone();
        let mode = self.0.mode();
        let network = Network {
            destination: if nodes.is_empty() { Destination::Tables } else { Destination::Nodes(nodes) },
            subset: destination.subset,
            timeout: destination.timeout,
            send_any: mode.send_any,
            reply_any: mode.reply_any,
            ..Network::default()
        };
        let call = Invocation {
            source: command.to_owned(),
            words: lexer::lex(command)?,
            key_words: 1,
            assign_to: None,
            positionals: Vec::new(),
            options: Options::default(),
        };
        super::sql_over(&self.0, session, call, Some(network)).await
    }
}

/// Seconds, or a number with a unit; 0 is no limit.
pub(super) fn seconds(text: &str) -> Result<Option<Duration>, CommandError> {
    let limit = text.parse().ok().map(Duration::from_secs).or_else(|| anylog_core::time::interval(text));
    let limit = limit.ok_or_else(|| {
        CommandError::new(Status::TIMEOUT_VALUE, format!("Wrong time: '{text}'"))
            .hint("give seconds, or a number with a unit: 2 minutes")
    })?;
    // Clocks can count so far.
    Ok(Some(limit.min(Duration::from_secs(365 * 24 * 3600))).filter(|limit| !limit.is_zero()))
}
