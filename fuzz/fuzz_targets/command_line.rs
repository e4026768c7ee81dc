//! Any text is a command that runs or an error; never a panic. Only the language's own harmless part is registered.
#![no_main]

use anylog_core::language::lexer::lex;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(words) = lex(text) {
        for word in words {
            assert!(text.get(word.span).is_some());
        }
    }
});
