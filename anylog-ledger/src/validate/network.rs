//! The rules of operators and clusters, in the documented order.

use serde_json::Value;

use super::{Check, Members, equal};
use crate::{LedgerError, Policy};

impl Check<'_> {
    /// The operator names a cluster and an address, and no other operator has that address.
    pub(super) fn operator_address(&self) -> Result<(), LedgerError> {
        let (Some(_), Some(ip), Some(port)) =
            (self.policy.get("cluster"), self.policy.get("ip"), self.policy.get("port"))
        else {
            return Err(self.wrong("'cluster', 'ip' and 'port' must be there"));
        };
        let same =
            |other: &Policy, name: &str, value: &Value| other.get(name).is_some_and(|theirs| equal(theirs, value));
        let others = self.with("operator", &[("ip", ip), ("port", port)]);
        match others.iter().find(|other| same(other, "ip", ip) && same(other, "port", port)) {
            None => Ok(()),
            Some(other) => Err(LedgerError::NonUniqueAddress {
                address: format!("{}:{}", crate::policy::shown(ip), crate::policy::shown(port)),
                name: other.shown("name").unwrap_or_default(),
                id: other.id().to_owned(),
            }),
        }
    }

    /// The member numbers that other operators of the cluster have.
    fn members(&self) -> [bool; 256] {
        let mut taken = [false; 256];
        let Some(cluster) = self.policy.get("cluster") else { return taken };
        for other in self.with("operator", &[("cluster", cluster)]) {
            if other.get("cluster") == Some(cluster)
                && let Some(member) = other.get("member").and_then(crate::view::integer)
                && let Some(slot) = usize::try_from(member).ok().and_then(|member| taken.get_mut(member))
            {
                *slot = true;
            }
        }
        taken
    }

    /// Whether the member number is not a part of the definition that the id was computed of: then it was drawn for the policy, and
    /// nobody asked for just this one.
    pub(super) fn member_was_drawn(&self) -> bool {
        !self.policy.id().is_empty() && self.policy.without("member").computed_id() == self.policy.id()
    }

    /// Whether another operator of the cluster has the member number.
    pub(super) fn member_is_taken(&self) -> bool {
        let member = self.policy.get("member").and_then(crate::view::integer);
        let member = member.and_then(|member| usize::try_from(member).ok());
        member.is_some_and(|member| self.members().get(member).is_some_and(|taken| *taken))
    }

    /// A member number from 1 to 255 that no operator of the cluster has.
    pub(super) fn free_member(&self, members: &Members) -> Result<i64, LedgerError> {
        let cluster = self.policy.text("cluster").unwrap_or_default();
        let taken = self.members();
        // A draw that is taken moves on to the next free number, so a nearly full cluster needs no luck.
        let drawn = members.draw();
        let free = (0..=255u8)
            .map(|step| drawn.wrapping_add(step))
            .find(|member| *member != 0 && !taken[usize::from(*member)]);
        free.map(i64::from).ok_or_else(|| LedgerError::ClusterFull { cluster: cluster.to_owned() })
    }

    /// Names and member numbers are unique.
    pub(super) fn operator_names(&self) -> Result<(), LedgerError> {
        self.unique(&["company", "name"])?;
        self.unique(&["cluster", "member"])
    }

    /// The cluster is there once, and the name is unique in the network.
    pub(super) fn operator_cluster(&self) -> Result<(), LedgerError> {
        let member = self.policy.get("member").and_then(crate::view::integer).unwrap_or_default();
        if !(1..=255).contains(&member) {
            return Err(self.wrong(format!("'member' must be from 1 to 255, and is {member}")));
        }
        let port = self.policy.get("port").and_then(crate::view::integer).unwrap_or_default();
        if !(1..=65_535).contains(&port) {
            return Err(self.wrong(format!("'port' must be from 1 to 65535, and is {port}")));
        }
        let cluster = self.policy.text("cluster").unwrap_or_default();
        if self.others.get(cluster).is_none_or(|other| other.kind() != "cluster") {
            return Err(LedgerError::NoCluster { id: cluster.to_owned() });
        }
        self.unique(&["name"])
    }

    /// A cluster without parent has a new name; one with a parent has its parent's name and company. Lists no table twice; the
    /// status of each listed table defaults to `active`.
    pub(super) fn cluster(&self) -> Result<Policy, LedgerError> {
        let mut policy = self.policy.clone();
        if let Some(tables) = self.policy.get("table").and_then(Value::as_array) {
            policy = policy.with("table", self.cluster_tables(tables)?);
        }
        let (name, company) = (self.policy.text("name"), self.policy.text("company"));
        let Some(parent) = self.policy.text("parent") else {
            self.unique(&["name"])?;
            return Ok(policy);
        };
        let fits = |other: &Policy| {
            other.kind() == "cluster" && other.text("name") == name && other.text("company") == company
        };
        if parent != self.policy.id() && self.others.get(parent).is_some_and(|other| fits(other)) {
            return Ok(policy);
        }
        Err(LedgerError::NoParent { kind: "cluster".to_owned(), parent: parent.to_owned() })
    }

    fn cluster_tables(&self, tables: &[Value]) -> Result<Vec<Value>, LedgerError> {
        let mut names: Vec<(&str, &str)> = Vec::new();
        let mut checked = Vec::new();
        for table in tables {
            let text = |name: &str| table.get(name).and_then(Value::as_str);
            let (Some(dbms), Some(name)) = (text("dbms"), text("name")) else {
                return Err(self.wrong("each element of 'table' needs 'dbms' and 'name'"));
            };
            if names.contains(&(dbms, name)) {
                return Err(self.wrong(format!("'table' lists {dbms}.{name} twice")));
            }
            names.push((dbms, name));
            let mut table = table.clone();
            if let Value::Object(table) = &mut table
                && !table.contains_key("status")
            {
                table.insert("status".to_owned(), Value::from("active"));
            }
            checked.push(table);
        }
        Ok(checked)
    }
}
