//! Dropping partitions: by name, and by rules.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::CommandResult;
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Reply, Status};

use super::super::{blocking, database_option, logical, stored_table, table_option};
use crate::catalog::{Dropped, shown_bytes};
use crate::partition::{RetainError, expendable, oldest, outdated, oversize, range, surplus};
use crate::{Catalog, Database, Target};

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    vec![
        blocking(
            catalog,
            Declaration::new("drop partition", "Drops partitions of a table and gives their space back.")
                .optional_word("partition", "the name of one partition, or * for all; without it the oldest")
                .required("dbms", OptionKind::Text, "the logical database")
                .required("table", OptionKind::Text, "the table, or * for all tables of the database")
                .option("keep", OptionKind::Int, "drop the oldest until so many are left, never the active one")
                .option("max_age", OptionKind::Duration, "drop those whose rows are all older, never the active one")
                .option(
                    "max_size",
                    OptionKind::Bytes,
                    "drop the oldest until the partitions of the table take so many bytes, never the active one",
                )
                .option(
                    "min_free",
                    OptionKind::Bytes,
                    "drop the oldest of all tables named until so many bytes of the disk are free, never the active one",
                )
                .returns("nothing; what was dropped is in the event log")
                .example("drop partition where dbms=test and table=* and keep=3")
                .example("drop partition where dbms=test and table=rand_data and max_age=90 days and max_size=10GB")
                .example("drop partition where dbms=test and table=* and min_free=2GB")
                .example(
                    "drop partition par_rand_data_2026_01_01_d01_insert_timestamp where dbms=test and table=rand_data",
                ),
            drop_partition,
        ),
        blocking(
            catalog,
            Declaration::new(
                "event drop_old_partitions",
                "Drops the oldest partitions of all tables of a database until it takes few enough bytes.",
            )
            .required("dbms_name", OptionKind::Text, "the logical database")
            .key_alias(&["dbms"])
            .required("max_size", OptionKind::Bytes, "bytes that the partitions of all its tables may take together")
            .returns("nothing; what was dropped is in the event log")
            .example("event drop_old_partitions where dbms_name=test and max_size=10MB"),
            drop_old,
        ),
    ]
}

/// What a table may keep.
struct Limits {
    keep: Option<usize>,
    max_age: Option<Duration>,
    max_size: Option<u64>,
}

impl Limits {
    fn is_set(&self) -> bool {
        self.keep.is_some() || self.max_age.is_some() || self.max_size.is_some()
    }
}

/// What is dropped: its database, what went so far, and why.
struct Drop<'a> {
    catalog: &'a Catalog,
    database: &'a Database,
    dropped: Dropped,
    why: String,
}

fn failed(message: impl Into<String>) -> CommandError {
    CommandError::new(Status::DROP_PARTITION_FAILED, message)
}

fn drop_partition(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    let table = table_option(call)?;
    let name = call.positional("partition");
    let keep = call
        .options
        .int("keep")
        .map(|keep| usize::try_from(keep).map_err(|_| CommandError::parameter(format!("keep={keep} is negative"))));
    let limits = Limits {
        keep: keep.transpose()?,
        max_age: call.options.duration("max_age"),
        max_size: call.options.bytes("max_size"),
    };
    let min_free = call.options.bytes("min_free");
    if name.is_some() && (limits.is_set() || min_free.is_some()) {
        return Err(CommandError::structure(
            "'drop partition' takes the name of a partition, or keep, max_age, max_size and min_free, not both",
        ));
    }
    if table == "*" && name.is_some_and(|name| name != "*") {
        return Err(CommandError::structure("a partition by name needs the name of its table"));
    }
    let mut work = Drop { catalog, database: &database, dropped: Dropped::default(), why: why(call) };
    let result = work.tables(&table, name, &limits, min_free);
    catalog.report_drops(&database, &work.dropped, &work.why);
    result.map(|()| Reply::Empty)
}

