//! The derived view: which clusters there are, which operators host them, which tables lie where.
//!
//! The view is computed from the `cluster` and `operator` policies whenever the ledger changes. A cluster's child policies
//! (those with a `parent`) add tables to it. A policy that does not fit is left out and named in [`View::problems`]; it
//! never makes the rest unusable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::{Policy, PolicySet};

/// The company of a cluster that names none.
pub const NO_COMPANY: &str = "none";

/// A cluster: operators that hold the same data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The id of its policy.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The company that owns it; `none` when its policy names none.
    pub company: String,
    /// `active` or `static`.
    pub status: String,
}

/// An operator: a node that hosts the data of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorNode {
    /// The id of its policy.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its company.
    pub company: String,
    /// The id of its cluster.
    pub cluster: String,
    /// Its number in the cluster, 1 to 255.
    pub member: i64,
    /// The address published to other nodes.
    pub ip: String,
    /// The port of its TCP server there.
    pub port: u16,
    /// The address on its own network, when it differs.
    pub local_ip: Option<String>,
    /// The port of its TCP server on its own network, when it differs.
    pub local_port: Option<u16>,
    /// The port of its REST server.
    pub rest_port: Option<u16>,
    /// Whether queries prefer it over other members of its cluster.
    pub main: bool,
    /// The policy's `type`, such as `data source`; mostly absent.
    pub role: Option<String>,
}

impl OperatorNode {
    /// `ip:port`, by which the operator is known.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// The address on its own network as `ip:port`.
    #[must_use]
    pub fn local_address(&self) -> String {
        format!("{}:{}", self.local_ip.as_deref().unwrap_or(&self.ip), self.local_port.unwrap_or(self.port))
    }

    /// An operator from its policy, or what the policy lacks.
    pub(crate) fn from_policy(policy: &Policy) -> Result<Self, String> {
        let lacks = |name: &str| format!("operator policy {} has no usable '{name}'", policy.id());
        Ok(Self {
            id: policy.id().to_owned(),
            name: policy.shown("name").unwrap_or_default(),
            company: policy.shown("company").unwrap_or_else(|| NO_COMPANY.to_owned()),
            cluster: policy.shown("cluster").ok_or_else(|| lacks("cluster"))?,
            member: policy.get("member").and_then(integer).ok_or_else(|| lacks("member"))?,
            ip: policy.shown("ip").filter(|ip| !ip.is_empty()).ok_or_else(|| lacks("ip"))?,
            port: port(policy, "port").ok_or_else(|| lacks("port"))?,
            local_ip: policy.shown("local_ip").or_else(|| policy.shown("internal_ip")).filter(|ip| !ip.is_empty()),
            local_port: port(policy, "local_port"),
            rest_port: port(policy, "rest_port"),
            main: policy.get("main").is_some_and(|main| main == &Value::Bool(true) || main == "true"),
            role: policy.shown("type"),
        })
    }
}

/// A table and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLocation {
    /// The company of the clusters.
    pub company: String,
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// The ids of the clusters that hold a part of it; several clusters are shards.
    pub clusters: Vec<String>,
}

/// Clusters, operators and tables of the network as this node's copy of the ledger tells them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    clusters: Vec<Cluster>,
    operators: Vec<OperatorNode>,
    tables: Vec<TableLocation>,
    table_policies: HashMap<(String, String), Arc<Policy>>,
    // Positions in `clusters` by id, in `operators` by id and by address.
    cluster_index: HashMap<String, usize>,
    operator_index: HashMap<String, usize>,
    address_index: HashMap<String, usize>,
    // Position in `tables` by company, database and table.
    table_index: HashMap<(String, String, String), usize>,
    // Positions in `tables` by lower-case database and table.
    located: HashMap<(String, String), Vec<usize>>,
    problems: Vec<String>,
}

impl View {
    /// The view of these policies.
    #[must_use]
    pub fn build(policies: &PolicySet) -> Self {
        let mut view = View::default();
        view.add_clusters(policies);
        view.add_operators(policies);
        for policy in policies.of_kind("table") {
            let opened = policy.opened();
            if let (Some(dbms), Some(table)) = (opened.text("dbms"), opened.text("name")) {
                view.table_policies
                    .entry((dbms.to_lowercase(), table.to_lowercase()))
                    .or_insert_with(|| policy.clone());
            }
        }
        view
    }

