//! What members say to each other, and its form on the wire (protobuf).

use crate::files::FileKey;
use prost::{Enumeration, Message as Proto, Oneof};

/// The version of these messages. Fields are only ever added; a member of another version is talked to in what both know.
pub const VERSION: u32 = 1;

/// One message.
#[derive(Clone, PartialEq, Proto)]
pub struct Message {
    /// What it says. A message that says nothing known is of a later version, and passed over.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub body: Option<Body>,
}

/// What a message says.
#[derive(Clone, PartialEq, Oneof)]
pub enum Body {
    /// Who speaks: first on each link, in both directions.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What the sender has. Comes after the greeting, and again when it changed by more than [`Body::Holds`] told. It is held back
    /// while something of the receiver's own files is being stored that was so when the link came up.
    #[prost(message, tag = "2")]
    Holdings(Holdings),
    /// The sender has this file completely, on stable storage. Also the answer to [`Body::Offer`], [`Body::Sealed`] and a file's end.
    #[prost(message, tag = "3")]
    Holds(File),
    /// The sender has this file and offers it: answered by `Want` or `Holds`.
    #[prost(message, tag = "4")]
    Offer(File),
    /// The sender wants a file, or the rest of it.
    #[prost(message, tag = "5")]
    Want(Want),
    /// A piece of a file that was wanted.
    #[prost(message, tag = "6")]
    Piece(Piece),
    /// The file that was wanted cannot be given; or the file that was offered, or sent, cannot be taken now.
    #[prost(message, tag = "7")]
    Missing(Missing),
    /// Rows of an open file.
    #[prost(message, tag = "8")]
    Rows(Rows),
    /// Up to which row of an open file the sender has it on stable storage. The answer to `Rows`, also when they did not follow
    /// what it has: then the other goes back.
    #[prost(message, tag = "9")]
    RowsHeld(RowsHeld),
    /// A file that was followed while open is complete: answered by `Holds`, or by `Want`.
    #[prost(message, tag = "10")]
    Sealed(Sealed),
    /// The sender wants rows of an open file that another member produced: what it lacks of an orphan. Answered by `Rows`.
    #[prost(message, tag = "11")]
    WantRows(RowsHeld),
    /// The sender ends the link and says why; it is not to be tried again before something changed.
    #[prost(message, tag = "12")]
    Refused(Refused),
    /// How much of a file's pieces the sender took: so much more may be under way. For who gives the file, like the pieces.
    #[prost(message, tag = "13")]
    Taken(Taken),
}

/// The largest message, in bytes: what a member holds with a million gaps in it fits.
pub const LARGEST: usize = 16 << 20;

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Too long.
    #[error(
        "a message of {0} bytes from a mate is longer than the {LARGEST} that are allowed: both nodes must be of one version"
    )]
    TooLong(usize),
    /// Not of the form.
    #[error("a message of {length} bytes from a mate cannot be read ({source}): both nodes must be of one version")]
    Malformed {
        /// How long it is.
        length: usize,
        /// What is wrong.
        source: prost::DecodeError,
    },
}

impl Message {
    /// The form on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// A message from its form on the wire.
    ///
    /// # Errors
    ///
    /// When the bytes are too many, or not of that form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > LARGEST {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        Self::decode(bytes).map_err(|source| DecodeError::Malformed { length: bytes.len(), source })
    }
}

/// Messages about a file name it in the same way.
macro_rules! about_a_file {
    ($($message:ty),*) => {
        $(impl $message {
            /// The file that it is about.
            #[must_use]
            pub fn key(&self) -> FileKey {
                FileKey { producer: self.producer, file: self.file }
            }
        }

        impl From<$message> for FileKey {
            fn from(message: $message) -> Self {
                message.key()
            }
        })*
    };
}

about_a_file!(File, RowsHeld, Want, Piece, Taken, Missing, Rows, Sealed);

impl Missing {
    /// That a file cannot be given, or not be taken.
    #[must_use]
    pub fn of(file: FileKey, reason: String) -> Self {
        Self { producer: file.producer, file: file.file, reason, lost: false }
    }
}

impl From<Body> for Message {
    fn from(body: Body) -> Self {
        Self { body: Some(body) }
    }
}

/// Who speaks.
#[derive(Clone, PartialEq, Proto)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The member's number.
    #[prost(int64, tag = "2")]
    pub member: i64,
    /// The id of its cluster.
    #[prost(string, tag = "3")]
    pub cluster: String,
    /// The id of its operator policy.
    #[prost(string, tag = "4")]
    pub policy: String,
    /// The key of the node, made at random and kept with its data: two nodes with one number are told apart by it.
    #[prost(string, tag = "5")]
    pub key: String,
    /// Only files from this time on are asked for in holdings, in microseconds since 1970; 0: all.
    #[prost(int64, tag = "6")]
    pub since: i64,
}

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Proto)]
pub struct File {
    /// The number of the member that produced it.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// Its number there.
    #[prost(int64, tag = "2")]
    pub file: i64,
}

/// What a member has.
#[derive(Clone, PartialEq, Proto)]
pub struct Holdings {
    /// By producer.
    #[prost(message, repeated, tag = "1")]
    pub of: Vec<HoldingsOf>,
}

/// What a member has of one producer.
#[derive(Clone, PartialEq, Proto)]
pub struct HoldingsOf {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The highest number that the producer gave so far. Only the producer says it, 0 otherwise: numbers up to it that it neither
    /// has complete nor open do not exist.
    #[prost(int64, tag = "2")]
    pub given: i64,
    /// First and last number of each range of complete files, one after the other.
    #[prost(int64, repeated, tag = "3")]
    pub ranges: Vec<i64>,
    /// Open files.
    #[prost(message, repeated, tag = "4")]
    pub open: Vec<RowsHeld>,
    /// Numbers up to this one are of files older than the receiver asked for, by [`Hello::since`]: they are left out. 0: none is.
    #[prost(int64, tag = "5")]
    pub before: i64,
    /// The sender wants no files up to this number: for it they are older than it keeps, and count as held. 0: it wants all.
    #[prost(int64, tag = "6")]
    pub passed: i64,
}

