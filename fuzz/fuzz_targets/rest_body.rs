//! Any body is a list of rows or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(rows) = anylog_ingest::rest::rows_of_body(body) {
        assert!(rows.iter().all(|row| row.starts_with('{') && !row.contains('\n')));
    }
});
