//! A node whose commands record their calls.

use std::net::SocketAddr;
use std::sync::Arc;

use anylog_core::command::Word;
use anylog_core::language::expand::value_of;
use anylog_core::session::Console;
use anylog_core::{
    Caller, Command, CommandError, CommandResult, Declaration, Invocation, Node, OptionKind, Reply, Session, Status,
    Surface, command,
};
use parking_lot::Mutex;
use tempfile::TempDir;

/// What was printed.
#[derive(Debug, Default)]
pub(crate) struct Paper(Mutex<Vec<String>>);

impl Console for Paper {
    fn print(&self, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

impl Paper {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A node at home in a temporary directory, a terminal session, and what the session prints.
pub(crate) struct Bench {
    pub(crate) home: TempDir,
    pub(crate) node: Arc<Node>,
    pub(crate) session: Session,
    pub(crate) paper: Arc<Paper>,
}

/// `say` prints its words, `fail <status>` fails, `probe` takes options, `tell` answers, `secret` is for administrators.
pub(crate) fn commands() -> Vec<Arc<dyn Command>> {
    let state = Arc::new(());
    vec![
        command(
            Declaration::new("say", "Prints.").grammar("<word> ...").reads(),
            Arc::clone(&state),
            |_, session, call| Box::pin(say(session, call)),
        ),
        command(
            Declaration::new("fail", "Fails.").word("status", "number").reads(),
            Arc::clone(&state),
            |_, _, call| Box::pin(fail(call)),
        ),
        command(
            Declaration::new("get told", "Answers.").rest("text", false, "").reads(),
            Arc::clone(&state),
            |_, _, call| Box::pin(tell(call)),
        ),
        command(
            Declaration::new("tell", "Answers.").rest("text", true, "").reads(),
            Arc::clone(&state),
            |_, _, call| Box::pin(tell(call)),
        ),
        command(Declaration::new("secret", "For administrators."), Arc::clone(&state), |_, _, call| {
            Box::pin(tell(call))
        }),
        command(
            Declaration::new("probe", "Takes everything.")
                .word("target", "what is probed")
                .optional_word("port", "its port")
                .keyword("using")
                .positional(anylog_core::command::Positional {
                    name: "interval",
                    kind: anylog_core::command::PositionalKind::Word(OptionKind::Duration),
                    required: true,
                    help: "how often",
                })
                .option("name", OptionKind::Text, "a name")
                .required("count", OptionKind::Int, "how many")
                .reads(),
            state,
            |_, _, call| Box::pin(probe(call)),
        ),
    ]
}

async fn say(session: &mut Session, call: Invocation) -> CommandResult {
    let words: Vec<String> = call.rest().iter().map(|word: &Word| value_of(&session.node, word).to_string()).collect();
    session.console.print(&words.join(" "));
    Ok(Reply::Empty)
}

async fn fail(call: Invocation) -> CommandResult {
    let status = call.expect_positional("status")?.parse().map_err(|_| CommandError::parameter("no number"))?;
    Err(CommandError::new(Status(status), format!("failed with {status}")))
}

async fn tell(call: Invocation) -> CommandResult {
    Ok(call.positional_value("text").map_or(Reply::Empty, |text| Reply::Text(format!("{text}\n"))))
}

async fn probe(call: Invocation) -> CommandResult {
    let positionals: Vec<String> = call.positionals.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let options: Vec<String> = call.options.iter().map(|(name, _)| name.to_owned()).collect();
    Ok(Reply::Text(format!("{} | {}", positionals.join(" "), options.join(" "))))
}

impl Bench {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder().home(home.path()).build();
        node.registry.register_all(commands()).unwrap();
        let paper = Arc::new(Paper::default());
        let session = Session::new(Arc::clone(&node), Caller::terminal()).with_console(paper.clone());
        Self { home, node, session, paper }
    }

    /// Runs a line and gives its answer as text.
    pub(crate) async fn run(&mut self, line: &str) -> Result<String, CommandError> {
        self.session.execute(line).await?.into_text().await
    }

    /// Writes a script into the home directory and gives its path.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a script and gives what it printed.
    pub(crate) async fn process(&mut self, text: &str) -> (Result<String, CommandError>, Vec<String>) {
        let path = self.script("main.al", text);
        let result = self.run(&format!("process {path}")).await;
        (result, self.paper.take())
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.node.dictionary.get(name)
    }
}

/// A session of a caller far away.
pub(crate) fn remote(node: &Arc<Node>) -> Session {
    let address: SocketAddr = "203.0.113.9:40000".parse().unwrap();
    Session::new(Arc::clone(node), Caller::network(Surface::Rest, address, false))
}
