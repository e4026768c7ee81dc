//! Names of column types in the texts of existing nodes, and in ours.

use crate::ColumnType;

impl ColumnType {
    /// The portable name: what a CREATE text of a table policy says.
    #[must_use]
    pub fn portable(self) -> String {
        match self {
            ColumnType::Serial => "SERIAL".into(),
            ColumnType::Int => "INT".into(),
            ColumnType::BigInt => "BIGINT".into(),
            ColumnType::Decimal => "DECIMAL".into(),
            ColumnType::Double => "DOUBLE PRECISION".into(),
            ColumnType::Boolean => "BOOLEAN".into(),
            ColumnType::Timestamp => "TIMESTAMP".into(),
            ColumnType::Date => "DATE".into(),
            ColumnType::Time => "TIME".into(),
            ColumnType::Uuid => "UUID".into(),
            ColumnType::Varchar => "VARCHAR".into(),
            ColumnType::Char(length) => format!("CHAR({length})"),
            ColumnType::Cidr => "CIDR".into(),
        }
    }

    /// The type that a text names, with or without a length: `bigint`, `double precision`, `character varying(20)`,
    /// `timestamp without time zone`. None when it names none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_lowercase();
        let (base, argument) = match lower.split_once('(') {
            Some((base, rest)) => {
                let (argument, tail) = rest.split_once(')')?;
                (format!("{} {}", base.trim(), tail.trim()), Some(argument.trim().to_owned()))
            }
            None => (lower.clone(), None),
        };
        let words: Vec<&str> = base.split_whitespace().collect();
        Some(match words.join(" ").as_str() {
            "serial" | "bigserial" => ColumnType::Serial,
            "int" | "integer" | "int4" | "smallint" | "int2" | "tinyint" => ColumnType::Int,
            "bigint" | "int8" | "long" => ColumnType::BigInt,
            "decimal" | "numeric" => ColumnType::Decimal,
            "float" | "double" | "double precision" | "real" | "float4" | "float8" => ColumnType::Double,
            "boolean" | "bool" => ColumnType::Boolean,
            "timestamp" | "timestamp without time zone" | "timestamp with time zone" | "timestamptz" | "datetime" => {
                ColumnType::Timestamp
            }
            "date" => ColumnType::Date,
            "time" | "time without time zone" => ColumnType::Time,
            "uuid" => ColumnType::Uuid,
            "varchar" | "character varying" | "text" | "string" | "str" | "json" | "jsonb" | "blob" | "bytea" => {
                ColumnType::Varchar
            }
            "char" | "character" | "bpchar" => match argument {
                Some(argument) => ColumnType::Char(argument.parse().ok().filter(|length| *length > 0)?),
                None => ColumnType::Varchar,
            },
            "cidr" | "inet" => ColumnType::Cidr,
            _ => return None,
        })
    }

    /// The name that `get columns` shows.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            ColumnType::Serial => "integer".into(),
            ColumnType::Timestamp => "timestamp without time zone".into(),
            other => other.portable().to_lowercase(),
        }
    }
}
