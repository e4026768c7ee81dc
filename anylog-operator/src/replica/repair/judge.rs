//! Who is right about a file that members hold differently.

use std::collections::BTreeMap;

use crate::replica::digest::Digest;

/// What a member has of a file, and says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The member.
    pub(crate) member: i64,
    /// Its rows in the partitions that all compare.
    pub(crate) digest: Digest,
    /// How many rows its registry says that the file has.
    pub(crate) registered: u64,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All have the same, or there is nobody to compare with.
    Same,
    /// Some differ from what is right.
    Differ {
        /// What is right.
        right: Digest,
        /// Who has it.
        by: Vec<i64>,
        /// Who has something else.
        wrong: Vec<i64>,
    },
}

/// Judges. All members that know the same come to the same judgement:
///
/// 0. Values that an archived source file proves ([`super::source`]) are preferred, when all of the file's partitions are there.
/// 1. When all of the file's partitions are there, values whose number of rows is the registered one are preferred, if there are any. The
///    producer's registry is asked, else the one that most members agree on.
/// 2. Of these, the value that most members have is right: rows do not change alike at two members by chance.
/// 3. Else that of the producer.
/// 4. Else that of the member with the lowest number, so that there is one.
pub(crate) fn judge(producer: i64, held: &[Held], whole: bool, proven: &[Digest]) -> Verdict {
    let mut groups: BTreeMap<Digest, Vec<i64>> = BTreeMap::new();
    for one in held {
        groups.entry(one.digest).or_default().push(one.member);
    }
    if groups.len() < 2 {
        return Verdict::Same;
    }
    let registered = registered(producer, held);
    let fits = |digest: &Digest| whole && Some(digest.rows) == registered;
    let any_fits = groups.keys().any(fits);
    let is_proven = |digest: &Digest| whole && proven.contains(digest);
    let any_proven = groups.keys().any(is_proven);
    let best = groups
        .iter()
        .filter(|(digest, _)| if any_proven { is_proven(digest) } else { !any_fits || fits(digest) })
        .max_by_key(|(_, members)| {
            let lowest = members.iter().min().copied().unwrap_or(i64::MAX);
            (members.len(), members.contains(&producer), std::cmp::Reverse(lowest))
        })
        .map(|(digest, members)| (*digest, members.clone()));
    let Some((right, by)) = best else { return Verdict::Same };
    let wrong = held.iter().filter(|one| one.digest != right).map(|one| one.member).collect();
    Verdict::Differ { right, by, wrong }
}

/// How many rows the file has by the registries.
fn registered(producer: i64, held: &[Held]) -> Option<u64> {
    if let Some(own) = held.iter().find(|one| one.member == producer) {
        return Some(own.registered);
    }
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    held.iter().for_each(|one| *counts.entry(one.registered).or_default() += 1);
    counts.into_iter().max_by_key(|(_, members)| *members).map(|(rows, _)| rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(member: i64, rows: u64, sum: u128, registered: u64) -> Held {
        Held { member, digest: Digest { rows, sum }, registered }
    }

    fn wrong(producer: i64, all: &[Held], whole: bool) -> Vec<i64> {
        match judge(producer, all, whole, &[]) {
            Verdict::Same => Vec::new(),
            Verdict::Differ { wrong, .. } => wrong,
        }
    }

    #[test]
    fn equal_values_are_equal() {
        assert_eq!(judge(7, &[held(7, 3, 1, 3), held(8, 3, 1, 3)], true, &[]), Verdict::Same);
        assert_eq!(judge(7, &[held(8, 3, 1, 3)], true, &[]), Verdict::Same);
        assert_eq!(judge(7, &[], true, &[]), Verdict::Same);
    }

    // R20: a producer that lost a row, or has one twice, is wrong, although it produced the file.
    #[test]
    fn the_registered_number_of_rows_decides_first() {
        assert_eq!(wrong(7, &[held(7, 2, 1, 3), held(8, 3, 2, 3)], true), [7]);
        assert_eq!(wrong(7, &[held(7, 4, 1, 3), held(8, 3, 2, 3)], true), [7]);
        assert_eq!(wrong(7, &[held(7, 3, 1, 3), held(8, 2, 2, 3), held(9, 2, 2, 3)], true), [8, 9]);
        // Partitions that are gone at some member took rows with them: their number says nothing.
        assert_eq!(wrong(7, &[held(7, 3, 1, 3), held(8, 2, 2, 3), held(9, 2, 2, 3)], false), [7]);
    }

    // R20: a value that changed at the producer alone does not spread, where an archive shows what it was.
    #[test]
    fn an_archive_proves_more_than_a_producer_says() {
        let all = [held(7, 3, 1, 3), held(8, 3, 2, 3)];
        let proof = |sum| Digest { rows: 3, sum };
        let wrong = |whole, proven: &[Digest]| match judge(7, &all, whole, proven) {
            Verdict::Same => Vec::new(),
            Verdict::Differ { wrong, .. } => wrong,
        };
        assert_eq!(wrong(true, &[proof(2)]), [7]);
        assert_eq!(wrong(true, &[proof(9)]), [8], "it proves nobody right");
        assert_eq!(wrong(true, &[proof(1), proof(2)]), [8]);
        assert_eq!(wrong(false, &[proof(2)]), [8]);
    }

    #[test]
    fn then_most_members_then_the_producer_then_the_lowest_number() {
        assert_eq!(wrong(7, &[held(7, 3, 1, 3), held(8, 3, 2, 3), held(9, 3, 2, 3)], true), [7]);
        assert_eq!(wrong(8, &[held(7, 3, 1, 3), held(8, 3, 2, 3)], true), [7]);
        assert_eq!(wrong(9, &[held(8, 3, 2, 3), held(7, 3, 1, 3)], true), [8]);
        assert_eq!(wrong(9, &[held(7, 2, 1, 3), held(8, 3, 2, 3)], true), [7]);
    }
}
