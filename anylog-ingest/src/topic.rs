//! Topics and topic filters (MQTT 3.1.1 and 5, section 4.7).

use std::collections::HashMap;

/// Levels that a filter may have. A tree of filters is as deep as its filters, so this bounds recursion.
pub const MAX_LEVELS: usize = 128;

/// Whether a filter is well-formed: `#` only as the last level, `+` only as a whole level (MQTT-4.7.1-1 to -3), not empty
/// (MQTT-4.7.3-1), without NUL (MQTT-4.7.3-2), at most [`MAX_LEVELS`] levels.
///
/// ```
/// use anylog_ingest::topic::valid_filter;
/// assert!(valid_filter("plant/+/pump/#"));
/// assert!(!valid_filter("plant/#/pump"));
/// assert!(!valid_filter("plant+"));
/// ```
#[must_use]
pub fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return false;
    }
    let levels = filter.split('/').count();
    levels <= MAX_LEVELS
        && filter.split('/').enumerate().all(|(at, level)| match level {
            "#" => at + 1 == levels,
            "+" => true,
            level => !level.contains(['#', '+']),
        })
}

/// Whether a name may be published to: not empty, without wildcards (MQTT-3.3.2-2) and NUL.
#[must_use]
pub fn valid_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 65_535 && !topic.contains(['#', '+', '\0'])
}

/// Whether a filter holds a wildcard.
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.contains(['#', '+'])
}

/// Whether a topic matches a filter. A wildcard at the first level does not match a topic that begins with `$`
/// (MQTT-4.7.2-1).
///
/// ```
/// use anylog_ingest::topic::matches;
/// assert!(matches("a/#", "a"));
/// assert!(matches("a/+/c", "a/b/c"));
/// assert!(!matches("#", "$SYS/load"));
/// ```
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut topics = topic.split('/');
    for level in filter.split('/') {
        match (level, topics.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    topics.next().is_none()
}

/// Values by topic filter.
#[derive(Debug)]
pub(crate) struct TopicTree<T> {
    root: Branch<T>,
    len: usize,
}

#[derive(Debug)]
struct Branch<T> {
    children: HashMap<Box<str>, Branch<T>>,
    values: Vec<T>,
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Self { children: HashMap::new(), values: Vec::new() }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self { root: Branch::default(), len: 0 }
    }
}

impl<T> TopicTree<T> {
    /// How many values the tree holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True without values.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value under a valid filter.
    pub(crate) fn insert(&mut self, filter: &str, value: T) {
        let mut branch = &mut self.root;
        for level in filter.split('/') {
            branch = branch.children.entry(level.into()).or_default();
        }
        branch.values.push(value);
        self.len += 1;
    }

    /// Removes the values under `filter` for which `which` holds, and branches that became empty.
    pub(crate) fn remove(&mut self, filter: &str, which: impl Fn(&T) -> bool) {
        let levels: Vec<&str> = filter.split('/').collect();
        self.len -= remove(&mut self.root, &levels, &which);
    }

    /// Shows every value under this very filter.
    pub(crate) fn visit_filter<'a>(&'a self, filter: &str, see: impl FnMut(&'a T)) {
        let branch = filter.split('/').try_fold(&self.root, |branch, level| branch.children.get(level));
        branch.into_iter().flat_map(|branch| &branch.values).for_each(see);
    }

    /// Shows every value whose filter matches `topic`; `exact` tells that the filter is the topic itself.
    pub(crate) fn visit<'a>(&'a self, topic: &str, mut see: impl FnMut(&'a T, bool)) {
        if !self.is_empty() {
            visit(&self.root, Some(topic), topic.starts_with('$'), true, &mut see);
        }
    }
}

fn remove<T>(branch: &mut Branch<T>, levels: &[&str], which: &impl Fn(&T) -> bool) -> usize {
    let Some((level, rest)) = levels.split_first() else {
        let before = branch.values.len();
        branch.values.retain(|value| !which(value));
        return before - branch.values.len();
    };
    let Some(child) = branch.children.get_mut(*level) else { return 0 };
    let removed = remove(child, rest, which);
    if child.values.is_empty() && child.children.is_empty() {
        branch.children.remove(*level);
    }
    removed
}

