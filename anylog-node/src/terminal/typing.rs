//! Runs what is typed, here or at the default destination.

use std::sync::Arc;

use anylog_core::language::script::Script;
use anylog_core::{CommandResult, Session};
use anylog_ledger::Ledger;
use anylog_ledger::client::Typed;
use parking_lot::Mutex;

use crate::assembly::NodeApp;
use crate::program::terminal_session;

/// Where commands go that name no destination: `(10.0.0.1:32148)`. None: they run here. The prompt shows it.
pub(super) type DefaultDestination = Arc<Mutex<Option<String>>>;

/// Characters of a destination that the prompt shows.
const SHOWN: usize = 40;

/// The prompt of a node.
pub(super) fn prompt(name: &str, to: &DefaultDestination) -> String {
    let Some(to) = to.lock().clone() else { return format!("AL {name} > ") };
    let mut shown: String = to.chars().take(SHOWN).collect();
    if shown.len() < to.len() {
        shown.push_str("...");
    }
    format!("AL {name} {shown} > ")
}

/// A person's session, and where its commands go.
pub(super) struct Typing {
    session: Session,
    ledger: Arc<Ledger>,
    to: DefaultDestination,
}

impl Typing {
    pub(super) fn new(app: &NodeApp, to: DefaultDestination) -> Self {
        Self { session: terminal_session(app), ledger: Arc::clone(&app.ledger), to }
    }

    /// Runs what was typed: one command, or each of several that were pasted.
    pub(super) async fn execute(&mut self, text: &str) {
        let script = match Script::typed(text) {
            Ok(script) => script,
            Err(error) => return self.session.console.print(&error.to_string()),
        };
        for (_, line) in script.commands() {
            self.command(line).await;
        }
    }

    async fn command(&mut self, line: &str) {
        let to = self.to.lock().clone();
        match Typed::read(line, to.as_deref()) {
            Typed::Here => *self.to.lock() = None,
            Typed::To(to) => match self.ledger.check_destination(&mut self.session, &to).await {
                Ok(()) => *self.to.lock() = Some(to),
                Err(error) => self.session.console.print(&error.to_string()),
            },
            Typed::Run(commands) => {
                for command in commands {
                    let outcome = self.session.execute(&command).await;
                    // The commands behind an `&` run when those before it did.
                    if !self.show(outcome).await {
                        return;
                    }
                }
            }
        }
    }

    /// Says that a command was ended from outside.
    pub(super) fn show_interrupted(&self, text: &str) {
        let line = text.trim().lines().next().unwrap_or_default();
        self.session.console.print(&format!("Ended: {line}"));
    }

    /// Shows a reply; false for an error.
    async fn show(&self, outcome: CommandResult) -> bool {
        let text = match outcome {
            Ok(reply) => reply.into_text().await,
            Err(error) => Err(error),
        };
        match text {
            Ok(text) if text.is_empty() => true,
            Ok(text) => {
                self.session.console.print(text.trim_end_matches(['\r', '\n']));
                true
            }
            Err(error) => {
                self.session.console.print(&error.to_string());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_shows_where_commands_go() {
        let to = DefaultDestination::default();
        assert_eq!(prompt("query", &to), "AL query > ");
        *to.lock() = Some("(10.0.0.1:32148)".to_owned());
        assert_eq!(prompt("query", &to), "AL query (10.0.0.1:32148) > ");
        *to.lock() = Some("é".repeat(100));
        assert_eq!(prompt("query", &to).chars().count(), "AL query  > ".len() + SHOWN + 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_default_destination_lasts_until_it_is_taken_back() {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [here, there] = homes.each_ref().map(|home| NodeApp::build(home.path()).unwrap());
        there.session(anylog_core::Caller::terminal()).execute("run tcp server 127.0.0.1 0").await.unwrap();
        let address = there.listeners.address(anylog_net::ServerKind::Tcp).unwrap().bound;
        let printed = Arc::new(crate::console::Collected::default());
        let mut typing = Typing::new(&here, DefaultDestination::default());
        typing.session.console = Arc::clone(&printed) as _;
        here.node.set_name("here");
        there.node.set_name("there");
        for (line, shown) in [
            ("get node name", "here"),
            (&format!("run client ({address})"), ""),
            ("get node name", "there"),
            (". get node name", "here"),
            ("get node name & get frobnicated & get node name", "get frobnicated"),
            ("run client ()", ""),
            ("get node name", "here"),
            ("run client (!unset)", "!unset"),
            ("run client (operator where name = nobody)", "nobody"),
            ("run client (subset = true)", "names no node"),
            ("get node name", "here"),
        ] {
            typing.execute(line).await;
            let text = printed.take();
            assert!(text.contains(shown) && (!shown.is_empty() || text.is_empty()), "{line}: {text}");
        }
        there.drain().await;
    }
}