/// `, by keep=3 and min_free=2.0 GB`
fn why(call: &Invocation) -> String {
    let bytes = |key| call.options.bytes(key).map(|bytes| format!("{key}={}", shown_bytes(bytes)));
    let given = [
        call.options.int("keep").map(|keep| format!("keep={keep}")),
        call.options.duration("max_age").map(|age| format!("max_age={} seconds", age.as_secs())),
        bytes("max_size"),
        bytes("min_free"),
    ];
    let given: Vec<String> = given.into_iter().flatten().collect();
    if given.is_empty() { String::new() } else { format!(", by {}", given.join(" and ")) }
}

impl Drop<'_> {
    fn tables(
        &mut self,
        table: &str,
        name: Option<&str>,
        limits: &Limits,
        min_free: Option<u64>,
    ) -> Result<(), CommandError> {
        let all = table == "*";
        let tables = if all { self.database.dbms().tables()? } else { vec![stored_table(table)] };
        let mut unmet = None;
        for table in &tables {
            let result = match name {
                _ if limits.is_set() => self.limit(table, limits),
                None if min_free.is_some() => Ok(()),
                name => self.named(table, name),
            };
            match result {
                // A table that has nothing to drop does not keep the others from being trimmed.
                Err(error) if all && error.status == Status::DROP_PARTITION_FAILED => {
                    unmet = unmet.or(limits.max_size.map(|_| error));
                }
                // A rule may find nothing to do where another one follows.
                Err(error) if error.status == Status::DROP_PARTITION_FAILED && min_free.is_some() => {}
                result => result?,
            }
        }
        if let Some(least) = min_free {
            self.free(&tables, least)?;
        }
        unmet.map_or(Ok(()), Err)
    }

    fn drop(&mut self, table: &str, partitions: &[String]) -> Result<(), CommandError> {
        Ok(self.catalog.drop_partitions(self.database, table, partitions, &mut self.dropped)?)
    }

    fn failed(&self, table: &str, reason: impl std::fmt::Display) -> CommandError {
        failed(format!("Drop partition of '{}.{table}': {reason}", self.database.name()))
    }

    /// One partition by its name, all, or the oldest.
    fn named(&mut self, table: &str, name: Option<&str>) -> Result<(), CommandError> {
        let partitions = self.database.dbms().partitions(table)?;
        let chosen = match name {
            Some("*") => partitions,
            Some(name) if partitions.iter().any(|known| known == name) => vec![name.to_owned()],
            Some(name) => {
                let dbms = self.database.name();
                return Err(failed(format!("'{name}' is not a partition of '{dbms}.{table}'"))
                    .hint(format!("see: get partitions where dbms={dbms} and table={table}")));
            }
            None => {
                let now = self.catalog.node().clock.now();
                vec![oldest(&partitions, now).map_err(|error| self.failed(table, error))?]
            }
        };
        self.drop(table, &chosen)
    }

    /// What is more than a table may keep.
    fn limit(&mut self, table: &str, limits: &Limits) -> Result<(), CommandError> {
        let now = self.catalog.node().clock.now();
        let mut left = self.database.dbms().partitions(table)?;
        let mut nothing = None;
        if let Some(keep) = limits.keep {
            match surplus(&left, keep, now) {
                Ok(chosen) => self.drop_of(table, &mut left, &chosen)?,
                // Another rule may still find something.
                Err(error @ RetainError::NotMore { .. }) => nothing = Some(error),
                Err(error) => return Err(self.failed(table, error)),
            }
        }
        if let Some(age) = limits.max_age {
            let chosen = outdated(&left, age, now);
            self.drop_of(table, &mut left, &chosen)?;
        }
        if let Some(most) = limits.max_size {
            let sizes = self.sizes(table, &left)?;
            let bytes = |name: &str| sizes.iter().find(|(known, _)| known == name).map_or(0, |(_, bytes)| *bytes);
            let (chosen, bytes) = oversize(&left, bytes, most, now);
            self.drop_of(table, &mut left, &chosen)?;
            if bytes > most {
                return Err(self.failed(
                    table,
                    format!(
                        "the active partitions alone take {}, max_size is {}",
                        shown_bytes(bytes),
                        shown_bytes(most)
                    ),
                ));
            }
        }
        match nothing {
            Some(error) if limits.max_age.is_none() && limits.max_size.is_none() => Err(self.failed(table, error)),
            _ => Ok(()),
        }
    }

    fn drop_of(&mut self, table: &str, left: &mut Vec<String>, chosen: &[String]) -> Result<(), CommandError> {
        left.retain(|name| !chosen.contains(name));
        self.drop(table, chosen)
    }

    /// The bytes of partitions. One that is gone meanwhile has none.
    fn sizes(&self, table: &str, partitions: &[String]) -> Result<Vec<(String, u64)>, CommandError> {
        let mut sizes = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match self.database.dbms().size(&Target::partition(table, partition))? {
                Some(bytes) => sizes.push((partition.clone(), bytes)),
                None => {
                    return Err(CommandError::parameter(format!(
                        "the size of partitions of database '{}' is not known: max_size cannot be kept",
                        self.database.name()
                    ))
                    .hint("use keep or max_age"));
                }
            }
        }
        Ok(sizes)
    }

    /// The partitions of tables that may go, the oldest of all first.
    fn expendable(&self, tables: &[String]) -> Result<Vec<(String, String)>, CommandError> {
        let now = self.catalog.node().clock.now();
        let mut found = Vec::new();
        for table in tables {
            let partitions = self.database.dbms().partitions(table)?;
            found.extend(expendable(&partitions, now).into_iter().map(|partition| (table.clone(), partition)));
        }
        found.sort_by_cached_key(|(_, partition)| range(partition));
        Ok(found)
    }

    /// Drops the oldest until so many bytes of the disk are free.
    fn free(&mut self, tables: &[String], least: u64) -> Result<(), CommandError> {
        let free = |database: &Database| -> Result<u64, CommandError> {
            database.dbms().free()?.ok_or_else(|| {
                CommandError::parameter(format!(
                    "the free space of database '{}' is not known: min_free cannot be kept",
                    database.name()
                ))
                .hint("use keep, max_age or max_size")
            })
        };
        if free(self.database)? >= least {
            return Ok(());
        }
        for (table, partition) in self.expendable(tables)? {
            self.drop(&table, &[partition])?;
            if free(self.database)? >= least {
                return Ok(());
            }
        }
        Err(failed(format!(
            "Drop partition of '{}': {} of the disk are free, min_free is {}, and only active partitions are left",
            self.database.name(),
            shown_bytes(free(self.database)?),
            shown_bytes(least)
        )))
    }

    /// Drops the oldest until the partitions of all tables together take so many bytes.
    fn shrink(&mut self, tables: &[String], most: u64) -> Result<(), CommandError> {
        let mut bytes = 0;
        for table in tables {
            let partitions = self.database.dbms().partitions(table)?;
            bytes += self.sizes(table, &partitions)?.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
        for (table, partition) in self.expendable(tables)? {
            if bytes <= most {
                return Ok(());
            }
            let before = self.dropped.bytes();
            self.drop(&table, &[partition])?;
            bytes = bytes.saturating_sub(self.dropped.bytes() - before);
        }
        if bytes <= most {
            return Ok(());
        }
        Err(failed(format!(
            "Drop partitions of '{}': the active ones alone take {}, max_size is {}",
            self.database.name(),
            shown_bytes(bytes),
            shown_bytes(most)
        )))
    }
}

fn drop_old(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = catalog.get(&logical(&call.options.expect_text("dbms_name")?))?;
    let most = call.options.bytes("max_size").unwrap_or(u64::MAX);
    let mut work = Drop { catalog, database: &database, dropped: Dropped::default(), why: why(call) };
    let tables = database.dbms().tables()?;
    let result = work.shrink(&tables, most);
    catalog.report_drops(&database, &work.dropped, &work.why);
    result.map(|()| Reply::Empty)
}
