//! Queries over real databases.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

// The server of the tests of `anylog-dbms`; these tests use a part of it.
#[path = "../../../anylog-dbms/tests/dbms/server.rs"]
#[allow(
    dead_code,
    unexpected_cfgs,
    reason = "the module belongs to other tests, which use all of it and have features"
)]
mod server;

mod dropped;
mod network;
mod postgres;
mod sqlite;
mod world;
