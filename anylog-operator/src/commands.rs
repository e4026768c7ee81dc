//! The commands of an operator.

use std::sync::Arc;

use anylog_core::Command;

use crate::OperatorService;

/// All commands of the operator.
#[must_use]
pub fn commands(_service: &Arc<OperatorService>) -> Vec<Arc<dyn Command>> {
    Vec::new()
}

/// A number with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
