//! The rows of the oracle's tables: each is a function of its cluster and its number.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) table: Table,
    pub(crate) cluster: u64,
    pub(crate) rows: u64,
    /// The second that the youngest rows are counted back from.
    pub(crate) now: i64,
}

/// The tables of the oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// In every cluster.
    Readings,
    /// With the same columns, in two of them.
    Archive,
    /// With fewer columns, in one of them.
    Sparse,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Readings, Self::Archive, Self::Sparse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Archive => "archive",
            Self::Sparse => "sparse",
        }
    }

    /// The columns and their types, as a table policy declares them.
    pub(crate) fn columns(self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 11] = [
            ("timestamp", "TIMESTAMP"),
            ("device", "VARCHAR"),
            ("site", "CHAR(8)"),
            ("value", "DOUBLE PRECISION"),
            ("count", "BIGINT"),
            ("big", "BIGINT"),
            ("price", "DECIMAL"),
            ("ok", "BOOLEAN"),
            ("note", "VARCHAR"),
            ("event", "TIMESTAMP"),
            ("level", "INT"),
        ];
        match self {
            Self::Readings | Self::Archive => &ALL,
            Self::Sparse => &[ALL[0], ALL[1], ALL[3]],
        }
    }

    /// The CREATE text of its policy.
    pub(crate) fn create(self) -> String {
        let mut text = format!(
            "CREATE TABLE IF NOT EXISTS {}(row_id SERIAL PRIMARY KEY, insert_timestamp TIMESTAMP NOT NULL DEFAULT NOW(), \
             tsd_name CHAR(3), tsd_id INT",
            self.name()
        );
        for (name, kind) in self.columns() {
            write!(text, ", {name} {kind}").unwrap();
        }
        text + ");"
    }
}

const DEVICES: [&str; 14] = [
    "pump-1",
    "pump-2",
    "pump-3",
    "Pump-1",
    "PUMP-2",
    "ünïcödé-Ω",
    "日本のポンプ",
    "🚰 tap",
    "it's",
    "say \"hi\"",
    "a,b;c",
    "50%_off",
    "back\\slash",
    " blank ",
];

const NOTES: [&str; 6] = ["", "plain", "{\"k\": [1, 2, \"ü\"]}", "null", "O'Brien said \"no\"", "tab and\nline"];

/// A number that looks like chance: the same on every machine.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn small(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
fn float(number: i64) -> f64 {
    number as f64
}

/// The values of a row in the order of the columns of `readings`; times as they are stored.
pub(crate) fn row(part: &Part, n: u64) -> Vec<Value> {
    let table = match part.table {
        Table::Readings => 1,
        Table::Archive => 2,
        Table::Sparse => 3,
    };
    let chance = |which: u64| mixed(n * 64 + which + (part.cluster << 40) + (table << 50));
    let one_in = |which: u64, of: u64| chance(which) % of == 0;
    let device = match chance(1) % 17 {
        index @ 0..=13 => json!(DEVICES[usize::try_from(index).unwrap()]),
        14 => json!(""),
        15 => Value::Null,
        _ => json!(format!("only-{}", part.cluster)),
    };
    let value = match chance(2) % 20 {
        0 => Value::Null,
        1 => json!(0.0),
        2 => json!(-1.0e9 - float(small(chance(3) % 1000))),
        3 => json!(0.1 * float(small(chance(3) % 100))),
        _ => json!((float(small(chance(3) % 16_000)) - 8_000.0) / 8.0),
    };
    let level = small(chance(9) % 9) - 4;
    let values = vec![
        json!(time(part, n)),
        device,
        json!(format!("site-{}", chance(4) % 4)),
        value,
        if one_in(5, 25) { Value::Null } else { json!(small(chance(6) % 2001) - 1000) },
        json!(small(chance(7) >> 16) - (1 << 47)),
        if one_in(5, 13) { Value::Null } else { json!(float(small(chance(8) % 200_000) - 50_000) / 100.0) },
        match chance(10) % 7 {
            0 => Value::Null,
            other => json!(other % 2 == 0),
        },
        match chance(11) % 8 {
            index @ 0..=5 => json!(NOTES[usize::try_from(index).unwrap()]),
            6 => Value::Null,
            _ => json!(format!("note {}", chance(12) % 50)),
        },
        if one_in(13, 3) {
            Value::Null
        } else {
            json!(shown(micros_of_2023() + small(chance(14) % 90_000_000_000_000)))
        },
        if one_in(15, 30) { Value::Null } else { json!(level) },
    ];
    match part.table {
        Table::Readings | Table::Archive => values,
        Table::Sparse => [0, 1, 3].map(|index| values[index].clone()).to_vec(),
    }
}

fn micros_of_2023() -> i64 {
    "2023-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// Most rows lie in the three years from 2023 on; some at edges of the calendar, some close together in one hour, the youngest in
/// the last weeks, half an hour away from whole hours before now.
fn time(part: &Part, n: u64) -> String {
    const EDGES: [&str; 8] = [
        "2023-12-31 23:59:59.999999",
        "2024-01-01 00:00:00.000000",
        "2024-02-29 23:59:59.600000",
        "2024-03-01 00:00:00.000001",
        "2025-12-31 23:59:59.999500",
        "2024-06-30 23:59:59.000000",
        "2025-03-30 01:59:59.999999",
        "2024-11-03 05:30:00.500000",
    ];
    let chance = mixed((n << 8) + part.cluster * 7 + 3);
    match n % 20 {
        7 => EDGES[usize::try_from(chance % 8).unwrap()].to_owned(),
        3 | 11 => {
            let burst = "2025-06-15T10:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
            shown(burst + small(chance % 3_600_000_000))
        }
        15 => shown((part.now - small(chance % 900) * 3600 - 1800) * 1_000_000),
        _ => shown(micros_of_2023() + small(chance % 94_608_000_000_000)),
    }
}

fn shown(micros: i64) -> String {
    let civil = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::from_microsecond(micros).unwrap());
    civil.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

/// Some of the rows as a JSON list.
pub(crate) fn body(part: &Part, rows: std::ops::Range<u64>) -> String {
    let mut out = String::from("[");
    for n in rows {
        if out.len() > 1 {
            out.push_str(",\n");
        }
        out.push('{');
        for (index, ((name, kind), value)) in part.table.columns().iter().zip(row(part, n)).enumerate() {
            let value = match (*kind, value) {
                ("TIMESTAMP", Value::String(text)) => json!(text.replace(' ', "T") + "Z"),
                (_, value) => value,
            };
            write!(out, "{}\"{name}\":{value}", if index > 0 { "," } else { "" }).unwrap();
        }
        out.push('}');
    }
    out + "]"
}
