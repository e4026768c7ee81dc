//! Criterion benches and the load harness
