//! Files between nodes, and within one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_core::command::Word;
use anylog_core::language::expand::{value_of, value_of_text};
use anylog_core::{Command, CommandError, CommandResult, Declaration, Invocation, Reply, Session, Status, command};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::io::AsyncReadExt;

use crate::Ledger;
use crate::client::{DEADLINE, Destination, files};

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let alone = |declaration| {
        command(declaration, Arc::clone(ledger), |_: &Ledger, _, call| {
            Box::pin(async move {
                Err(CommandError::new(Status::NO_DESTINATION, format!("Missing node in '{}'", call.source))
                    .hint(format!("name it: run client (ip:port) {}", call.source)))
            })
        })
    };
    vec![
        alone(
            Declaration::new("file get", "Fetches a file of another node; sent with run client.")
                .grammar("<file there> [<file here>]")
                .returns("how many bytes were fetched; the file is on stable storage")
                .example("run client (10.0.0.1:32148) file get !!archive_dir/a.json !tmp_dir/a.json"),
        ),
        command(
            Declaration::new("file copy", "Copies files: to other nodes when sent with run client, else within this node.")
                .grammar("<file here, * for any characters of its name> [<file there, or directory with / at its end>] [watch_dir]")
                .returns("how many bytes were copied; the files are on stable storage there")
                .example("run client (10.0.0.1:32148) file copy !tmp_dir/a.json !!tmp_dir/a.json")
                .example("run client (10.0.0.1:32148) file copy !prep_dir/a.json a.json watch_dir")
                .example("run client (10.0.0.1:32148) file copy !prep_dir/bl*.js* !!tmp_dir/")
                .example("file copy !archive_dir/a.json !prep_dir/"),
            Arc::clone(ledger),
            |_, session, call| Box::pin(copy_here(session, call)),
        ),
        command(
            Declaration::new("file read", "Gives the content of a file; sent by nodes that fetch it.")
                .word("path", "the file, in a work directory when asked over a network")
                .returns("the bytes of the file")
                .example("file read !tmp_dir/a.json"),
            Arc::clone(ledger),
            |_, session, call| Box::pin(read(session, call)),
        ),
        command(
            Declaration::new("file write part", "Writes a part of a file; sent by nodes that send it.")
                .word("path", "the file, in a work directory when asked over a network")
                .word("transfer", "tells transfers of the same file apart")
                .word("offset", "where the part begins, in bytes")
                .word("data", "x and the bytes in hexadecimal digits")
                .word("last", "true: the file is whole with this part")
                .returns("nothing; the part is written")
                .example("file write part !tmp_dir/a.json 1 0 x7b7d true"),
            Arc::clone(ledger),
            |_, session, call| Box::pin(write_part(session, call)),
        ),
    ]
}

/// Does what `file get` and `file copy` of `run client` ask for; none for any other command.
pub(super) async fn between(
    ledger: &Ledger,
    session: &Session,
    destination: &Destination,
    words: &[Word],
) -> Option<CommandResult> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    match texts.as_slice() {
        ["file", "get", there, ..] if there.starts_with('(') => Some(Err(no_blobs())),
        ["file", "get", there, rest @ ..] => Some(get(ledger, session, destination, there, rest).await),
        ["file", "copy", here, rest @ ..] => Some(copy(ledger, session, destination, here, rest).await),
        _ => None,
    }
}

/// With parentheses a file in a database is meant: `file get (dbms = ... and table = ... and id = ...)`.
fn no_blobs() -> CommandError {
    CommandError::structure("'file get (dbms = ...)': this node keeps no files in databases yet")
        .hint("fetch a file by its path: run client (ip:port) file get <file there> [<file here>]")
}

async fn get(
    ledger: &Ledger,
    session: &Session,
    destination: &Destination,
    there: &str,
    rest: &[&str],
) -> CommandResult {
    let [node] = destination.nodes.as_slice() else {
        return Err(CommandError::new(Status::DESTINATION, "A file is fetched from one node")
            .hint("run client (ip:port) file get <file there> [<file here>]"));
    };
    if there.contains('*') {
        return Err(CommandError::structure(format!("'{there}': one file is fetched at a time"))
            .hint(format!("see which there are: run client ({node}) get files <directory there>")));
    }
    let ([] | [_]) = rest else {
        return Err(
            CommandError::structure("Too many words after 'file get'").hint("file get <file there> [<file here>]")
        );
    };
    let here = files::here(session, rest.first().copied(), there)?;
    let bytes = files::get(ledger, node, there, &here, destination.timeout.unwrap_or(DEADLINE)).await?;
    Ok(Reply::Text(format!("{bytes} bytes from {node} in {}", here.display())))
}

/// Which files are copied, and where they go.
struct Copies<'w> {
    paths: Vec<PathBuf>,
    several: bool,
    there: Option<&'w str>,
    into_watch: bool,
}

