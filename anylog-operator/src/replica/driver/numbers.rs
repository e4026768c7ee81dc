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
/// Where the numbers of a member begin whose mates cannot be asked: so many for each second since then. A member that gave fewer files
/// a second in its former life has given none of them before. They fit the registry's 32 bits until the year 2033.
const NUMBERS_SINCE: i64 = 1_735_689_600;
const NUMBERS_A_SECOND: i64 = 8;

fn first_number(now: i64) -> i64 {
    now.saturating_sub(NUMBERS_SINCE).clamp(0, i64::from(i32::MAX) / NUMBERS_A_SECOND) * NUMBERS_A_SECOND
}

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
        let number = first_number(self.shared.node.clock.now().as_second());
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

    // DUR-3: a member that gave some files a second and lost its disk after a minute gives other numbers.
    #[test]
    fn numbers_run_ahead_of_the_files_that_were_given() {
        let start = super::NUMBERS_SINCE + 59_774_320;
        assert!(super::first_number(start + 60) > super::first_number(start) + 60 * 7);
        assert!(super::first_number(i64::MAX) <= i64::from(i32::MAX));
        assert_eq!(super::first_number(0), 0);
    }
}
