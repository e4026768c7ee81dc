//! The commands of an operator: thin adapters between the language and [`OperatorService`].

mod act;
mod cluster;
mod quarantine;
mod show;
mod streaming;

use std::sync::Arc;

use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Session, command};
use jiff::civil::Date;

use crate::OperatorService;

/// All commands of the operator.
#[must_use]
pub fn commands(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let mut all = starting(service);
    all.extend(buffers(service));
    all.extend(looking(service));
    all.extend(aside(service));
    all.extend(cluster::commands(service));
    all
}

/// The options that choose records of the quarantine.
fn chosen(declaration: Declaration) -> Declaration {
    declaration
        .option("dbms", OptionKind::Text, "rows for this database")
        .option("table", OptionKind::Text, "rows for this table")
        .option("topic", OptionKind::Text, "messages of this topic, and rows of them")
        .option("reason", OptionKind::Text, "of this kind, or with these words in the reason")
        .option("from", OptionKind::Date, "put aside at this time or later")
        .option("to", OptionKind::Date, "put aside before this time")
        .option("id", OptionKind::Text, "the record with this key")
}

fn aside(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            chosen(
                Declaration::new(
                    "get quarantine",
                    "Shows rows and messages that could not be stored, with the reasons, newest first.",
                )
                .reads()
                .optional_word("topic", "summary: only the counts"),
            )
            .option("limit", OptionKind::Int, "at most so many records; 0 for all")
            .default_is("100")
            .format_option()
            .returns(
                "the bytes and the limit, the counts by kind, database and table with the oldest and newest, and the records; as \
                 JSON an object with bytes, limit, records, counts, since_start (the counters), rows",
            )
            .example("get quarantine where dbms = test and table = rand_data")
            .example("get quarantine summary"),
            state(),
            |state, session, call| Box::pin(quarantine::get(state, session, call)),
        ),
        command(
            chosen(Declaration::new(
                "retry quarantine",
                "Tries rows and messages of the quarantine again, by the tables and mappings of now. What succeeds is stored and \
                 leaves; what fails stays, with the new reason.",
            ))
            .option("dry_run", OptionKind::Bool, "only says what would happen")
            .default_is("false")
            .format_option()
            .returns("how many records were tried, how many left, their rows, and how many were refused again, by kind")
            .example("retry quarantine where topic = anylog-demo")
            .example("retry quarantine where dbms = test and table = rand_data and dry_run = true"),
            state(),
            |state, session, call| Box::pin(quarantine::retry(state, session, call)),
        ),
        command(
            chosen(Declaration::new("delete quarantine", "Throws rows and messages of the quarantine away, for good."))
                .option("all", OptionKind::Bool, "all of them")
                .default_is("false")
                .returns("how many records were deleted")
                .example("delete quarantine where reason = not_json and to = -30d")
                .example("delete quarantine where all = true"),
            state(),
            |state, session, call| Box::pin(quarantine::delete(state, session, call)),
        ),
    ]
}

fn starting(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(run_operator(), state(), |state, session, call| Box::pin(act::run_operator(state, session, call))),
        command(
            Declaration::new("exit operator", "Ends the operator after its open buffers were sealed.")
                .alias("stop operator")
                .returns("nothing, when everything is sealed")
                .example("exit operator"),
            state(),
            |state, session, call| Box::pin(act::exit_operator(state, session, call)),
        ),
        command(
            Declaration::new("run streamer", "Seals buffers by time and volume.")
                .option(
                    "prep_dir",
                    OptionKind::Directory,
                    "kept for older scripts; buffers are sealed from the journal",
                )
                .option("watch_dir", OptionKind::Directory, "kept for older scripts")
                .option("err_dir", OptionKind::Directory, "kept for older scripts")
                .returns("nothing")
                .example("run streamer"),
            state(),
            |state, session, call| Box::pin(act::run_streamer(state, session, call)),
        ),
        command(
            Declaration::new(
                "run data distributor",
                "Offers source files of this node to the other operators of its cluster, and rows of open ones where acknowledgements \
                 ask for it.",
            )
            .option("cluster_id", OptionKind::Text, "kept for older scripts; it is the operator's own cluster")
            .option("distr_dir", OptionKind::Directory, "kept for older scripts; files are sent from the archive")
            .returns("nothing; links are made while an operator with a policy runs, whichever of both is started first")
            .example("run data distributor"),
            state(),
            |state, session, call| Box::pin(act::run_distributor(state, session, call)),
        ),
        command(
            Declaration::new("exit distributor", "Ends the data distributor.")
                .alias("exit data distributor")
                .returns("nothing; the node still gives other operators of the cluster what they ask for")
                .example("exit distributor"),
            state(),
            |state, session, call| Box::pin(act::exit_distributor(state, session, call)),
        ),
        command(
            Declaration::new(
                "run data consumer",
                "Fetches source files that other operators of the cluster have and this one lacks, whoever produced them.",
            )
            .option("start_date", OptionKind::Date, "files from this time on; all unless given")
            .option("end_date", OptionKind::Date, "files up to this time; shown, newer ones are fetched as well")
            .option("mode", OptionKind::Choice(&["active", "suspend"]), "whether it fetches")
            .default_is("active")
            .returns("nothing; see how far it is with get consumer")
            .example("run data consumer where start_date = -30d"),
            state(),
            |state, session, call| Box::pin(act::run_consumer(state, session, call)),
        ),
        command(
            Declaration::new("exit consumer", "Ends the data consumer.")
                .alias("exit data consumer")
                .returns("nothing; files that other operators offer are still taken")
                .example("exit consumer"),
            state(),
            |state, session, call| Box::pin(act::exit_consumer(state, session, call)),
        ),
    ]
}

