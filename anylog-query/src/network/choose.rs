//! Which nodes are asked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_ledger::{Ledger, OperatorNode};

use super::{Destination, Network, TableName};
use crate::{QueryError, QueryService};

/// A node that did not answer is passed over for this long; then it is given another chance.
const SILENT: Duration = Duration::from_secs(30);

/// A part of the data, and the nodes that hold it: any of them can answer for it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// The name of the cluster, or the address of a node that was named.
    pub(super) name: String,
    pub(super) table: TableName,
    /// In the order in which they are asked.
    pub(super) candidates: Vec<Candidate>,
}

/// A node that can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The address by which the network knows it.
    pub(super) address: String,
    /// The address by which it is reached from here; none for this node itself.
    pub(super) reach: Option<String>,
}

impl QueryService {
    /// The parts of the data of these tables.
    pub(super) fn slots(&self, network: &Network, tables: &[TableName]) -> Result<Vec<Slot>, QueryError> {
        let mut slots = Vec::new();
        for table in tables {
            match &network.destination {
                Destination::Tables => slots.extend(self.clusters_of(network, table)?),
                Destination::Nodes(addresses) => slots.extend(self.slots_of(addresses, table)),
            }
        }
        Ok(slots)
    }

    /// A slot for each node that is named; members of one cluster hold the same rows and share one.
    fn slots_of(&self, addresses: &[String], table: &TableName) -> Vec<Slot> {
        let view = self.ledger().view();
        let mut slots: Vec<(Option<String>, Slot)> = Vec::new();
        for address in addresses {
            let cluster = view.operator_at(address).map(|operator| operator.cluster.clone());
            let candidate = self.named(address);
            match slots.iter_mut().find(|(known, _)| cluster.is_some() && *known == cluster) {
                Some((_, slot)) => slot.candidates.push(candidate),
                None => {
                    let slot = Slot { name: address.clone(), table: table.clone(), candidates: vec![candidate] };
                    slots.push((cluster, slot));
                }
            }
        }
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// A slot for each cluster of a table.
    fn clusters_of(&self, network: &Network, table: &TableName) -> Result<Vec<Slot>, QueryError> {
        let view = self.ledger().view();
        let clusters = view.clusters_with(&table.dbms, &table.table);
        if clusters.is_empty() {
            let known = view.tables().iter().filter(|known| known.dbms.eq_ignore_ascii_case(&table.dbms));
            let nearest = anylog_core::error::nearest(&table.table, known.map(|known| known.table.as_str()));
            return Err(QueryError::NoLocation {
                dbms: table.dbms.clone(),
                table: table.table.clone(),
                nearest: nearest.map(str::to_owned),
            });
        }
        let mut slots = Vec::with_capacity(clusters.len());
        for id in clusters {
            let name = view.cluster(id).map_or(id, |cluster| cluster.name.as_str()).to_owned();
            let data_source = |operator: &&OperatorNode| operator.role.as_deref() == Some("data source");
            let members: Vec<&OperatorNode> = view.operators_of(id).filter(|operator| !data_source(operator)).collect();
            let candidates = self.in_turn(network, members);
            if candidates.is_empty() && !network.subset && !network.send_any {
                return Err(QueryError::NoOperator { cluster: name });
            }
            slots.push(Slot { name, table: table.clone(), candidates });
        }
        Ok(slots)
    }

    /// The members of a cluster in the order in which they are asked: the main one first, the others in turn, and last those that
    /// did not answer a short while ago.
    fn in_turn(&self, network: &Network, members: Vec<&OperatorNode>) -> Vec<Candidate> {
        let mut members = members;
        if !members.is_empty() {
            let turn = self.turn().fetch_add(1, Ordering::Relaxed) % members.len();
            members.rotate_left(turn);
        }
        let ledger = self.ledger();
        members.sort_by_key(|operator| (is_silent(ledger, &operator.address()), !(operator.main && network.main)));
        members.into_iter().map(|operator| self.candidate(operator)).collect()
    }

    fn candidate(&self, operator: &OperatorNode) -> Candidate {
        let address = operator.address();
        let ledger = self.ledger();
        let own = ledger.own_operator().is_some_and(|own| own.id == operator.id);
        let reach = ledger.policy(&operator.id).and_then(|policy| ledger.own_addresses().reach(&policy));
        Candidate { reach: (!own && !self.is_own(&address)).then(|| reach.unwrap_or_else(|| address.clone())), address }
    }

    /// A node that the query names.
    fn named(&self, address: &str) -> Candidate {
        let view = self.ledger().view();
        match view.operator_at(address) {
            Some(operator) => self.candidate(operator),
            None => {
                Candidate { address: address.to_owned(), reach: (!self.is_own(address)).then(|| address.to_owned()) }
            }
        }
    }

    fn is_own(&self, address: &str) -> bool {
        address == self.node().address()
    }
}

fn is_silent(ledger: &Ledger, address: &str) -> bool {
    ledger.node_status(address).is_some_and(|status| {
        let age = ledger.node().clock.now().duration_since(status.since);
        !status.active && age.unsigned_abs() < SILENT
    })
}
