//! The reference node: wires the parts together, serves REST, reads the terminal.
//!
//! The program `anylog-node` is a page over this library; a program that wants a node of its own uses the same door:
//!
//! ```
//! # let home = tempfile::tempdir().unwrap();
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use anylog_core::Caller;
//! use anylog_node::NodeApp;
//!
//! let app = NodeApp::build(home.path()).unwrap();
//! let mut session = app.session(Caller::embedded());
//! session.execute("run rest server where internal_ip=127.0.0.1 and internal_port=0 and bind=true").await.unwrap();
//! let rest = app.listeners.addresses()[0].bound;
//! assert!(tokio::net::TcpStream::connect(rest).await.is_ok());
//! app.drain().await;
//! # });
//! ```
//!
//! # Guarantees
//! * A node that was built runs nothing: every server and process is started by a command.
//! * SIGTERM and Ctrl-C drain: nothing acknowledged is lost, the program ends within five seconds (OPS-2).
//! * One home directory belongs to one running program; a second is refused.
//! * An HTTP reply is 2xx only for what succeeded.
//!
//! # Non-guarantees
//! * No TLS and no users: rights follow the caller's address. Put a proxy or a private network before it.
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`assembly`] | a whole node out of its parts |
//! | [`rest`] | the REST server |
//! | [`home`] | the home directory and its lock |
//! | [`program`] | what the program's subcommands do |
//! | [`terminal`] | commands typed by a person |
//! | [`demo`] | a whole operator, or a network, with plant data on loopback |
//! | [`console`] | where sessions print |

#![forbid(unsafe_code)]

pub mod assembly;
pub mod console;
pub mod demo;
pub mod home;
pub mod program;
pub mod rest;
pub mod terminal;

pub use assembly::{AssemblyError, NodeApp};
