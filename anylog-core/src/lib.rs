//! The vocabulary and the command language of an edge-data node.
//!
//! Everything a node does is asked for in one language: a person types it, a script holds it, a REST
//! client sends it, another node forwards it. This crate is that language and the small vocabulary that all
//! other crates share. It knows none of them: a crate that adds something to a node *declares* its
//! commands ([`Declaration`]) and gives each an implementation ([`Command`]); the language finds, parses, checks and runs
//! them, and derives the help, the reference and the permissions from the same declaration.
//!
//! # A ten-line node
//!
//! ```
//! use std::sync::Arc;
//! use anylog_core::{Caller, CommandResult, Declaration, Invocation, Node, Reply, Session, command};
//!
//! struct Greeter;
//! async fn greet(_: &Greeter, _: &mut Session, call: Invocation) -> CommandResult {
//!     Ok(Reply::Text(format!("hello {}", call.positional("name").unwrap_or("world"))))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let node = Node::builder().build();
//! node.registry.register(command(
//!     Declaration::new("greet", "Greets somebody.").optional_word("name", "who is greeted"),
//!     Arc::new(Greeter),
//!     |greeter, session, call| Box::pin(greet(greeter, session, call)),
//! )).unwrap();
//! let mut session = Session::new(node, Caller::terminal());
//! assert_eq!(session.execute("greet Ada").await.unwrap().into_text().await.unwrap(), "hello Ada");
//! # });
//! ```
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`status`], [`error`] | numeric status codes of the language, and the error every command answers with |
//! | [`reply`] | what a command answers: text, JSON, tables in the documented text layout, streams |
//! | [`dictionary`] | the node's parameters and its view of the environment |
//! | [`command`](mod@command) | declarations, where-list options, invocations, the registry |
//! | [`caller`] | who asks, and what they may do |
//! | [`node`], [`session`] | the state shared by all threads of a node, and the state of one thread |
//! | [`language`] | lexer, expansion, conditions, assignments, scripts |
//! | [`bring`], [`json_text`] | values taken out of JSON documents, and JSON as people write it in commands |
//! | [`expression`] | the evaluator of the command `python` |
//! | [`schedule`] | commands that run on a timetable |
//! | [`time`], [`names`] | clocks and stored time texts; normalised names |

#![forbid(unsafe_code)]

pub mod bring;
pub mod caller;
pub mod command;
pub mod dictionary;
pub mod error;
pub mod expression;
pub mod json_text;
pub mod language;
pub mod names;
pub mod node;
pub mod reply;
pub mod schedule;
pub mod session;
pub mod status;
pub mod time;

pub use caller::{Access, Caller, Surface};
pub use command::{
    Command, CommandResult, Declaration, Invocation, Method, OptionKind, OptionSpec, Options, Registry, command,
};
pub use dictionary::Dictionary;
pub use error::CommandError;
pub use node::Node;
pub use reply::{Reply, Table};
pub use session::Session;
pub use status::Status;
