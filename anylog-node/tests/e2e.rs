//! The node as its users meet it: the real binary, mosquitto's clients and broker, curl, files, signals.
//!
//! Needs `curl`, `mosquitto` and `mosquitto-clients`, which `./test.sh` installs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail")]

mod e2e {
    pub(crate) mod harness;

    mod broker;
    mod eleven_steps;
    mod exactly_once;
    mod message_client;
    mod network;
    mod network_sql;
    mod postgres;
    mod quarantine;
    mod rest_data;
    mod restart;
    mod values;
    mod watch_directory;
    mod wrong_input;

    /// The PostgreSQL server of the database tests.
    #[path = "../../../anylog-dbms/tests/dbms/server.rs"]
    #[allow(dead_code, reason = "the database tests use more of it")]
    mod server;
}
