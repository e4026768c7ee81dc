//! `config from policy`.

/// A policy that was executed.
#[derive(Debug, Clone)]
pub struct Executed {}