    fn add_clusters(&mut self, policies: &PolicySet) {
        let clusters: Vec<&Arc<Policy>> = policies.of_kind("cluster").collect();
        for policy in clusters.iter().filter(|policy| policy.text("parent").is_none()) {
            let Some(name) = policy.text("name") else {
                self.problems.push(format!("cluster policy {} has no name", policy.id()));
                continue;
            };
            let status = policy.text("status").unwrap_or("active").to_owned();
            if status == "down" {
                continue;
            }
            self.cluster_index.insert(policy.id().to_owned(), self.clusters.len());
            self.clusters.push(Cluster {
                id: policy.id().to_owned(),
                name: name.to_owned(),
                company: company(policy),
                status,
            });
        }
        for policy in clusters {
            let cluster = policy.text("parent").unwrap_or(policy.id());
            if policy.text("status") == Some("down") {
                continue;
            }
            if self.cluster(cluster).is_none() {
                // A child whose parent is down is as silent as its parent.
                let parent_is_down = policies.get(cluster).is_some();
                if !parent_is_down {
                    self.problems.push(format!("cluster policy {} names the unknown parent {cluster}", policy.id()));
                }
                continue;
            }
            self.add_tables(cluster, policy);
        }
    }

    fn add_tables(&mut self, cluster: &str, policy: &Policy) {
        let company = company(policy);
        for entry in policy.get("table").and_then(Value::as_array).into_iter().flatten() {
            let (Some(dbms), Some(table)) =
                (entry.get("dbms").and_then(Value::as_str), entry.get("name").and_then(Value::as_str))
            else {
                self.problems.push(format!("cluster policy {} lists a table without dbms and name", policy.id()));
                continue;
            };
            let key = (company.clone(), dbms.to_owned(), table.to_owned());
            let next = self.tables.len();
            let index = *self.table_index.entry(key).or_insert(next);
            if index == next {
                self.located.entry((dbms.to_lowercase(), table.to_lowercase())).or_default().push(index);
                self.tables.push(TableLocation {
                    company: company.clone(),
                    dbms: dbms.to_owned(),
                    table: table.to_owned(),
                    clusters: Vec::new(),
                });
            }
            let clusters = &mut self.tables[index].clusters;
            if !clusters.iter().any(|id| id == cluster) {
                clusters.push(cluster.to_owned());
            }
        }
    }

    fn add_operators(&mut self, policies: &PolicySet) {
        let mut mains: HashSet<String> = HashSet::new();
        for policy in policies.of_kind("operator") {
            let operator = match OperatorNode::from_policy(policy) {
                Ok(operator) => operator,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            };
            if self.cluster(&operator.cluster).is_none() {
                let text = format!("operator policy {} names the unknown cluster {}", operator.id, operator.cluster);
                self.problems.push(text);
                continue;
            }
            let address = operator.address();
            if let Some(other) = self.operator_at(&address) {
                let text = format!("operators {} and {} have the same address {address}", other.id, operator.id);
                self.problems.push(text);
                continue;
            }
            if operator.main && !mains.insert(operator.cluster.clone()) {
                self.problems.push(format!("cluster {} has more than one main operator", operator.cluster));
            }
            self.operator_index.insert(operator.id.clone(), self.operators.len());
            self.address_index.insert(address, self.operators.len());
            self.operators.push(operator);
        }
    }

    /// All clusters in ledger order.
    #[must_use]
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// The cluster of this id.
    #[must_use]
    pub fn cluster(&self, id: &str) -> Option<&Cluster> {
        self.cluster_index.get(id).and_then(|at| self.clusters.get(*at))
    }

    /// All operators in ledger order.
    #[must_use]
    pub fn operators(&self) -> &[OperatorNode] {
        &self.operators
    }

    /// The operator whose policy has this id.
    #[must_use]
    pub fn operator(&self, id: &str) -> Option<&OperatorNode> {
        self.operator_index.get(id).and_then(|at| self.operators.get(*at))
    }

    /// The operator published under this `ip:port`.
    #[must_use]
    pub fn operator_at(&self, address: &str) -> Option<&OperatorNode> {
        self.address_index.get(address).and_then(|at| self.operators.get(*at))
    }

