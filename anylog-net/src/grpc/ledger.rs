//! Questions about the ledger, to and from their messages.

use anylog_core::CommandError;

use super::proto;
use super::proto::ledger_difference::Basis;
use crate::peers::{LedgerBasis, LedgerDifference, LedgerQuestion};

impl From<LedgerQuestion> for proto::LedgerChangesRequest {
    fn from(question: LedgerQuestion) -> Self {
        Self { known_version: question.known_version, digests: question.digests, whole: question.whole }
    }
}

impl From<proto::LedgerChangesRequest> for LedgerQuestion {
    fn from(request: proto::LedgerChangesRequest) -> Self {
        Self { known_version: request.known_version, digests: request.digests, whole: request.whole }
    }
}

impl From<LedgerDifference> for proto::LedgerDifference {
    fn from(difference: LedgerDifference) -> Self {
        let (basis, parts) = match difference.basis {
            LedgerBasis::Known => (Basis::Known, Vec::new()),
            LedgerBasis::Parts(parts) => (Basis::Parts, parts),
            LedgerBasis::Whole => (Basis::Whole, Vec::new()),
            LedgerBasis::Unknown => (Basis::Unknown, Vec::new()),
        };
        let deleted = difference.deleted.into_iter().map(|(id, date)| proto::Deletion { id, date }).collect();
        Self { version: difference.version, basis: basis.into(), parts, policies: difference.policies, deleted }
    }
}

impl TryFrom<proto::LedgerDifference> for LedgerDifference {
    type Error = CommandError;

    fn try_from(message: proto::LedgerDifference) -> Result<Self, CommandError> {
        let basis = match message.basis() {
            Basis::Known => LedgerBasis::Known,
            Basis::Parts => LedgerBasis::Parts(message.parts),
            Basis::Whole => LedgerBasis::Whole,
            Basis::Unknown => LedgerBasis::Unknown,
            Basis::Unspecified => {
                return Err(CommandError::process(
                    "The node answered with a difference of a kind that is not known here",
                )
                .hint("bring both nodes to one version"));
            }
        };
        let deleted = message.deleted.into_iter().map(|deletion| (deletion.id, deletion.date)).collect();
        Ok(Self { version: message.version, basis, policies: message.policies, deleted })
    }
}
