//! The node as its users meet it: the real binary, mosquitto's clients and broker, curl, files, signals.
//!
//! Needs `curl`, `mosquitto`, `mosquitto-clients` and `postgresql`, which `./test.sh` installs. With `ANYLOG_TEST_DBMS=psql` every
//! logical database of every node lies in PostgreSQL; with `mixed` those of every second operator of a network do.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail")]

mod e2e {
    pub(crate) mod harness;

    mod broker;
    mod eleven_steps;
    mod exactly_once;
    mod message_client;
    mod network;
    mod network_ledger;
    mod network_sql;
    mod postgres;
    mod quarantine;
    mod rest_data;
    mod restart;
    mod values;
    mod watch_directory;
    mod wrong_input;
}
