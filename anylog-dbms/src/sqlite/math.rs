//! Functions of numbers that this build of SQLite lacks, as PostgreSQL has them. What has no value - the root of a negative number - is
//! null.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

type OfOne = (&'static str, fn(f64) -> f64);
type OfTwo = (&'static str, fn(f64, f64) -> f64);

const OF_ONE: [OfOne; 10] = [
    ("sqrt", f64::sqrt),
    ("exp", f64::exp),
    ("ln", f64::ln),
    ("log10", f64::log10),
    ("sin", f64::sin),
    ("cos", f64::cos),
    ("tan", f64::tan),
    ("radians", f64::to_radians),
    ("degrees", f64::to_degrees),
    ("log", f64::log10),
];

const OF_TWO: [OfTwo; 2] = [("power", f64::powf), ("log", |base, of| of.ln() / base.ln())];

/// Lets a connection compute them.
pub(super) fn add(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, function) in OF_ONE {
        connection
            .create_scalar_function(name, 1, flags, move |call| Ok(number(call, 0).map(function).filter(finite)))?;
    }
    for (name, function) in OF_TWO {
        connection.create_scalar_function(name, 2, flags, move |call| {
            let both = number(call, 0).zip(number(call, 1));
            Ok(both.map(|(left, right)| function(left, right)).filter(finite))
        })?;
    }
    connection.create_scalar_function("pi", 0, flags, |_| Ok(std::f64::consts::PI))
}

fn finite(value: &f64) -> bool {
    value.is_finite()
}

fn number(call: &Context<'_>, index: usize) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "the functions are of floats")]
    match call.get_raw(index) {
        ValueRef::Integer(value) => Some(value as f64),
        ValueRef::Real(value) => Some(value),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_postgres() {
        let connection = Connection::open_in_memory().unwrap();
        add(&connection).unwrap();
        for (what, expected) in [
            ("sqrt(6.25)", Some(2.5)),
            ("sqrt(-1)", None),
            ("sqrt(null)", None),
            ("power(2, 10)", Some(1024.0)),
            ("log(100)", Some(2.0)),
            ("log(2, 8)", Some(3.0)),
            ("ln(0)", None),
            ("degrees(pi())", Some(180.0)),
            ("exp(0)", Some(1.0)),
            ("sqrt('4')", Some(2.0)),
            ("sqrt('warm')", None),
        ] {
            let found: Option<f64> = connection.query_row(&format!("select {what}"), [], |row| row.get(0)).unwrap();
            assert_eq!(found, expected, "{what}");
        }
    }
}
