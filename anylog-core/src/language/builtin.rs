//! The commands of the language itself.

use std::sync::Arc;

use crate::Node;

pub(crate) fn register(node: &Arc<Node>) {
    super::register_flow(node);
}