    /// The members of a cluster in ledger order.
    pub fn operators_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a OperatorNode> + 'a {
        self.operators.iter().filter(move |operator| operator.cluster == cluster)
    }

    /// All tables in ledger order.
    #[must_use]
    pub fn tables(&self) -> &[TableLocation] {
        &self.tables
    }

    /// The ids of the clusters that hold a part of a table; names are compared without case. Empty for an unknown table.
    #[must_use]
    pub fn clusters_with(&self, dbms: &str, table: &str) -> Vec<&str> {
        let indexes = self.located.get(&(dbms.to_lowercase(), table.to_lowercase()));
        let tables = indexes.into_iter().flatten().filter_map(|index| self.tables.get(*index));
        tables.flat_map(|known| known.clusters.iter().map(String::as_str)).collect()
    }

    /// The tables of one cluster.
    pub fn tables_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a TableLocation> + 'a {
        self.tables.iter().filter(move |table| table.clusters.iter().any(|id| id == cluster))
    }

    /// The table policy, which holds the `create` statement; names are compared without case.
    #[must_use]
    pub fn table_policy(&self, dbms: &str, table: &str) -> Option<&Arc<Policy>> {
        self.table_policies.get(&(dbms.to_lowercase(), table.to_lowercase()))
    }

    /// Policies that were left out, and why.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

fn company(policy: &Policy) -> String {
    policy.text("company").unwrap_or(NO_COMPANY).to_owned()
}

fn port(policy: &Policy, name: &str) -> Option<u16> {
    policy.get(name).and_then(integer).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// An integer that a policy may hold as number or as text.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policies(values: &[Value]) -> PolicySet {
        values.iter().map(|value| Arc::new(Policy::from_value(value.clone()).unwrap())).collect()
    }

    fn operator(id: &str, cluster: &str, port: u16, member: i64) -> Value {
        json!({"operator": {"id": id, "name": id, "company": "co", "cluster": cluster, "ip": "10.0.0.1", "port": port,
            "member": member}})
    }

    #[test]
    fn tables_of_children_belong_to_the_parent() {
        let view = View::build(&policies(&[
            json!({"cluster": {"id": "c1", "name": "one", "company": "co"}}),
            json!({"cluster": {"id": "c2", "name": "two", "company": "co"}}),
            json!({"cluster": {"id": "k1", "name": "one", "company": "co", "parent": "c1",
                "table": [{"dbms": "d", "name": "t"}]}}),
            json!({"cluster": {"id": "k2", "name": "two", "company": "co", "parent": "c2",
                "table": [{"dbms": "d", "name": "t"}, {"dbms": "d", "name": "u"}]}}),
            json!({"cluster": {"id": "k3", "name": "x", "parent": "gone", "table": [{"dbms": "d", "name": "lost"}]}}),
            operator("o1", "c1", 1, 1),
            operator("o2", "c2", 2, 1),
            operator("o3", "c2", 2, 2),
            operator("o4", "c9", 4, 1),
            json!({"operator": {"id": "o5", "cluster": "c1", "ip": "10.0.0.1", "port": 5}}),
        ]));
        assert_eq!(view.clusters_with("D", "t"), ["c1", "c2"]);
        assert_eq!(view.clusters_with("d", "lost"), Vec::<&str>::new());
        assert_eq!(view.operators().len(), 2);
        assert_eq!(view.operator("o1").unwrap().address(), "10.0.0.1:1");
        assert_eq!(view.operators_of("c2").count(), 1);
        assert_eq!(view.tables_of("c2").count(), 2);
        assert_eq!(view.problems().len(), 4, "{:?}", view.problems());
    }

    #[test]
    fn a_cluster_that_is_down_is_left_out_without_a_word() {
        let view = View::build(&policies(&[
            json!({"cluster": {"id": "c1", "name": "one", "status": "down"}}),
            json!({"cluster": {"id": "k1", "name": "one", "parent": "c1", "table": [{"dbms": "d", "name": "t"}]}}),
        ]));
        assert!(view.clusters().is_empty() && view.tables().is_empty());
        assert!(view.problems().is_empty());
    }
}
