//! Commands on a timetable.

/// All schedulers of a node.
#[derive(Debug, Default)]
pub struct Schedulers {}