fn run_operator() -> Declaration {
    Declaration::new("run operator", "Makes the node store data: rows that arrive, and files in the watch directory.")
        .option(
            "policy",
            OptionKind::Text,
            "id of the node's operator policy; found by the node's address unless given",
        )
        .option("create_table", OptionKind::Bool, "create unknown tables and publish their policies")
        .default_is("true")
        .option("update_tsd_info", OptionKind::Bool, "register source files in almgm.tsd_info")
        .default_is("false")
        .option("archive_json", OptionKind::Bool, "keep source files in the archive directory")
        .default_is("true")
        .key_alias(&["archive"])
        .option("compress_json", OptionKind::Bool, "compress kept source files")
        .default_is("true")
        .option("archive_sql", OptionKind::Bool, "kept for older scripts; no SQL files are made")
        .default_is("false")
        .option("compress_sql", OptionKind::Bool, "kept for older scripts")
        .default_is("true")
        .option(
            "distributor",
            OptionKind::Bool,
            "hand source files to the peers of the cluster; without peers, archive",
        )
        .default_is("false")
        .option("master_node", OptionKind::Address, "where policies of tables are published")
        .key_alias(&["master"])
        .option("company", OptionKind::Text, "company in the policies of tables")
        .repeated("limit_tables", OptionKind::Text, "the only tables that are taken, as dbms.table")
        .option("threads", OptionKind::Int, "shown in get processes; each database has a writing thread of its own")
        .default_is("1")
        .option("flush_streaming", OptionKind::Bool, "kept for older scripts; buffers are always sealed by time")
        .default_is("false")
        .repeated("file_type", OptionKind::Choice(&["json", "sql", "gz"]), "kept for older scripts")
        .option("watch_dir", OptionKind::Directory, "files that are ready to be stored")
        .option("err_dir", OptionKind::Directory, "files and rows that cannot be stored")
        .option("bkup_dir", OptionKind::Directory, "source files that are not archived")
        .option("archive_dir", OptionKind::Directory, "archived source files")
        .option("distr_dir", OptionKind::Directory, "files that wait to be sent to peers")
        .returns("nothing, when rows can be stored")
        .example(
            "run operator where create_table = true and update_tsd_info = true and archive = true and \
             master = 127.0.0.1:32048 and policy = !operator_id",
        )
}

