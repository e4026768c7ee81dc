//! Which times in data are believed, and how many partitions they may make: `set time window`.

use std::collections::BTreeMap;

use anylog_dbms::schema::TimeWindow;

use crate::OperatorError;

/// Partitions of a table that rows make at most, unless it is said otherwise.
pub const DEFAULT_PARTITIONS: usize = 4096;

/// What is believed of times in data (R16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRule {
    /// How far from now a time may lie.
    pub window: TimeWindow,
    /// How many partitions a table may have before rows make no further ones. The partition of the present is always made, so that
    /// a broken clock, or a long history, does not stop the others.
    pub partitions: usize,
}

impl Default for TimeRule {
    fn default() -> Self {
        Self { window: TimeWindow::default(), partitions: DEFAULT_PARTITIONS }
    }
}

/// Rules by scope: of a table, else of its database, else of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeRules {
    node: TimeRule,
    scoped: BTreeMap<(String, String), TimeRule>,
}

impl TimeRules {
    /// Sets the rule of a scope; none removes it, for the node the default holds again.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for a table without a database.
    pub fn set(
        &mut self,
        dbms: Option<&str>,
        table: Option<&str>,
        rule: Option<TimeRule>,
    ) -> Result<(), OperatorError> {
        match (dbms, table) {
            (None, Some(_)) => {
                let reason = "a time window of a table needs its database: add dbms = <name>".to_owned();
                return Err(OperatorError::Threshold { reason });
            }
            (None, None) => self.node = rule.unwrap_or_default(),
            (Some(dbms), table) => {
                let key = (dbms.to_owned(), table.unwrap_or("*").to_owned());
                match rule {
                    Some(rule) => self.scoped.insert(key, rule),
                    None => self.scoped.remove(&key),
                };
            }
        }
        Ok(())
    }

    /// The rule that holds for a table.
    #[must_use]
    pub fn of(&self, dbms: &str, table: &str) -> TimeRule {
        let scope = |table: &str| self.scoped.get(&(dbms.to_owned(), table.to_owned()));
        scope(table).or_else(|| scope("*")).copied().unwrap_or(self.node)
    }

    /// The rule of the node.
    #[must_use]
    pub fn node(&self) -> TimeRule {
        self.node
    }

    /// The rules of databases (table `*`) and tables.
    pub fn scoped(&self) -> impl Iterator<Item = (&str, &str, TimeRule)> {
        self.scoped.iter().map(|((dbms, table), rule)| (dbms.as_str(), table.as_str(), *rule))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // R16
    #[test]
    fn the_narrowest_scope_holds() {
        let rule = |days: u64| TimeRule {
            window: TimeWindow { past: Some(Duration::from_secs(days * 86_400)), ..TimeWindow::default() },
            ..TimeRule::default()
        };
        let mut rules = TimeRules::default();
        assert_eq!(rules.of("d", "t"), TimeRule::default());
        rules.set(None, None, Some(rule(3))).unwrap();
        rules.set(Some("d"), None, Some(rule(2))).unwrap();
        rules.set(Some("d"), Some("t"), Some(rule(1))).unwrap();
        assert_eq!([rules.of("x", "t"), rules.of("d", "u"), rules.of("d", "t")], [rule(3), rule(2), rule(1)]);
        rules.set(Some("d"), Some("t"), None).unwrap();
        assert_eq!(rules.of("d", "t"), rule(2));
        rules.set(None, None, None).unwrap();
        assert_eq!(rules.node(), TimeRule::default());
        assert!(rules.set(None, Some("t"), None).is_err());
    }
}
