//! What can go wrong with policies.

use anylog_core::{CommandError, Status};
use anylog_dbms::DbmsError;

use crate::Policy;

/// Why a policy was not taken, found or delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The text is not an object with one root key that holds an object.
    #[error("a policy is a JSON object with one key, its type, that holds an object; {problem}")]
    Structure {
        /// What was found instead.
        problem: String,
    },
    /// An attribute is missing or has the wrong type.
    #[error("the '{kind}' policy is wrong: {problem}")]
    Attribute {
        /// The policy's type.
        kind: String,
        /// Which attribute, and what is wrong with it.
        problem: String,
    },
    /// Another policy has the values that must be unique.
    #[error("a '{kind}' policy with {values} exists already: id {id}")]
    NonUnique {
        /// The policy's type.
        kind: String,
        /// The attributes and values: `name = a and company = b`.
        values: String,
        /// The policy that has them.
        id: String,
    },
    /// Another operator has this address.
    #[error("the address {address} is used by operator '{name}' (id {id})")]
    NonUniqueAddress {
        /// `ip:port`.
        address: String,
        /// The other operator's name.
        name: String,
        /// The other operator's id.
        id: String,
    },
    /// The cluster that an operator names is not in the ledger, or not exactly once.
    #[error("the cluster policy '{id}' that the operator names is not in the ledger")]
    NoCluster {
        /// The id named.
        id: String,
    },
    /// The policy that another one builds on is not there.
    #[error(
        "the '{kind}' policy names the parent '{parent}', which is not in the ledger with the same name and company"
    )]
    NoParent {
        /// The policy's type.
        kind: String,
        /// The id named.
        parent: String,
    },
    /// All 255 member numbers of a cluster are taken.
    #[error("cluster '{cluster}' has no free member number")]
    ClusterFull {
        /// The cluster's id.
        cluster: String,
    },
    /// The id is taken.
    #[error("a policy with id {id} is in the ledger already")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// The id is taken by a policy with another content.
    #[error("policy {id} is in the ledger already, with another {names}")]
    OtherContent {
        /// The id.
        id: String,
        /// The attributes that differ: `'dbms' and 'status'`.
        names: String,
    },
    /// No policy has this id or satisfies this condition.
    #[error("no policy {wanted} in the ledger")]
    NotFound {
        /// What was looked for: `with id X`.
        wanted: String,
    },
    /// Several policies satisfy a condition that must select one.
    #[error("{count} policies {wanted} in the ledger, where one is needed")]
    Ambiguous {
        /// What was looked for.
        wanted: String,
        /// How many were found.
        count: usize,
    },
    /// A write names neither the local copy nor a master.
    #[error("the policy has no destination")]
    NoDestination,
    /// The master looked at the policy and said no.
    #[error("the master {master} refused the policy: {error}")]
    Refused {
        /// `host:port`.
        master: String,
        /// Its words.
        error: CommandError,
    },
    /// The master gave no verdict.
    #[error("the master {master} gave no verdict: {reason}")]
    NoVerdict {
        /// `host:port`.
        master: String,
        /// Why not.
        reason: String,
    },
    /// The master's ledger changed again and again while a policy was validated.
    #[error("the ledger table changed too often while the policy was validated")]
    Contention,
    /// The master's database failed.
    #[error("the ledger database failed: {0}")]
    Dbms(#[from] DbmsError),
    /// The local copy cannot be written or read.
    #[error("the ledger file '{path}' failed: {reason}")]
    File {
        /// The file.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// There is no space left for the local copy.
    #[error("no space left for the ledger file '{path}'")]
    DiskFull {
        /// The file.
        path: String,
    },
    /// The synchroniser runs already.
    #[error("the blockchain synchroniser runs already: {details}")]
    SyncRunning {
        /// What it does.
        details: String,
    },
    /// The synchroniser does not run.
    #[error("the blockchain synchroniser is not running")]
    SyncNotRunning,
}

impl LedgerError {
    /// A policy whose id is that of another one.
    pub(crate) fn other_content(policy: &Policy, known: &Policy) -> Self {
        if policy.kind() != known.kind() {
            return Self::DuplicateId { id: known.id().to_owned() };
        }
        let names: Vec<String> = policy.differences(known).iter().map(|name| format!("'{name}'")).collect();
        Self::OtherContent { id: known.id().to_owned(), names: names.join(" and ") }
    }

    /// The documented status of the error.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Structure { .. } | Self::Attribute { .. } | Self::NoParent { .. } | Self::ClusterFull { .. } => {
                Status::WRONG_POLICY
            }
            Self::NonUnique { .. } => Status::NON_UNIQUE_VALUES,
            Self::NonUniqueAddress { .. } => Status::NON_UNIQUE_ADDRESS,
            Self::NoCluster { .. } => Status::NO_CLUSTER_POLICY,
            Self::DuplicateId { .. } | Self::OtherContent { .. } => Status::DUPLICATE_OBJECT_ID,
            Self::NotFound { .. } => Status::NO_POLICY,
            Self::Ambiguous { .. } => Status::NON_UNIQUE_POLICY,
            Self::NoDestination => Status::COMMAND_STRUCTURE,
            Self::Refused { error, .. } => error.status,
            Self::NoVerdict { .. } => Status::REFUSED,
            Self::Contention => Status::BLOCKCHAIN_OPERATION,
            Self::Dbms(DbmsError::NotConnected { .. }) => Status::DBMS_NOT_CONNECTED,
            Self::Dbms(error) => CommandError::from(error.clone()).status,
            Self::File { .. } => Status::WRITE_FAILURE,
            Self::DiskFull { .. } => Status::DISK_FULL,
            Self::SyncRunning { .. } => Status::PROCESS_RUNNING,
            Self::SyncNotRunning => Status::SYNC_NOT_RUNNING,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Structure { .. } => "look at it with: json !policy".to_owned(),
            Self::NonUnique { id, .. } => format!("look at it with: blockchain get * where id = {id}"),
            Self::NonUniqueAddress { .. } => {
                "give the operator another port, or use the policy that is there".to_owned()
            }
            Self::NoCluster { .. } => {
                "insert the cluster policy first; find clusters with: blockchain get cluster".to_owned()
            }
            Self::NoParent { .. } => "insert the parent first, or leave 'parent' away".to_owned(),
            Self::DuplicateId { id } | Self::OtherContent { id, .. } => {
                format!("look at it with: blockchain get * where id = {id}")
            }
            Self::NotFound { .. } => "look at the ledger with: blockchain get *".to_owned(),
            Self::NoDestination => "name one: local = true, or master = ip:port".to_owned(),
            Self::NoVerdict { .. } => {
                "with local = true the policy is kept here and sent again by: run blockchain sync".to_owned()
            }
            Self::Contention => "try again".to_owned(),
            Self::Dbms(DbmsError::NotConnected { .. }) => {
                "only a master holds the ledger in a database: connect dbms blockchain where type = sqlite".to_owned()
            }
            Self::DiskFull { .. } => "free space on the disk; the ledger is unchanged".to_owned(),
            Self::SyncRunning { .. } => "end it with: exit synchronizer".to_owned(),
            Self::SyncNotRunning => {
                "start it with: run blockchain sync where source = master and time = 30 seconds and dest = file and \
                 connection = ip:port"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        let answer = CommandError::new(error.status(), error.to_string());
        match error.hint() {
            Some(hint) => answer.hint(hint),
            None => answer,
        }
    }
}
