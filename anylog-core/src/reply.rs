//! What a command answers.

pub mod json;
pub mod table;

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::CommandError;
pub use table::Table;

/// Pieces of a long answer as they become ready, each valid UTF-8. An error ends the stream.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, CommandError>> + Send>>;

/// The answer of a command that succeeded.
pub enum Reply {
    /// Nothing to say.
    Empty,
    /// Text for a person.
    Text(String),
    /// A JSON document; shown with a blank after `,` and `:`.
    Json(serde_json::Value),
    /// A table in the documented text layout.
    Table(Table),
    /// An answer too long to be held, such as the rows of a query.
    Stream {
        /// True when the pieces together are JSON.
        json: bool,
        /// The pieces.
        chunks: Chunks,
    },
}

impl Reply {
    /// True when there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Reply::Empty => true,
            Reply::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    /// The whole answer as one text. Drains a stream, so use it only where the answer has to be held: assignments and
    /// terminals.
    pub async fn into_text(self) -> Result<String, CommandError> {
        match self {
            Reply::Empty => Ok(String::new()),
            Reply::Text(text) => Ok(text),
            Reply::Json(value) => Ok(json::text(&value)),
            Reply::Table(table) => Ok(table.to_string()),
            Reply::Stream { mut chunks, .. } => {
                let mut all = Vec::new();
                while let Some(chunk) = chunks.next().await {
                    all.extend_from_slice(&chunk?);
                }
                Ok(String::from_utf8_lossy(&all).into_owned())
            }
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Empty => f.write_str("Empty"),
            Reply::Text(text) => f.debug_tuple("Text").field(text).finish(),
            Reply::Json(value) => f.debug_tuple("Json").field(value).finish(),
            Reply::Table(table) => f.debug_tuple("Table").field(table).finish(),
            Reply::Stream { json, .. } => f.debug_struct("Stream").field("json", json).finish_non_exhaustive(),
        }
    }
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Reply::Text(text)
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Reply::Text(text.to_owned())
    }
}

impl From<Table> for Reply {
    fn from(table: Table) -> Self {
        Reply::Table(table)
    }
}

impl From<serde_json::Value> for Reply {
    fn from(value: serde_json::Value) -> Self {
        Reply::Json(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn stream(pieces: Vec<Result<Bytes, CommandError>>) -> Reply {
        Reply::Stream { json: false, chunks: Box::pin(futures_util::stream::iter(pieces)) }
    }

    #[tokio::test]
    async fn a_stream_is_drained() {
        // A character may be cut by the end of a piece.
        let reply = stream(vec![Ok(Bytes::from_static(b"a\xc3")), Ok(Bytes::from_static(b"\xa4b"))]);
        assert!(!reply.is_empty());
        assert_eq!(reply.into_text().await.unwrap(), "aäb");
        let broken = stream(vec![Ok(Bytes::from_static(b"a")), Err(CommandError::new(Status::NETWORK, "gone"))]);
        assert_eq!(broken.into_text().await.unwrap_err().status, Status::NETWORK);
    }

    #[tokio::test]
    async fn nothing_is_empty() {
        assert!(Reply::Empty.is_empty() && Reply::from("").is_empty());
        assert_eq!(Reply::Empty.into_text().await.unwrap(), "");
    }
}
