//! What the benches share: sample rows as devices send them.
//!
//! ```sh
//! cargo bench -p anylog-benches --bench language   # lexer, expansion, whole commands
//! cargo bench -p anylog-benches --bench rows       # body to rows, inference, conversion, insert
//! cargo bench -p anylog-benches --bench program    # cold start, idle memory, size of the release program
//! ```

/// `count` readings of a pump, one JSON object each.
#[must_use]
pub fn readings(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            format!(
                r#"{{"timestamp": "2026-03-01T{:02}:{:02}:{:02}.{:03}Z", "device": "pump-{}", "temperature": {}.25, "running": {}}}"#,
                n / 3_600_000 % 24,
                n / 60_000 % 60,
                n / 1000 % 60,
                n % 1000,
                n % 8,
                20 + n % 60,
                n % 2 == 0
            )
        })
        .collect()
}
