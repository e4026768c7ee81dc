//! A cluster of real processes: a master, three operators that hold the same data, a query node. What the operators say to each
//! other goes through links that fail as networks do; the operators are killed, emptied, cut off and healed.
//!
//! The suite runs in a short form. Its long form is asked for by the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `ANYLOG_CHAOS_SECONDS` | how long operators fail at random while all of them take rows; 12 when it is not set |
//! | `ANYLOG_CHAOS_SEED` | the seed that decides everything that happens then; printed; 1 when it is not set |
//! | `ANYLOG_CLUSTER_ROUNDS` | how often a member is destroyed with its disk right after an acknowledgement; 5 when it is not set |
//! | `ANYLOG_CLUSTER_MOVES` | how often a member comes back at other ports; 3 when it is not set |
//! | `ANYLOG_TEST_PATIENCE` | how many seconds a condition may take to come true; 120 when it is not set |
//! | `ANYLOG_NODE_BINARY` | another program than the one that cargo built, such as an optimised one |
//!
//! ```sh
//! ANYLOG_CHAOS_SECONDS=600 ANYLOG_CHAOS_SEED=7 cargo test -p anylog-node --test cluster chaos -- --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail, and says what it did")]
#![allow(clippy::disallowed_methods, reason = "a seed that nobody gave is drawn from the computer's clock")]

mod cluster {
    #[path = "../faults/chance.rs"]
    #[allow(dead_code, reason = "the tests of failures use more of it")]
    pub(crate) mod chance;
    #[path = "../faults/http.rs"]
    pub(crate) mod http;
    #[path = "../faults/mqtt.rs"]
    #[allow(dead_code, reason = "the tests of failures use more of it")]
    pub(crate) mod mqtt;
    #[path = "../e2e/process.rs"]
    pub(crate) mod process;
    /// The PostgreSQL server of the database tests.
    #[path = "../../../anylog-dbms/tests/dbms/server.rs"]
    #[allow(dead_code, reason = "the database tests use more of it")]
    pub(crate) mod server;
    #[path = "../faults/small_disk.rs"]
    #[allow(dead_code, reason = "the tests of failures use more of it")]
    pub(crate) mod small_disk;

    pub(crate) mod check;
    pub(crate) mod links;
    pub(crate) mod load;
    pub(crate) mod network;
    pub(crate) mod node;
    pub(crate) mod record;

    mod acks;
    mod chaos;
    mod commands;
    mod committed;
    mod destroy;
    mod disks;
    mod engines;
    mod fills;
    mod moves;
    mod queries;
    mod twins;
}
