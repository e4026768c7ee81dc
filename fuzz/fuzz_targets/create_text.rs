//! Any text is a table or an error, and what a table writes it reads again.
#![no_main]

use anylog_dbms::schema::{create_text, parse_create};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(schema) = parse_create(text) {
        assert_eq!(parse_create(&create_text(&schema)).expect("its own text"), schema);
    }
});
