//! The text of a SELECT over one place.

use crate::sql::bind::Select;
use crate::sql::expr::{Expr, Order, Tongue, quoted_name, write_list, write_order};

/// The parts of a SELECT that is written for an engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) items: &'a [(Expr, String)],
    pub(super) distinct: bool,
    pub(super) from: &'a str,
    pub(super) filter: Option<&'a Expr>,
    pub(super) group: &'a [Expr],
    pub(super) having: Option<&'a Expr>,
    pub(super) order: &'a [Order],
    pub(super) limit: Option<u64>,
    pub(super) skip: u64,
}

impl Body<'_> {
    pub(super) const EMPTY: Body<'static> = Body {
        items: &[],
        distinct: false,
        from: "",
        filter: None,
        group: &[],
        having: None,
        order: &[],
        limit: None,
        skip: 0,
    };

    /// True when what groups or orders the rows reads a column of this name.
    fn sorts_by(&self, name: &str) -> bool {
        let mut found = false;
        let orders = self.order.iter().map(|order| &order.expr);
        for expr in self.group.iter().chain(self.having).chain(orders) {
            expr.visit(&mut |expr| found |= matches!(expr, Expr::Column(column) if column == name));
        }
        found
    }

    pub(super) fn sql(&self, engine: Tongue) -> String {
        let mut out = String::from(if self.distinct { "select distinct " } else { "select " });
        for (index, (expr, name)) in self.items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            expr.write(engine, &mut out);
            if !matches!(expr, Expr::Column(column) if column == name) {
                out.push_str(" as ");
                // Rows are read by the places of their columns, so a name that would hide a column can be another.
                out.push_str(&quoted_name(&if self.sorts_by(name) { format!("#{index}") } else { name.clone() }));
            }
        }
        out.push_str(" from ");
        out.push_str(self.from);
        if let Some(filter) = self.filter {
            out.push_str(" where ");
            filter.write(engine, &mut out);
        }
        if !self.group.is_empty() {
            out.push_str(" group by ");
            write_list(engine, &mut out, self.group);
        }
        if let Some(having) = self.having {
            out.push_str(" having ");
            having.write(engine, &mut out);
        }
        if !self.order.is_empty() {
            out.push_str(" order by ");
            write_order(engine, &mut out, self.order);
        }
        match (self.limit, self.skip, engine) {
            (Some(limit), 0, _) => out.push_str(&format!(" limit {}", limit.min(i64::MAX.unsigned_abs()))),
            (Some(limit), skip, _) => {
                out.push_str(&format!(" limit {} offset {skip}", limit.min(i64::MAX.unsigned_abs())))
            }
            (None, 0, _) => {}
            (None, skip, Tongue::Sqlite) => out.push_str(&format!(" limit -1 offset {skip}")),
            (None, skip, Tongue::Postgres | Tongue::Dialect) => out.push_str(&format!(" offset {skip}")),
        }
        out
    }
}

/// The whole statement over one place.
pub(super) fn whole(
    select: &Select,
    from: &str,
    filter: Option<&Expr>,
    limit: Option<u64>,
    skip: u64,
    engine: Tongue,
) -> String {
    let items: Vec<(Expr, String)> = select.items.iter().map(|item| (item.expr.clone(), item.name.clone())).collect();
    let body = Body {
        items: &items,
        distinct: select.distinct,
        from,
        filter,
        group: &select.group,
        having: select.having.as_ref(),
        order: &select.order,
        limit,
        skip,
    };
    body.sql(engine)
}
