//! What goes wrong on a real machine, done on purpose: processes killed, disks full, syncs that fail, files damaged, readers that
//! stay. Each test says what a sender was promised, and looks whether it holds afterwards.
//!
//! The suite runs in a short form. Its long form is asked for by the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `ANYLOG_FAULT_ROUNDS` | rounds of kill -9; 6 when it is not set |
//! | `ANYLOG_FAULT_SEED` | the seed that decides everything in those rounds; random when it is not set, and always printed |
//! | `ANYLOG_FAULT_SECONDS` | how long tests under steady load run; 3 when it is not set |
//! | `ANYLOG_SOAK_SECONDS` | how long the soak runs: 600 is its long form, which also looks at slopes |
//! | `ANYLOG_SOAK_ROWS` | rows a second of the soak; 10,000 when it is not set |
//! | `ANYLOG_NODE_BINARY` | another program than the one that cargo built, such as an optimised one |
//!
//! ```sh
//! ANYLOG_FAULT_ROUNDS=1000 ANYLOG_FAULT_SEED=7 cargo test -p anylog-node --test faults kill -- --nocapture
//! ```
//!
//! Mounting small file systems needs root, and tracing system calls needs `strace`: a test that misses one says so and passes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail, and says what it did")]
#![allow(clippy::disallowed_methods, reason = "the clock of a tracer is that of the computer")]

mod faults {
    #[path = "../e2e/harness.rs"]
    #[allow(dead_code, reason = "the tests of the features use more of it")]
    pub(crate) mod harness;

    pub(crate) mod chance;
    pub(crate) mod devices;
    pub(crate) mod files;
    pub(crate) mod http;
    pub(crate) mod load;
    pub(crate) mod mqtt;
    pub(crate) mod node;
    pub(crate) mod record;
    pub(crate) mod small_disk;
    pub(crate) mod sqlite;
    pub(crate) mod strace;

    mod calls;
    mod damage;
    mod disk_full;
    mod kill;
    mod memory;
    mod postgres;
    mod soak;
    mod starts;
    mod tables;
    mod terminate;
    mod trace;
}
