//! Sets of files against sets of single numbers.

use std::collections::BTreeSet;

use anylog_replica::FileSet;
use anylog_replica::files::{HIGHEST, RangeError};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn numbers() -> impl Strategy<Value = BTreeSet<i64>> {
    btree_set(1_i64..60, 0..40)
}

fn set(numbers: &BTreeSet<i64>) -> FileSet {
    numbers.iter().copied().collect()
}

/// That ranges are in order, and neither touch nor overlap.
fn is_sound(set: &FileSet) -> bool {
    let ranges: Vec<_> = set.ranges().collect();
    ranges.iter().all(|(first, last)| first <= last) && ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
}

fn single(set: &FileSet) -> BTreeSet<i64> {
    set.ranges().flat_map(|(first, last)| first..=last).collect()
}

proptest! {
    #[test]
    fn a_set_of_ranges_is_a_set_of_numbers(changes in vec((1_i64..60, any::<bool>()), 0..120)) {
        let (mut set, mut model) = (FileSet::new(), BTreeSet::new());
        for (number, insert) in changes {
            if insert {
                prop_assert_eq!(set.insert(number), model.insert(number));
            } else {
                prop_assert_eq!(set.remove(number), model.remove(&number));
            }
            prop_assert!(is_sound(&set));
        }
        prop_assert_eq!(single(&set), model.clone());
        prop_assert_eq!(set.len(), model.len() as u64);
        prop_assert_eq!((set.first(), set.last()), (model.first().copied(), model.last().copied()));
        let contiguous = (1..).take_while(|number| model.contains(number)).last().unwrap_or(0);
        prop_assert_eq!(set.contiguous(), contiguous);
        for number in 0..62 {
            prop_assert_eq!(set.contains(number), model.contains(&number));
            prop_assert_eq!(set.next_from(number), model.range(number..).next().copied());
        }
    }

    #[test]
    fn ranges_are_inserted_as_their_numbers(ranges in vec((1_i64..60, 0_i64..12), 0..20)) {
        let (mut set, mut model) = (FileSet::new(), BTreeSet::new());
        for (first, more) in ranges {
            set.insert_range(first, first + more);
            model.extend(first..=first + more);
            prop_assert!(is_sound(&set));
        }
        prop_assert_eq!(single(&set), model);
    }

    #[test]
    fn a_difference_is_what_the_other_lacks(here in numbers(), there in numbers(), from in 0_i64..62) {
        let (a, b) = (set(&here), set(&there));
        let difference = a.difference(&b);
        prop_assert!(is_sound(&difference));
        let expected: BTreeSet<i64> = here.difference(&there).copied().collect();
        prop_assert_eq!(a.next_beside(&b, from), expected.range(from..).next().copied());
        prop_assert_eq!(single(&difference), expected);
        let mut both = a.clone();
        both.extend(&b);
        prop_assert!(is_sound(&both));
        prop_assert_eq!(single(&both), here.union(&there).copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn ranges_travel_in_any_order(numbers in numbers(), turn in 0_usize..20) {
        let set = set(&numbers);
        let mut pairs: Vec<[i64; 2]> = set.to_pairs().chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        let count = pairs.len().max(1);
        pairs.rotate_left(turn % count);
        prop_assert_eq!(FileSet::from_pairs(&pairs.concat()), Ok(set));
    }

    #[test]
    fn any_numbers_are_ranges_or_an_error(pairs in vec(any::<i64>(), 0..12)) {
        match FileSet::from_pairs(&pairs) {
            Ok(set) => {
                prop_assert!(is_sound(&set));
                prop_assert!(pairs.len() % 2 == 0);
            }
            Err(RangeError { first, last }) => prop_assert!(first < 1 || last < first || last > HIGHEST),
        }
    }
}

#[test]
fn the_ends_of_numbers_do_not_overflow() {
    let mut set = FileSet::from_pairs(&[1, HIGHEST]).unwrap();
    assert_eq!((set.len(), set.fragments()), (HIGHEST as u64, 1));
    assert!(set.remove(HIGHEST) && !set.contains(HIGHEST) && set.contains(HIGHEST - 1));
    set.insert_range(i64::MIN, i64::MAX);
    assert_eq!((set.len(), set.next_beside(&FileSet::new(), 5)), (u64::MAX, Some(5)));
    assert_eq!(set.difference(&set.clone()), FileSet::new());
    assert_eq!(FileSet::new().difference(&set), FileSet::new());
    assert!(FileSet::from_pairs(&[7]).is_err());
    assert_eq!(format!("{:?}", FileSet::from_pairs(&[1, 3, 5, 5]).unwrap()), "{1..=3, 5}");
}
