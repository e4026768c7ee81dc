//! Any text is a bring clause or an error, and a clause evaluates on any document.
#![no_main]

use anylog_core::bring::Bring;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(bring) = Bring::parse(text, None) {
        let document = serde_json_document();
        bring.evaluate(&[&document]).ok();
    }
});

fn serde_json_document() -> serde_json::Value {
    anylog_core::json_text::parse(r#"{"operator": {"name": "a", "list": [1, {"b": [2]}], "port": 1}}"#).expect("a document")
}
