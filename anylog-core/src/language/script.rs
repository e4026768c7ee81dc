//! Script files.

use std::path::Path;

use crate::{CommandError, Session};

/// Where a running script stands.
#[derive(Debug, Clone)]
pub(crate) struct Frame {}

pub(crate) async fn run_file(_session: &mut Session, _path: &Path) -> Result<(), CommandError> {
    Ok(())
}
