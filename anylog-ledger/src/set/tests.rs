use proptest::prelude::*;
use serde_json::json;

use super::*;

fn policy(id: u8, content: u8, local: bool) -> Arc<Policy> {
    let mark = if local { "local" } else { "global" };
    let kind = if id.is_multiple_of(3) { "site" } else { "pump" };
    let name = match content {
        0 => json!("*"),
        1 => json!(1),
        2 => json!("1"),
        3 => json!(["A", "b"]),
        4 => json!({"x": 1}),
        _ => json!("a"),
    };
    let inner = json!({"id": format!("p{id}"), "name": name, "date": format!("d{}", content % 3), "ledger": mark});
    Arc::new(Policy::from_value(json!({kind: inner})).unwrap())
}

fn ids(set: &PolicySet) -> Vec<String> {
    set.iter().map(|policy| policy.id().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However a set came to be, it is that of the same policies made at once; clones keep what they had.
    #[test]
    fn changes_lead_to_the_same_set(
        steps in proptest::collection::vec((0..200_u8, proptest::option::weighted(0.8, (0..6_u8, any::<bool>()))), 0..500),
        asked in 0..500_usize,
    ) {
        let mut set = PolicySet::default();
        let mut known: BTreeMap<String, Arc<Policy>> = BTreeMap::new();
        let mut kept = Vec::new();
        for (at, (id, content)) in steps.iter().enumerate() {
            match content {
                Some((content, local)) => {
                    let policy = policy(*id, *content, *local);
                    prop_assert_eq!(set.insert(Arc::clone(&policy)), known.insert(format!("p{id}"), policy));
                }
                None => prop_assert_eq!(set.remove(&format!("p{id}")), known.remove(&format!("p{id}"))),
            }
            if at == asked {
                // From here on there are indexes to be kept.
                prop_assert!(set.candidates("pump", &[("name", "a")]).len() <= set.len());
                prop_assert!(set.candidates("*", &[("name", "1"), ("date", "d1")]).len() <= set.len());
            }
            if at % 200 == 0 {
                kept.push((set.clone(), known.clone()));
            }
        }
        kept.push((set, known));
        for (set, known) in kept {
            let fresh: PolicySet = known.values().cloned().collect();
            prop_assert_eq!(ids(&set), ids(&fresh));
            prop_assert_eq!(set.version(), fresh.version());
            prop_assert_eq!(set.len(), known.len());
            let local: Vec<_> = set.iter().filter(|policy| policy.is_local()).cloned().collect();
            prop_assert_eq!(set.local().cloned().collect::<Vec<_>>(), local);
            for kind in ["site", "pump", "*", "none"] {
                let of_kind = |set: &PolicySet| set.of_kind(kind).map(|policy| policy.id().to_owned()).collect::<Vec<_>>();
                prop_assert_eq!(of_kind(&set), of_kind(&fresh));
                for value in ["a", "A", "1", "b", "x"] {
                    let found = |set: &PolicySet| {
                        let found = set.candidates(kind, &[("name", value)]);
                        found.iter().map(|policy| policy.id().to_owned()).collect::<Vec<_>>()
                    };
                    let here = found(&set);
                    prop_assert_eq!(&here, &found(&fresh));
                    for policy in set.of_kind(kind) {
                        let has = match policy.get("name").unwrap() {
                            Value::String(text) => text == "*" || text.eq_ignore_ascii_case(value),
                            Value::Number(number) => value == number.to_string(),
                            Value::Array(list) => list.iter().any(|e| e.as_str().unwrap().eq_ignore_ascii_case(value)),
                            _ => false,
                        };
                        prop_assert!(!has || here.iter().any(|id| id == policy.id()));
                    }
                }
            }
            for id in 0..200_u8 {
                let id = format!("p{id}");
                prop_assert_eq!(set.get(&id), known.get(&id));
            }
        }
    }
}

#[test]
fn the_version_depends_on_content_and_not_on_the_way_to_it() {
    let (a, b) = (policy(1, 1, false), policy(2, 1, false));
    let version = |policies: &[&Arc<Policy>]| policies.iter().copied().cloned().collect::<PolicySet>().version();
    assert_eq!(version(&[&a, &b]), version(&[&b, &a]));
    assert_ne!(version(&[&a, &b]), version(&[&a]));
    assert_ne!(version(&[&a]), version(&[&policy(1, 2, false)]));
    assert_eq!(version(&[]), "d41d8cd98f00b204e9800998ecf8427e");
}
