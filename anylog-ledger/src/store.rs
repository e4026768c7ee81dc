//! Where policies are kept: the local copy in a file, and the master's table.

pub mod file;
pub mod master;
