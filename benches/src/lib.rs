//! The load harness, and what the benches share.
//!
//! ```sh
//! cargo bench -p anylog-benches --bench load                      # every scenario, five rounds, the release program
//! cargo bench -p anylog-benches --bench load -- mqtt-8x1000       # one, with the baselines it is compared with
//! cargo bench -p anylog-benches --bench load -- mqtt-8x1000 --rounds 3 --seconds 3 --binary /tmp/anylog-node
//! cargo bench -p anylog-benches --bench load -- mqtt-8x1000 --alone --json figures.json    # without baselines
//! cargo bench -p anylog-benches --bench language   # lexer, expansion, whole commands
//! cargo bench -p anylog-benches --bench rows       # body to rows, inference, conversion, insert
//! cargo bench -p anylog-benches --bench mapping    # a published message to rows
//! cargo bench -p anylog-benches --bench journal    # append with group commit
//! cargo bench -p anylog-benches --bench query      # SQL over a network of processes, beside the operators' database time and sqlite3
//! cargo bench -p anylog-benches --bench answer     # what a statement costs beside its rows: reading, dividing, putting together
//! cargo bench -p anylog-benches --bench partitions # a table of 400 partitions beside one without
//! cargo bench -p anylog-benches --bench ledger     # a ledger of 10,000 policies in process
//! cargo bench -p anylog-benches --bench ledger_network    # the same in a network of processes
//! cargo bench -p anylog-benches --bench cluster    # members of a cluster that were away, or are new
//! cargo bench -p anylog-benches --bench program    # cold start, idle memory, size of the release program
//! ```
//!
//! A round measures one slice of each baseline and of each scenario, one after the other, so that both see the same machine;
//! ratios are taken within a round, and the table shows their median. A node and mosquitto start anew for each slice. Rates
//! count rows that a query finds; `CPU s/M` is processor time of the measured process for a million rows, `gen s/M` that of
//! the generator (for mosquitto with the subscriber), `bytes/row` what reached the disk.
//!
//! Debian's packages `mosquitto`, `sqlite3` and `postgresql` are installed when they are missing. Homes and baselines lie below
//! `<target>/tmp`, or `--dir PATH`: the disk that is measured.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod cluster;
pub mod histogram;
pub mod http;
pub mod message;
pub mod mqtt;
pub mod network;
pub mod partitions;
pub mod postgres;
pub mod process;
pub mod question;
pub mod relay;
pub mod report;
pub mod rest;
pub mod run;
pub mod scenario;

/// `count` readings of a pump, one JSON object each.
#[must_use]
pub fn readings(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            format!(
                r#"{{"timestamp": "2026-03-01T{:02}:{:02}:{:02}.{:03}Z", "device": "pump-{}", "temperature": {}.25, "running": {}}}"#,
                n / 3_600_000 % 24,
                n / 60_000 % 60,
                n / 1000 % 60,
                n % 1000,
                n % 8,
                20 + n % 60,
                n % 2 == 0
            )
        })
        .collect()
}
