//! The command language as a user of the crate meets it: lines and scripts against a registry.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod deployment;
mod operator;
mod scripts;
mod support;
