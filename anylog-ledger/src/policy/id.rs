//! Ids: the MD5 of a policy's definition.
//!
//! The same definition published twice gets the same id, so the second is refused as a duplicate.

use anylog_core::time::{Clock, policy_date};
use md5::{Digest, Md5};
use serde_json::Value;

use super::python_text::python_text;
use super::{Policy, shown};

/// The attributes that make the id of a table policy, in this order.
const TABLE: &[&str] = &["company", "name", "dbms"];
/// The attributes that make the id of a cluster policy, in this order.
const CLUSTER: &[&str] = &["company", "name", "parent", "table"];

/// MD5 of a text in lower-case hexadecimal.
#[must_use]
pub fn md5_hex(text: &str) -> String {
    let digest = Md5::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Policy {
    /// The id that belongs to this definition. `date`, `ledger` and a present `id` do not enter.
    #[must_use]
    pub fn computed_id(&self) -> String {
        md5_hex(&self.id_text())
    }

    fn id_text(&self) -> String {
        match self.kind() {
            "table" => self.attribute_text(TABLE),
            "cluster" => self.attribute_text(CLUSTER),
            _ => python_text(self.without("date").without("ledger").without("id").value()),
        }
    }

    fn attribute_text(&self, attributes: &[&str]) -> String {
        let mut text = format!("{}:", self.kind());
        for name in attributes {
            let Some(value) = self.get(name) else { continue };
            let value = match value {
                Value::String(_) => shown(value),
                other => python_text(other),
            };
            text.push_str(&format!("{name}:{value}:"));
        }
        text
    }

    /// Adds what is missing: first `id`, then `date`. A present `ledger` moves to the end. A policy that has both is
    /// unchanged.
    #[must_use]
    pub fn prepare(&self, clock: &dyn Clock) -> Policy {
        let has = |name: &str| self.get(name).is_some_and(|value| !value.is_null());
        if !self.id().is_empty() && has("date") {
            return self.clone();
        }
        let ledger = self.get("ledger").cloned();
        let mut prepared = self.without("ledger");
        if prepared.id().is_empty() {
            prepared = prepared.with("id", self.computed_id());
        }
        if !has("date") {
            prepared = prepared.with("date", policy_date(clock.now()));
        }
        match ledger {
            Some(ledger) => prepared.with("ledger", ledger),
            None => prepared,
        }
    }
}

#[cfg(test)]
mod tests {
    use anylog_core::time::ManualClock;
    use serde_json::json;

    use super::*;

    fn policy(value: Value) -> Policy {
        Policy::from_value(value).unwrap()
    }

    #[test]
    fn the_published_ids_are_reproduced() {
        let cluster =
            json!({"cluster": {"company": "Smart City", "dbms": "cos", "name": "power-plant", "status": "active"}});
        assert_eq!(policy(cluster).computed_id(), "2a5f83e1f2e63c16bbf5339988bf7489");

        let child = json!({"cluster": {"parent": "2a5f83e1f2e63c16bbf5339988bf7489", "name": "power-plant",
            "company": "Smart City", "table": [{"dbms": "cos", "name": "pv"}], "source": "Node at 1.2.3.4:5"}});
        assert_eq!(policy(child).computed_id(), "aa3e66600da1daf0b8579e5175d33916");

        let table = json!({"table": {"name": "syslog", "dbms": "monitoring", "create": "CREATE TABLE ..."}});
        assert_eq!(policy(table).computed_id(), "011886bb90df2d265ab9a0854eddf07f");

        let operator = json!({"operator": {"name": "power-plant-operator1", "company": "Smart City",
            "hostname": "smart-city-operator2", "ip": "172.105.6.90", "port": 32148, "rest_port": 32149,
            "broker_port": 32150, "cluster": "2a5f83e1f2e63c16bbf5339988bf7489", "main": true,
            "loc": "39.8958, 95.9922", "country": "US", "state": "KS", "city": "Sabetha",
            "date": "2024-01-01T00:00:00.000000Z", "ledger": "global"}});
        assert_eq!(policy(operator).computed_id(), "3d986f80eb86cf4b1529dd297e1e605f");
    }

    #[test]
    fn preparing_adds_only_what_is_missing() {
        let clock = ManualClock::new("2026-11-23T05:22:00.455415Z".parse().unwrap());
        let bare = policy(json!({"site": {"ledger": "local", "name": "s"}}));
        let prepared = bare.prepare(&*clock);
        let keys: Vec<&str> = prepared.inner().keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "id", "date", "ledger"]);
        assert_eq!(prepared.text("date"), Some("2026-11-23T05:22:00.455415Z"));
        assert_eq!(prepared.prepare(&*clock), prepared);

        let own = policy(json!({"site": {"id": "mine", "name": "s"}})).prepare(&*clock);
        assert_eq!(own.id(), "mine");
        assert_eq!(own.text("date"), Some("2026-11-23T05:22:00.455415Z"));
    }

    #[test]
    fn a_published_id_does_not_depend_on_what_is_added_later() {
        let clock = ManualClock::new("2026-11-23T05:22:00Z".parse().unwrap());
        let bare = policy(json!({"site": {"name": "s"}}));
        assert_eq!(bare.prepare(&*clock).computed_id(), bare.computed_id());
    }
}