/// How much of an open file somebody has, on stable storage.
#[derive(Clone, Copy, PartialEq, Eq, Proto)]
pub struct RowsHeld {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// The ordinal of the last row; all before it that were written are there too. 0: none.
    #[prost(uint64, tag = "3")]
    pub ordinal: u64,
}

/// A wish for a file.
#[derive(Clone, Copy, PartialEq, Eq, Proto)]
pub struct Want {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// How many bytes of its content are there already.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Which content these bytes are of, as [`Piece::content`] named it; 0 when there are none.
    #[prost(uint64, tag = "4")]
    pub content: u64,
}

/// Bytes of a file's content. The first piece after a wish carries `about`.
#[derive(Clone, PartialEq, Proto)]
pub struct Piece {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// A name of the content as this member gives it: the same name, the same bytes. Another name than that of the bytes that the
    /// other has: it begins anew.
    #[prost(uint64, tag = "3")]
    pub content: u64,
    /// Where the bytes belong.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    /// The bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub bytes: Vec<u8>,
    /// Nothing follows.
    #[prost(bool, tag = "6")]
    pub last: bool,
    /// What the file is.
    #[prost(message, optional, tag = "7")]
    pub about: Option<About>,
}

/// How much of a file was taken.
#[derive(Clone, Copy, PartialEq, Eq, Proto)]
pub struct Taken {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// The place behind the last byte that was taken.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

/// In which form a file's content travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Form {
    /// Not said.
    Unknown = 0,
    /// The archived source file, compressed by gzip: a JSON text in each line.
    Archive = 1,
    /// The same made of the rows in the tables, as the archive is gone.
    Rows = 2,
}

/// What a file is: the row of its producer's registry, and when its rows came.
#[derive(Clone, PartialEq, Proto)]
pub struct About {
    /// Its open segment's identity, 16 bytes: what applied marks are kept by.
    #[prost(bytes = "vec", tag = "1")]
    pub segment: Vec<u8>,
    /// Logical database.
    #[prost(string, tag = "2")]
    pub dbms: String,
    /// Table.
    #[prost(string, tag = "3")]
    pub table: String,
    /// Data source id.
    #[prost(string, tag = "4")]
    pub source: String,
    /// Mapping policy id.
    #[prost(string, tag = "5")]
    pub instructions: String,
    /// When it was registered, in microseconds since 1970.
    #[prost(int64, tag = "6")]
    pub time: i64,
    /// Its hash in the registry; empty while it is open.
    #[prost(string, tag = "7")]
    pub hash: String,
    /// Its rows in the registry; 0 while it is open.
    #[prost(uint64, tag = "8")]
    pub rows: u64,
    /// The form of the content that follows.
    #[prost(enumeration = "Form", tag = "9")]
    pub form: i32,
    /// How many bytes of the content that follows, at its beginning, are the ordinals of its rows and when they came, in the form of
    /// the operator's run lists; 0 when that is not known. Behind them is what `form` says.
    #[prost(uint64, tag = "10")]
    pub runs: u64,
    /// The text that creates its table, for a member that has neither the table nor its policy yet.
    #[prost(string, tag = "11")]
    pub create: String,
}

/// A file cannot be given, or not be taken.
#[derive(Clone, PartialEq, Proto)]
pub struct Missing {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The sender had it, and has it no more.
    #[prost(bool, tag = "4")]
    pub lost: bool,
}

/// Rows of an open file, in order.
#[derive(Clone, PartialEq, Proto)]
pub struct Rows {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// What the file is.
    #[prost(message, optional, tag = "3")]
    pub about: Option<About>,
    /// The ordinal of the row that was written before the first of these; 0 when there was none. They are taken only after it.
    #[prost(uint64, tag = "4")]
    pub previous: u64,
    /// Runs of rows that came together.
    #[prost(message, repeated, tag = "5")]
    pub runs: Vec<Run>,
}

/// Rows that came together.
#[derive(Clone, PartialEq, Proto)]
pub struct Run {
    /// The ordinal of the first; the others follow.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// When they came, in microseconds since 1970.
    #[prost(int64, tag = "2")]
    pub received: i64,
    /// The time zone in which times without an offset are meant, by name.
    #[prost(string, tag = "3")]
    pub zone: String,
    /// The rows as JSON texts.
    #[prost(string, repeated, tag = "4")]
    pub rows: Vec<String>,
}

/// A followed file is complete.
#[derive(Clone, PartialEq, Proto)]
pub struct Sealed {
    /// The producer's number.
    #[prost(int64, tag = "1")]
    pub producer: i64,
    /// The file's number.
    #[prost(int64, tag = "2")]
    pub file: i64,
    /// The ordinal of its last row.
    #[prost(uint64, tag = "3")]
    pub ordinal: u64,
    /// The producer's registry on it.
    #[prost(message, optional, tag = "4")]
    pub about: Option<About>,
    /// The ordinals of rows that its producer put into its quarantine: they are no part of the file.
    #[prost(uint64, repeated, tag = "5")]
    pub refused: Vec<u64>,
}

/// Why a link is ended.
#[derive(Clone, PartialEq, Proto)]
pub struct Refused {
    /// What is wrong, and what to do.
    #[prost(string, tag = "1")]
    pub reason: String,
}
