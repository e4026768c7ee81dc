//! The operator over real SQLite databases and real files.

mod commands;
mod files;
mod harness;
mod restart;
mod streams;
