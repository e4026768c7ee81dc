//! The commands that steer other commands.

use std::sync::Arc;

use crate::Node;

pub(crate) fn register_flow(_node: &Arc<Node>) {}