fn visit<'a, T>(
    branch: &'a Branch<T>,
    topic: Option<&str>,
    reserved: bool,
    exact: bool,
    see: &mut impl FnMut(&'a T, bool),
) {
    // `a/#` matches `a` as well (4.7.1.2). A wildcard never matches the first level of a `$` topic (MQTT-4.7.2-1).
    if !reserved && let Some(all) = branch.children.get("#") {
        all.values.iter().for_each(|value| see(value, false));
    }
    let Some(topic) = topic else {
        branch.values.iter().for_each(|value| see(value, exact));
        return;
    };
    let (level, rest) = topic.split_once('/').map_or((topic, None), |(level, rest)| (level, Some(rest)));
    if let Some(child) = branch.children.get(level).filter(|_| level != "#" && level != "+") {
        visit(child, rest, false, exact, see);
    }
    if !reserved && let Some(any) = branch.children.get("+") {
        visit(any, rest, false, false, see);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(filters: &[&str], topic: &str) -> Vec<String> {
        let mut tree = TopicTree::default();
        for filter in filters {
            tree.insert(filter, (*filter).to_owned());
        }
        let mut found = Vec::new();
        tree.visit(topic, |filter, _| found.push(filter.clone()));
        found.sort();
        found
    }

    #[test]
    fn wildcards_match_as_the_standard_says() {
        let filters = ["#", "+", "/+", "a/#", "a/+", "a/+/c", "a/b", "+/+"];
        assert_eq!(found(&filters, "a"), ["#", "+", "a/#"]);
        assert_eq!(found(&filters, "a/b"), ["#", "+/+", "a/#", "a/+", "a/b"]);
        assert_eq!(found(&filters, "a/b/c"), ["#", "a/#", "a/+/c"]);
        assert_eq!(found(&filters, "/finance"), ["#", "+/+", "/+"]);
        assert_eq!(found(&["#", "+/x", "$SYS/#"], "$SYS/x"), ["$SYS/#"]);
        assert_eq!(found(&["a//c", "a/+/c"], "a//c"), ["a/+/c", "a//c"]);
    }

    #[test]
    fn exact_matches_are_told_apart() {
        let mut tree = TopicTree::default();
        tree.insert("a/+", 1);
        tree.insert("a/b", 2);
        let mut exact = Vec::new();
        tree.visit("a/b", |value, is_exact| exact.push((*value, is_exact)));
        exact.sort_unstable();
        assert_eq!(exact, [(1, false), (2, true)]);
        tree.remove("a/b", |_| true);
        tree.remove("a/+", |value| *value == 3);
        assert_eq!(tree.len(), 1);
        tree.remove("a/+", |value| *value == 1);
        assert!(tree.is_empty() && tree.root.children.is_empty());
    }

    #[test]
    fn filters_are_checked() {
        for good in ["#", "+", "a", "/", "a/+/b/#", "a b/ü", "$SYS/#"] {
            assert!(valid_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "+a", "a+/b", "a\0", "##", "a/b#"] {
            assert!(!valid_filter(bad), "{bad}");
        }
        assert!(!valid_filter(&"/".repeat(MAX_LEVELS)));
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_the_rule(
            filters in proptest::collection::vec("[ab+$]?(/[ab+]?){0,3}(/#)?", 1..8),
            topic in "[ab$]?(/[ab]?){0,3}",
        ) {
            prop_assume!(valid_topic(&topic));
            let filters: Vec<&str> = filters.iter().map(String::as_str).filter(|f| valid_filter(f)).collect();
            let mut expected: Vec<String> =
                filters.iter().filter(|f| matches(f, &topic)).map(|f| (*f).to_owned()).collect();
            expected.sort();
            prop_assert_eq!(found(&filters, &topic), expected);
        }
    }
}
