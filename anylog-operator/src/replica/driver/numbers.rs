//! Numbers of a member whose registry is empty, and whether another node has its number.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Driver;
use crate::OperatorError;
use crate::replica::holdings;
use crate::replica::identity::{self, Found};
use crate::tables::blocking;

/// How long mates may take to say which files of this member they know.
const ASKING: Duration = Duration::from_secs(3);
/// How often it is looked whether another node has this member's number.
const DOUBT: Duration = Duration::from_secs(3);
/// How often it is looked whether they did.
const LOOK: Duration = Duration::from_millis(20);
/// Where the numbers of a member begin whose mates cannot be asked: seconds since then. A member that gives less than a file a second
/// has given none of them before.
const NUMBERS_SINCE: i64 = 1_735_689_600;

impl Driver {
    /// Settles where numbers begin in a registry that is empty: behind what mates know, or, when not all of them can be asked, where
    /// none was given before.
    pub(in crate::replica) async fn settle_numbers(&self) -> Result<(), OperatorError> {
        let until = tokio::time::Instant::now() + ASKING;
        loop {
            let unheard = self.member.lock().unheard();
            if unheard.is_empty() {
                return Ok(());
            }
            let silent = unheard.iter().all(|mate| self.has_failed(*mate));
            if silent || tokio::time::Instant::now() >= until || self.stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let number = self.shared.node.clock.now().as_second().saturating_sub(NUMBERS_SINCE).max(0);
        tracing::warn!(
            number,
            "The registry of source files is empty, and not all members of the cluster can be asked for what they have of \
             this one: its numbers go on behind the present second"
        );
        let shared = Arc::clone(&self.shared);
        blocking(move || holdings::number_from(&shared, number.max(holdings::given(&shared)?))).await
    }

    /// Whether a mate was dialled and not reached.
    fn has_failed(&self, mate: i64) -> bool {
        let notes = self.notes.lock();
        notes.mates.get(&mate).is_some_and(|notes| notes.up.is_none() && notes.error.is_some())
    }

    /// Something says that another node has this member's number: looks whether it does. Of two nodes, that one stays that is where the
    /// ledger says.
    pub(super) fn doubt(self: &Arc<Self>) {
        if self.doubts.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = Arc::clone(self);
        self.spawn(async move {
            if let Err(Found::Rival(address)) = identity::rival(&driver.ledger, &driver.own, &driver.instance).await {
                let (member, policy) = (driver.own.member, driver.own.id.clone());
                let text = OperatorError::MemberTaken { member, policy, address }.to_string();
                driver.report("Conflict", format!("No more rows are taken: {text}"));
                driver.conflict.send_replace(Some(text));
            }
            tokio::time::sleep(DOUBT).await;
            driver.doubts.store(false, Ordering::Release);
        });
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    #[test]
    fn numbers_count_from_2025() {
        let began = Timestamp::from_second(super::NUMBERS_SINCE).unwrap();
        assert_eq!(began.to_string(), "2025-01-01T00:00:00Z");
    }
}
