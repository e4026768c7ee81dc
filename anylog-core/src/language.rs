//! The command language: from a line of text to a command that ran.
//!
//! The same language is typed at a terminal, held in script files, sent over REST, forwarded by other nodes and run by
//! schedules. This page is its syntax; what the commands do is in their declarations ([`Declaration`](crate::Declaration)), from
//! which `help` is made.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use anylog_core::{Caller, Node, Session};
//!
//! let mut session = Session::new(Node::builder().build(), Caller::terminal());
//! session.execute("set port = 32148").await?;
//! session.execute("address = 127.0.0.1 + : + !port").await?;
//! session.execute("if !port.int > 32000 and not !policy then state = ready").await?;
//! assert_eq!(session.node.dictionary.get("address").as_deref(), Some("127.0.0.1:32148"));
//! assert_eq!(session.node.dictionary.get("state").as_deref(), Some("ready"));
//! # Ok::<(), anylog_core::CommandError>(())
//! # }).unwrap();
//! ```
//!
//! # Lines and words
//!
//! A command is a line. Words are separated by blanks; see [`lexer`] for the whole table.
//!
//! ```text
//! get status where format = json        words and operators; blanks around = do not matter
//! print "two words" 'kept quotes'        "..." is one word without its quotes, '...' keeps them
//! topic = (name = a and dbms = b)        parentheses, braces and brackets are one word each
//! x = 1 & y = 2                          & separates commands; the first failure ends the line
//! get status # why                       a comment begins with # at the start of a word
//! <get status                            < ... > joins lines
//!     where format = json>
//! ```
//!
//! The longest sequence of words that names a command is the command. A reference among them stands for its value, a quoted word
//! is never part of a name. A line that names none is refused, with the nearest command in the hint.
//!
//! # Parameters and references
//!
//! A node has one flat map of parameters, names to texts, shared by all threads. Where a command takes a value, a word that
//! begins with `!` stands for a parameter, with `$` for an environment variable. [`expand`] has all forms:
//!
//! ```text
//! !name   $NAME                          the value; empty when unset
//! !port.int  !ratio.float  !on.bool      typed; !city.name is "mountain_view", !list.len counts
//! !text[2:5]   !policy[operator][ip]     a part of a text, a member of a JSON text
//! !local_scripts/main.al                 a path: each !piece is replaced
//! !!name                                 the text !name, for the node that receives it
//! ```
//!
//! A word is never expanded in its middle. An unset reference is empty in `if`, `print` and `=`; in a where-list, in a path and as a
//! word that a command needs it is an error.
//!
//! # Assignments
//!
//! ```text
//! name = word                            a text, or the value of a reference
//! name = 30 seconds                      several words are a text as they stand
//! name = !ip + ":" + !port               operands joined without blanks
//! name = get hostname                    the answer of a complete command
//! name = "get hostname"                  quotes keep it a text
//! name = {"port": !port.int}             JSON, kept as written; references are replaced when it is used
//! name = ""                              removes the name
//! set name = word                        never runs a command
//! $NAME = word                           the environment of this node
//! name[key][key] = word                  a member of a JSON text; outer objects must be there
//! set policy name [a][b] = 1 and [a][c] = {}      the same for several members
//! set policy name [script] + "command"   appends to a list
//! name[] = run client ...                collects answers in a list, name{} by node
//! [file = path, key = k] = rest get ...  writes an answer to a file
//! ```
//!
//! The right side is run when its words are a complete command: it names one, and is not a single word. So `default_dbms = test`
//! is a text. When the command fails the name is left undefined. Assigning needs the right to administer the node.
//!
//! # Options
//!
//! Most commands take a list after `where`: `key = value and key = value`. Keys, types, defaults and which are required are declared;
//! an unknown key, a missing one, a value of another type are errors that name what would be right. See [`where_list`].
//!
//! # Conditions
//!
//! ```text
//! if <condition> then <command>          runs the command
//! if <condition> [then]                  decides what the next lines do
//! do <command>                           runs when the last condition was true
//! else <command>                         runs when it was false
//! state = if <condition>                 True or False
//! ```
//!
//! There is one flag for each thread, set by every `if` that ran, so any number of `do` and `else` lines may follow, and a `do if` moves
//! the flag. A script leaves it as it was. See [`condition`] for operators and the order of evaluation.
//!
//! # Scripts
//!
//! `process <path>` runs a file, `thread <path>` on a thread of its own. See [`script`] for lines, blocks, labels, arguments and what
//! follows an error. The commands for it:
//!
//! ```text
//! goto label    call label    return     jumps; labels are lines :label:
//! end script    exit scripts             ends this file; ends all scripts of the node
//! on error ignore | goto label | call label | end script
//! wait 5        wait 30 for !state == ready        wait 10 for sync
//! n = incr !n 1
//! set debug on | off | interactive [thread]        next, continue, stop
//! ```
//!
//! # Rights
//!
//! Every command declares whether it reads, adds data or administers, and is checked against the caller's rights - also the command
//! inside `if .. then`, `do`, an assignment or a script. Over a network, paths of scripts lie in the work directories.
//!
//! # Logs
//!
//! Each line is noted in the event log with its outcome, a failure in the error log with its cause; passwords are masked.

pub mod builtin;
pub mod condition;
pub mod expand;
pub mod lexer;
pub mod reference;
pub mod script;
pub mod where_list;

mod arguments;
mod assign;
mod execute;
mod flow;
mod secrets;

pub(crate) use execute::Then;
pub(crate) use flow::register_flow;

use crate::Session;
use crate::command::CommandResult;

/// Runs one command line.
pub(crate) async fn execute(session: &mut Session, line: &str) -> CommandResult {
    execute::execute(session, line).await
}
