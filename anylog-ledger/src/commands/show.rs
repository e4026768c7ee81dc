//! Commands that show the derived view.

use std::sync::Arc;

use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Status, Table, command,
};
use serde_json::{Value, json};

use crate::{Ledger, OperatorNode, View};

pub(super) fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    vec![
        command(
            Declaration::new("get data nodes", "Shows which operators hold which tables.")
                .reads()
                .option("company", OptionKind::Text, "only this company")
                .option("dbms", OptionKind::Text, "only this database")
                .option("table", OptionKind::Text, "only this table")
                .option("sort", OptionKind::Columns, "sort by these columns, from 0")
                .format_option()
                .returns("one row for each table and operator")
                .example("get data nodes where dbms = test and format = json"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(data_nodes(ledger, session, call)),
        ),
        command(
            Declaration::new("get cluster info", "Shows the cluster of this node: its members and tables.")
                .reads()
                .format_option()
                .returns("the cluster's id and name, its operators and whether they answer, its tables")
                .example("get cluster info"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(cluster_info(ledger, session, call)),
        ),
        command(
            Declaration::new("get members status", "Shows whether the members of this node's cluster answer.")
                .reads()
                .format_option()
                .returns("address, state, and since when")
                .example("get members status"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(members_status(ledger, session, call)),
        ),
        command(
            Declaration::new("get virtual tables", "Shows the tables of the network.")
                .reads()
                .alias("get virtual tables info")
                .option("company", OptionKind::Text, "only this company")
                .option("dbms", OptionKind::Text, "only this database")
                .option("table", OptionKind::Text, "only this table")
                .format_option()
                .returns("company, database, table and its clusters")
                .example("get virtual tables"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(virtual_tables(ledger, session, call)),
        ),
        command(
            Declaration::new("get network databases", "Shows the databases of the network.")
                .reads()
                .option("company", OptionKind::Text, "only this company")
                .format_option()
                .returns("company and database")
                .example("get network databases"),
            Arc::clone(ledger),
            |ledger, session, call| Box::pin(network_databases(ledger, session, call)),
        ),
    ]
}

fn wanted(call: &Invocation, option: &str, value: &str) -> bool {
    call.options.text(option).is_none_or(|wanted| wanted == "*" || wanted.eq_ignore_ascii_case(value))
}

fn status(ledger: &Ledger, operator: &OperatorNode) -> &'static str {
    if ledger.is_active(&operator.address()) { "active" } else { "not responding" }
}

const DATA_NODES: [&str; 11] = [
    "Company",
    "DBMS",
    "Table",
    "Cluster ID",
    "Cluster Status",
    "Node Name",
    "Member ID",
    "External IP/Port",
    "Local IP/Port",
    "Main",
    "Node Status",
];

/// The rows of `get data nodes`: each table, each of its clusters, each member.
fn data_node_rows(ledger: &Ledger, view: &View, call: &Invocation) -> Vec<[String; 11]> {
    let mut rows = Vec::new();
    for table in view.tables() {
        if !(wanted(call, "company", &table.company)
            && wanted(call, "dbms", &table.dbms)
            && wanted(call, "table", &table.table))
        {
            continue;
        }
        for cluster in table.clusters.iter().filter_map(|id| view.cluster(id)) {
            for operator in view.operators_of(&cluster.id) {
                rows.push([
                    table.company.clone(),
                    table.dbms.clone(),
                    table.table.clone(),
                    cluster.id.clone(),
                    cluster.status.clone(),
                    operator.name.clone(),
                    operator.member.to_string(),
                    operator.address(),
                    operator.local_address(),
                    if operator.main { " +" } else { " -" }.to_owned(),
                    status(ledger, operator).to_owned(),
                ]);
            }
        }
    }
    let columns = call.options.columns("sort").unwrap_or_default();
    if !columns.is_empty() {
        rows.sort_by(|a, b| {
            columns
                .iter()
                .filter_map(|column| Some(a.get(*column)?.cmp(b.get(*column)?)))
                .find(|order| order.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
    }
    rows
}

async fn data_nodes(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let view = ledger.view();
    let rows = data_node_rows(ledger, &view, &call);
    if call.options.wants_json() {
        let object = |row: &[String; 11]| {
            let mut object: serde_json::Map<String, Value> = DATA_NODES
                .iter()
                .zip(row)
                .map(|(name, cell)| ((*name).to_owned(), Value::from(cell.as_str())))
                .collect();
            if let Ok(member) = row[6].parse::<i64>() {
                object.insert("Member ID".to_owned(), Value::from(member));
            }
            Value::Object(object)
        };
        return Ok(Reply::Json(rows.iter().map(object).collect()));
    }
    let mut table = Table::new(DATA_NODES);
    for row in rows {
        table.push(row);
    }
    Ok(Reply::Table(table))
}

fn own(ledger: &Ledger) -> Result<OperatorNode, CommandError> {
    if let Some(own) = ledger.own_operator() {
        return Ok(own);
    }
    let address = ledger.node().address();
    ledger.view().operator_at(&address).cloned().ok_or_else(|| {
        CommandError::new(Status::NO_CLUSTER, format!("No operator policy of this node ({address}) names a cluster"))
            .hint("insert an operator policy, then: run operator where policy = <id>")
    })
}

async fn cluster_info(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let own = own(ledger)?;
    let view = ledger.view();
    let cluster = view.cluster(&own.cluster).ok_or_else(|| {
        CommandError::new(Status::NO_CLUSTER_POLICY, format!("The cluster {} is not in the ledger", own.cluster))
    })?;
    let mut operators = Table::new(["IP", "Port", "Member", "Status"]).indent(6);
    for operator in view.operators_of(&cluster.id) {
        operators.push([
            operator.ip.clone(),
            operator.port.to_string(),
            operator.member.to_string(),
            status(ledger, operator).to_owned(),
        ]);
    }
    let mut tables = Table::new(["Company", "DBMS", "Table"]).indent(6);
    for table in view.tables_of(&cluster.id) {
        tables.push([table.company.as_str(), &table.dbms, &table.table]);
    }
    if call.options.wants_json() {
        return Ok(Reply::Json(json!({
            "Cluster ID": cluster.id, "Member ID": own.member, "Cluster Name": cluster.name, "Company Name": cluster.company,
            "Participating Operators": operators.to_json(), "Tables Supported": tables.to_json(),
        })));
    }
    Ok(Reply::Text(format!(
        "\r\nCluster ID  : {}\r\nMember ID   : {}\r\nCluster Name: {}\r\nCompany Name: {}\r\n\
         Participating Operators:{operators}\r\nTables Supported:{tables}",
        cluster.id, own.member, cluster.name, cluster.company
    )))
}

async fn members_status(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let own = own(ledger)?;
    let view = ledger.view();
    let mut table = Table::new(["Address", "Status", "Recorded time"]).indent(6);
    for operator in view.operators_of(&own.cluster) {
        let since = ledger.node_status(&operator.address());
        table.push([
            operator.address(),
            status(ledger, operator).to_owned(),
            since.map(|status| anylog_core::time::policy_date(status.since)).unwrap_or_default(),
        ]);
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}

async fn virtual_tables(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let view = ledger.view();
    let mut table = Table::new(["Company", "DBMS", "Table", "Clusters"]);
    for known in view.tables() {
        if wanted(&call, "company", &known.company)
            && wanted(&call, "dbms", &known.dbms)
            && wanted(&call, "table", &known.table)
        {
            table.push([known.company.clone(), known.dbms.clone(), known.table.clone(), known.clusters.join(", ")]);
        }
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { Reply::Table(table) })
}

async fn network_databases(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let view = ledger.view();
    let mut rows: Vec<[&str; 2]> = Vec::new();
    for known in view.tables().iter().filter(|known| wanted(&call, "company", &known.company)) {
        let row = [known.company.as_str(), known.dbms.as_str()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    if call.options.wants_json() {
        return Ok(Reply::Json(rows.iter().map(|[company, dbms]| json!({"Company": company, "DBMS": dbms})).collect()));
    }
    let mut table = Table::new(["Company", "DBMS"]);
    for row in rows {
        table.push(row);
    }
    Ok(Reply::Table(table))
}

/// `blockchain query metadata`.
pub(super) async fn metadata(ledger: &Ledger, _: &mut Session, call: Invocation) -> CommandResult {
    let view = ledger.view();
    let own = ledger.own_operator().map(|own| own.id);
    let mut lines: Vec<String> = Vec::new();
    let mut shown: [Option<&str>; 2] = [None, None];
    for table in view.tables() {
        if !(wanted(&call, "company", &table.company)
            && wanted(&call, "dbms", &table.dbms)
            && wanted(&call, "table", &table.table))
        {
            continue;
        }
        if shown[0] != Some(&table.company) {
            lines.push(table.company.clone());
            shown = [Some(&table.company), None];
        }
        if shown[1] != Some(&table.dbms) {
            lines.push(format!("  ==> {}", table.dbms));
            shown[1] = Some(&table.dbms);
        }
        lines.push(format!("    ==> {}", table.table));
        for cluster in table.clusters.iter().filter_map(|id| view.cluster(id)) {
            lines.push(format!("      ==> {} ({})", cluster.id, cluster.name));
            for operator in view.operators_of(&cluster.id) {
                let place = if own.as_deref() == Some(operator.id.as_str()) { "local" } else { "remote" };
                lines.push(format!(
                    "        ==> [{} {place} {}] {} local_{}",
                    operator.member,
                    status(ledger, operator),
                    operator.address(),
                    operator.local_address()
                ));
            }
        }
    }
    Ok(if lines.is_empty() { Reply::Empty } else { Reply::Text(lines.join("\r\n")) })
}
