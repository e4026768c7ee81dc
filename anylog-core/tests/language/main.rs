//! The command language as a user of the crate meets it: lines and scripts against a registry.

mod commands;
mod operator;
mod scripts;
mod support;
