//! Variance and standard deviation, which SQLite lacks.
//!
//! | function | value |
//! |---|---|
//! | `stddev` `stddev_samp` `stddev_pop`, `variance` `var_samp` `var_pop` | as in PostgreSQL; null of too few values |
//! | `moments` | number of values, their mean, the sum of the squares of their distances from it, as a text of three numbers: what answers over several places are made of |

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

/// What is made of the values.
#[derive(Debug, Clone, Copy)]
enum Spread {
    /// Variance: of a sample or of all there is, its root or not.
    Variance { sample: bool, root: bool },
    /// The numbers themselves.
    Moments,
}

const FUNCTIONS: [(&str, Spread); 7] = [
    ("stddev", Spread::Variance { sample: true, root: true }),
    ("stddev_samp", Spread::Variance { sample: true, root: true }),
    ("stddev_pop", Spread::Variance { sample: false, root: true }),
    ("variance", Spread::Variance { sample: true, root: false }),
    ("var_samp", Spread::Variance { sample: true, root: false }),
    ("var_pop", Spread::Variance { sample: false, root: false }),
    ("moments", Spread::Moments),
];

/// Lets a connection compute them.
pub(super) fn add(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    FUNCTIONS.into_iter().try_for_each(|(name, spread)| connection.create_aggregate_function(name, 1, flags, spread))
}

/// The values so far, by Welford's way: no difference of large numbers loses digits.
#[derive(Debug, Default)]
struct Seen {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Aggregate<Seen, Option<rusqlite::types::Value>> for Spread {
    fn init(&self, _: &mut Context<'_>) -> Result<Seen> {
        Ok(Seen::default())
    }

    fn step(&self, context: &mut Context<'_>, seen: &mut Seen) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "a mean of integers is a float")]
        let value = match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(value) => value as f64,
            ValueRef::Real(value) => value,
            // As sums take texts.
            ValueRef::Text(text) => {
                std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
            }
            ValueRef::Blob(_) => 0.0,
        };
        seen.count += 1.0;
        let distance = value - seen.mean;
        seen.mean += distance / seen.count;
        seen.squares += distance * (value - seen.mean);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, seen: Option<Seen>) -> Result<Option<rusqlite::types::Value>> {
        use rusqlite::types::Value;
        let Seen { count, mean, squares } = seen.unwrap_or_default();
        Ok(match *self {
            Self::Moments if count == 0.0 => None,
            Self::Moments => Some(Value::Text(format!("{count} {mean:e} {squares:e}"))),
            Self::Variance { sample, root } => {
                let of = count - if sample { 1.0 } else { 0.0 };
                let variance = squares / of;
                (of > 0.0).then_some(Value::Real(if root { variance.sqrt() } else { variance }))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_far_from_zero_keep_their_digits() {
        let connection = Connection::open_in_memory().unwrap();
        add(&connection).unwrap();
        connection
            .execute_batch("create table t(x); insert into t values (1e9+4), (1e9+7), (1e9+13), (1e9+16), (null)")
            .unwrap();
        let ask = |what: &str| -> Option<f64> {
            connection.query_row(&format!("select {what} from t"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!(ask("variance(x)"), Some(30.0));
        assert_eq!(ask("var_pop(x)"), Some(22.5));
        assert_eq!(ask("stddev_samp(x)"), Some(30f64.sqrt()));
        assert_eq!(ask("stddev(x) filter (where x = 1e9+4)"), None);
        assert_eq!(ask("stddev_pop(x) filter (where x = 1e9+4)"), Some(0.0));
        let moments: String = connection.query_row("select moments(x - 1e9) from t", [], |row| row.get(0)).unwrap();
        assert_eq!(moments, "4 1e1 9e1");
        let nothing: Option<String> =
            connection.query_row("select moments(x) from t where x < 0", [], |row| row.get(0)).unwrap();
        assert_eq!(nothing, None);
    }
}