impl<'w> Copies<'w> {
    async fn read(session: &Session, here: &str, rest: &[&'w str]) -> Result<Self, CommandError> {
        let (there, into_watch) = match rest {
            [] => (None, false),
            ["watch_dir"] => (None, true),
            ["ledger"] | [_, "ledger"] => {
                return Err(CommandError::structure("A ledger is not copied as a file").hint(
                    "the other node gets it by: run client (ip:port) blockchain seed from <ip:port of this node>",
                ));
            }
            [there] => (Some(*there), false),
            [there, "watch_dir"] => (Some(*there), true),
            _ => {
                return Err(CommandError::structure("Too many words after 'file copy'")
                    .hint("file copy <file here> [<file there>] [watch_dir]"));
            }
        };
        let paths = files::chosen(session, here).await?;
        let several = here.contains('*');
        if several && there.is_some_and(|there| !there.ends_with('/')) {
            return Err(CommandError::structure("Several files go to a directory, which ends in '/'")
                .hint("file copy !prep_dir/*.json !tmp_dir/, and for another node !!tmp_dir/"));
        }
        Ok(Self { paths, several, there, into_watch })
    }

    /// The path that a file gets there.
    fn target(&self, path: &Path) -> Result<String, CommandError> {
        let own = path.to_string_lossy();
        let name = files::file_name(&own)?;
        Ok(match self.there {
            _ if self.into_watch => {
                let named = self.there.filter(|_| !self.several).map_or(Ok(name), files::file_name)?;
                format!("!watch_dir/{named}")
            }
            None => format!("!tmp_dir/{name}"),
            Some(directory) if directory.ends_with('/') => format!("{directory}{name}"),
            Some(there) => there.to_owned(),
        })
    }

    /// What is said of a file.
    fn told(&self, path: &Path, bytes: u64, to: &str) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if self.several { format!("{name}: {bytes} bytes {to}") } else { format!("{bytes} bytes {to}") }
    }
}

async fn copy(
    ledger: &Ledger,
    session: &Session,
    destination: &Destination,
    here: &str,
    rest: &[&str],
) -> CommandResult {
    let copies = Copies::read(session, here, rest).await?;
    let mut sent = Vec::new();
    for node in &destination.nodes {
        for path in &copies.paths {
            let deadline = destination.timeout.unwrap_or(DEADLINE);
            let bytes = files::send(ledger, node, path, &copies.target(path)?, deadline).await?;
            sent.push(copies.told(path, bytes, &format!("to {node}")));
        }
    }
    Ok(Reply::Text(sent.join("\r\n")))
}

/// The same within this node.
async fn copy_here(session: &mut Session, call: Invocation) -> CommandResult {
    let words: Vec<String> = call.rest().iter().map(|word| value_of(&session.node, word).to_string()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((here, rest)) = words.split_first() else {
        return Err(CommandError::structure("Missing file in 'file copy'")
            .hint("file copy <file> [<file, or directory with / at its end>] [watch_dir]"));
    };
    let copies = Copies::read(session, here, rest).await?;
    let mut copied = Vec::new();
    for path in &copies.paths {
        let there = value_of_text(&session.node, &copies.target(path)?).to_string();
        let there = session.permit_path(&there)?;
        let bytes = files::duplicate(path, &there).await?;
        copied.push(copies.told(path, bytes, &format!("in {}", there.display())));
    }
    Ok(Reply::Text(copied.join("\r\n")))
}

async fn read(session: &mut Session, call: Invocation) -> CommandResult {
    let path = session.permit_path(&call.expect_positional("path")?)?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| unreadable(&path, &error))?;
    let chunks = stream::try_unfold(file, move |mut file| {
        let path = path.clone();
        async move {
            let mut chunk = vec![0; files::PART];
            let length = file.read(&mut chunk).await.map_err(|error| unreadable(&path, &error))?;
            chunk.truncate(length);
            Ok((length > 0).then(|| (Bytes::from(chunk), file)))
        }
    });
    Ok(Reply::Stream { json: false, chunks: chunks.boxed() })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(Status::NO_SUCH_FILE, format!("File '{}' cannot be read: {error}", path.display()))
}

async fn write_part(session: &mut Session, call: Invocation) -> CommandResult {
    let wrong = |what: &str| CommandError::parameter(format!("Wrong {what} of a part of a file"));
    let transfer = call.expect_positional("transfer")?;
    if transfer.is_empty() || !transfer.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(wrong("transfer"));
    }
    let part = files::Part {
        path: session.permit_path(&call.expect_positional("path")?)?,
        transfer,
        offset: call.expect_positional("offset")?.parse().map_err(|_| wrong("offset"))?,
        data: files::from_hex(&call.expect_positional("data")?).ok_or_else(|| wrong("data"))?,
        last: call.expect_positional("last")? == "true",
    };
    part.write().await?;
    Ok(Reply::Empty)
}
