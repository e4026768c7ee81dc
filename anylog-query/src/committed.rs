//! Rows that all members of a cluster have: `committed = true`.
//!
//! A row names the source file that it came with: `tsd_name` is the member that produced the file, `tsd_id` its number there. Members
//! know of each other which files they hold, so a condition on the two leaves the rows of files that all of them have. Whoever
//! replicates tells up to which file that is ([`Committed`]); without that nothing is known of a cluster of several members, and the
//! query is an error. A cluster of one member has nobody to wait for: all its rows are committed.

use anylog_dbms::TableSchema;

use crate::sql::expr::Expr;
use crate::{QueryError, QueryService};

/// What is known of the files that all members of this node's cluster hold.
pub trait Committed: Send + Sync + std::fmt::Debug {
    /// For each member that produced files, the number up to which all members confirmed to have all of its files, with their rows
    /// in the tables. A member that is not named has none such. None when nothing is known, because members do not replicate.
    fn upto(&self) -> Option<Vec<(i64, i64)>>;

    /// How many files of its cluster this member lacks, when they are more than come late in everyday work: it is being filled. 0 when
    /// it has none itself and could not hear yet what the others have. None when it has what it should have, as far as is known.
    fn behind(&self) -> Option<u64> {
        None
    }
}

impl QueryService {
    /// Refuses a part of a network query while this member is being filled: another member may have all rows (QRY-2).
    pub(crate) fn refuse_behind(&self) -> Result<(), QueryError> {
        let behind = self.replication().and_then(|replication| replication.behind());
        behind.map_or(Ok(()), |files| Err(QueryError::Behind { files }))
    }

    /// The files that all members of this node's cluster have; none when all rows count, as there is no other member.
    pub(crate) fn committed_files(&self) -> Result<Option<Vec<(i64, i64)>>, QueryError> {
        let ledger = self.ledger();
        let view = ledger.view();
        // A node that does not run as an operator yet may have the rows of one.
        let own = ledger.own_operator().or_else(|| view.operator_at(&self.node().address()).cloned());
        let Some(own) = own else { return Ok(None) };
        let members = view.operators_of(&own.cluster).count();
        if members < 2 {
            return Ok(None);
        }
        let known = self.replication().and_then(|replication| replication.upto());
        known.map(Some).ok_or_else(|| QueryError::Unconfirmed {
            cluster: view
                .cluster(&own.cluster)
                .map_or(own.cluster.as_str(), |cluster| cluster.name.as_str())
                .to_owned(),
            members,
        })
    }
}

/// The condition that leaves the rows of these files.
pub(crate) fn condition(upto: &[(i64, i64)], dbms: &str, schema: &TableSchema) -> Result<Expr, QueryError> {
    if let Some(column) = ["tsd_name", "tsd_id"].into_iter().find(|name| schema.column(name).is_none()) {
        return Err(QueryError::unsupported(
            format!("committed = true for table '{dbms}.{}': it has no column '{column}'", schema.name),
            "leave committed out: rows of this table did not come with source files",
        ));
    }
    let column = |name: &str| Expr::Column(name.to_owned());
    let files = upto.iter().map(|(member, file)| {
        let of_member = Expr::binary(column("tsd_name"), "=", Expr::Text(member.to_string()));
        Expr::binary(of_member, "and", Expr::binary(column("tsd_id"), "<=", Expr::Number(file.to_string())))
    });
    let none = || Expr::binary(Expr::Number("1".to_owned()), "=", Expr::Number("0".to_owned()));
    Ok(files.reduce(|left, right| Expr::binary(left, "or", right)).unwrap_or_else(none))
}

#[cfg(test)]
mod tests {
    use anylog_dbms::{Column, ColumnType};

    use super::*;
    use crate::sql::expr::Tongue;

    fn schema(names: &[&str]) -> TableSchema {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            kind: ColumnType::Varchar,
            not_null: false,
            default: None,
        };
        TableSchema { name: "t".to_owned(), columns: names.iter().map(column).collect(), indexes: Vec::new() }
    }

    #[test]
    fn a_condition_names_each_producer() {
        let schema = schema(&["tsd_name", "tsd_id"]);
        let text = |upto: &[(i64, i64)]| condition(upto, "d", &schema).unwrap().sql(Tongue::Sqlite);
        assert_eq!(text(&[]), "(1 = 0)");
        assert_eq!(text(&[(7, 12)]), r#"(("tsd_name" = '7') and ("tsd_id" <= 12))"#);
        assert_eq!(
            text(&[(7, 12), (8, 0)]),
            r#"((("tsd_name" = '7') and ("tsd_id" <= 12)) or (("tsd_name" = '8') and ("tsd_id" <= 0)))"#
        );
    }

    #[test]
    fn a_table_without_bookkeeping_has_no_committed_rows() {
        // R25
        let error = condition(&[(7, 12)], "d", &schema(&["value", "tsd_name"])).unwrap_err();
        assert!(error.to_string().contains("'d.t': it has no column 'tsd_id'"), "{error}");
    }
}
