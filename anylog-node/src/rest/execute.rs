//! Commands that come by REST.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::Word;
use anylog_core::language::lexer;
use anylog_core::{Caller, CommandError, Method, Reply, Session, Status};
use axum::http::StatusCode;
use axum::response::Response;

use super::asked::Asked;
use super::failure::Failure;
use super::{RestServer, answer};
use crate::console::Collected;

impl RestServer {
    /// Fails when a command is not offered under this method. A command that is not known passes: the language says so
    /// better.
    pub(super) fn check_method(&self, method: &'static str, command: &str) -> Result<(), Failure> {
        let words = lexer::lex(command)?;
        let assigns = is_assignment(&words);
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).skip(if assigns { 2 } else { 0 }).collect();
        let declared = self.node.registry.find(&texts).map(|(command, _)| command.declaration().method);
        let offered = if assigns { Some(Method::Post) } else { declared };
        let refused = match (offered, method) {
            (Some(Method::Post), "GET") => true,
            // Only the plain information commands insist on GET.
            (Some(Method::Get), "POST") => matches!(texts.first(), Some(&("get" | "test" | "help"))),
            _ => false,
        };
        if !refused {
            return Ok(());
        }
        let right = if method == "GET" { "POST" } else { "GET" };
        let error = CommandError::new(
            Status::WRONG_METHOD,
            format!("Wrong HTTP method used: '{command}' is not offered by {method}"),
        )
        .hint(format!("use {right}"));
        Err(error.into())
    }

    /// Runs the commands of a body and then the one of the header, here or at other nodes.
    pub(super) async fn run(
        &self,
        caller: Caller,
        asked: &Asked,
        before: Vec<String>,
        command: &str,
    ) -> Result<Response, Failure> {
        for field in ["into", "html", "pdf"] {
            if asked.get(field).is_some() {
                let error =
                    CommandError::new(Status::REST_HEADERS, format!("The header '{field}' is not available yet"))
                        .hint("leave it out and format the JSON answer at the client");
                return Err(error.into());
            }
        }
        let destination = self.destination(&caller, asked, command)?;
        let mut commands = before;
        for command in destination.commands(command)? {
            commands.push(match asked.get("assignment") {
                Some(name) => format!("{name} = {command}"),
                None => command,
            });
        }
        let limit = self.limit(asked, &destination)?;
        let (reply, printed) = self.run_all(caller, commands, limit).await?;
        Ok(answer::of_reply(reply, printed).await?)
    }

    /// Runs commands one after another and gives the reply of the last, and what they printed. They run to their end also
    /// when the client goes away or `limit` passes.
    async fn run_all(
        &self,
        caller: Caller,
        commands: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<(Reply, String), Failure> {
        let settings = self.settings.read().clone();
        let permit = match settings.timeout {
            Some(limit) => tokio::time::timeout(limit, Arc::clone(&settings.permits).acquire_owned()).await,
            None => Ok(Arc::clone(&settings.permits).acquire_owned().await),
        };
        let permit = permit.map_err(|_| busy(settings.threads))?;
        let node = Arc::clone(&self.node);
        let work = tokio::spawn(async move {
            let _permit = permit;
            let console = Arc::new(Collected::default());
            let mut session = Session::new(node, caller).with_console(Arc::clone(&console) as _);
            session.thread = "rest".to_owned();
            let mut last = Reply::Empty;
            for command in &commands {
                last = session.execute(command).await?;
            }
            Ok::<_, CommandError>((last, console.take()))
        });
        let ended = match limit {
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| late(limit))?,
            None => work.await,
        };
        Ok(ended.map_err(|error| CommandError::process(format!("The command ended abnormally: {error}")))??)
    }
}

/// `name = ...` with something to assign.
fn is_assignment(words: &[Word]) -> bool {
    words.len() > 2 && words[1].text == "=" && !words[1].quoted
}

fn busy(threads: usize) -> Failure {
    CommandError::new(Status::OVERLOADED, format!("All {threads} threads of the REST server are at work"))
        .hint("try again, or start the server with more threads")
        .into()
}

fn late(limit: Duration) -> Failure {
    let message = format!("The command did not answer within {} seconds; it goes on", limit.as_secs());
    let error = CommandError::new(Status::TIME_OUT, message)
        .hint("its outcome will be in `get event log`; more time is given by: set rest timeout 60 seconds");
    Failure::with_code(StatusCode::GATEWAY_TIMEOUT, error)
}