fn buffers(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            Declaration::new(
                "set buffer threshold",
                "Says when buffered rows become visible and are sealed into a source file.",
            )
            .option("dbms", OptionKind::Text, "for tables of this database only")
            .key_alias(&["dbms_name"])
            .option("table", OptionKind::Text, "for this table only")
            .key_alias(&["table_name"])
            .option("time", OptionKind::Duration, "the longest time that rows wait")
            .default_is("60 seconds")
            .option("volume", OptionKind::Bytes, "the most bytes that wait")
            .default_is("10,000")
            .option("write_immediate", OptionKind::Bool, "rows are in the database before they are acknowledged")
            .default_is("false")
            .option(
                "ack",
                OptionKind::Text,
                "who has rows on disk when they are acknowledged: local, which is this node, or replicated(k), k members of its \
                 cluster with this one; stays as it is unless given",
            )
            .option(
                "when_few",
                OptionKind::Text,
                "while fewer members can be reached: wait, senders are held back, or error, rows are refused; stays as it is \
                 unless given",
            )
            .returns("nothing; shown by 'get streaming config'")
            .example("set buffer threshold where write_immediate = true")
            .example(
                "set buffer threshold where dbms_name = plant and table_name = alarms and ack = replicated(2) and when_few = error",
            ),
            state(),
            |state, session, call| Box::pin(act::set_threshold(state, session, call)),
        ),
        command(
            Declaration::new("flush buffers", "Seals all buffers now; returns when their rows are in the databases.")
                .adds_data()
                .returns("nothing, when what waited can be queried and is archived")
                .example("flush buffers"),
            state(),
            |state, session, call| Box::pin(act::flush_buffers(state, session, call)),
        ),
        command(
            Declaration::new(
                "set time window",
                "Says which times in data are believed; other rows go to the quarantine.",
            )
            .option("dbms", OptionKind::Text, "for tables of this database only")
            .key_alias(&["dbms_name"])
            .option("table", OptionKind::Text, "for this table only")
            .key_alias(&["table_name"])
            .option("past", OptionKind::Duration, "how long ago a time may be; since 1970 unless given")
            .option("future", OptionKind::Duration, "how far ahead a time may be")
            .default_is("1 day")
            .option(
                "partitions",
                OptionKind::Int,
                "partitions of a table beyond which rows make none but the present one",
            )
            .default_is("4096")
            .option("reset", OptionKind::Bool, "forgets what was said of this scope, so that the wider one holds")
            .default_is("false")
            .returns("nothing; rows that come from now on are judged by it")
            .example("set time window where past = 365 days and future = 1 day")
            .example("set time window where dbms = test and table = rand_data and past = 30 days and partitions = 60"),
            state(),
            |state, session, call| Box::pin(act::set_time_window(state, session, call)),
        ),
        command(
            Declaration::new(
                "set quarantine",
                "Says how much the quarantine may hold. When it is full, what would go there is not acknowledged.",
            )
            .required("limit", OptionKind::Bytes, "bytes of its files")
            .returns("nothing")
            .example("set quarantine where limit = 1GB"),
            state(),
            |state, session, call| Box::pin(quarantine::set_limit(state, session, call)),
        ),
        command(
            Declaration::new("delete archive", "Removes archived source files that are older than a number of days.")
                .required("days", OptionKind::Int, "the number of days that stay beside today")
                .returns("how many files were removed")
                .example("delete archive where days = 30"),
            state(),
            |state, session, call| Box::pin(act::delete_archive(state, session, call)),
        ),
    ]
}

fn looking(service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    let state = || Arc::clone(service);
    vec![
        command(
            Declaration::new("get operator", "Shows what the operator stored, and what failed.")
                .reads()
                .optional_word("topic", "json, sql, inserts, error, summary or config; the first four unless given")
                .format_option()
                .returns("a table for each topic").example("get operator summary")
                .example("get operator where format = json"),
            state(),
            |state, session, call| Box::pin(show::operator(state, session, call)),
        ),
        command(
            Declaration::new(
                "get streaming",
                "Shows the rows that wait in buffers, by table; with config, the thresholds; with queues, what waits and its bounds.",
            )
            .reads()
            .optional_word("topic", "config or queues")
            .format_option()
            .returns("a row by table and the queues of the node; as JSON the tables, of queues the queues")
            .example("get streaming")
            .example("get streaming config")
            .example("get streaming queues where format = json"),
            state(),
            |state, session, call| Box::pin(streaming::show(state, session, call)),
        ),
        command(
            Declaration::new("get archived files", "Lists the archived source files of a day.")
                .reads()
                .word("day", "YYYY-MM-DD in UTC")
                .format_option()
                .returns("a table with a row for each file").example("get archived files 2026-11-23"),
            state(),
            |state, session, call| Box::pin(show::archived(state, session, call)),
        ),
        command(
            Declaration::new("get stats", "Shows the counters of a service, as monitoring asks for them.")
                .reads()
                .required("service", OptionKind::Choice(&["operator"]), "whose counters")
                .option("topic", OptionKind::Choice(&["summary", "inserts", "json", "sql", "error", "config"]), "which of them")
                .default_is("summary")
                .format_option()
                .returns("what get operator shows of the topic; of the summary as JSON also a timestamp")
                .example("get stats where service = operator and topic = summary and format = json"),
            state(),
            |state, session, call| Box::pin(show::stats(state, session, call)),
        ),
        command(
            Declaration::new("reset stats", "Starts the counters of a service anew.")
                .required("service", OptionKind::Choice(&["operator"]), "whose counters")
                .option("topic", OptionKind::Choice(&["summary"]), "which of them; the summary is made of all")
                .default_is("summary")
                .returns("nothing")
                .example("reset stats where service = operator and topic = summary"),
            state(),
            |state, session, call| Box::pin(show::reset_stats(state, session, call)),
        ),
    ]
}

/// The path of a directory option that this caller may use.
fn directory(session: &Session, call: &Invocation, name: &str) -> Result<Option<std::path::PathBuf>, CommandError> {
    call.options.text(name).map(|path| session.permit_path(&path)).transpose()
}

fn day(text: &str) -> Result<Date, CommandError> {
    text.parse().map_err(|_| CommandError::parameter(format!("'{text}' is not a day")).hint("write it as YYYY-MM-DD"))
}

/// A number with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 10_240, 1_795_411_320].map(thousands), ["0", "999", "10,240", "1,795,411,320"]);
    }
}
