//! Queries over real databases.

// The server of the tests of `anylog-dbms`; these tests use a part of it.
#[path = "../../../anylog-dbms/tests/dbms/server.rs"]
#[allow(dead_code, reason = "the module belongs to other tests, which use all of it")]
mod server;

mod postgres;
mod sqlite;
mod world;
