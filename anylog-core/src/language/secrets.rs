//! Passwords do not belong into logs.

use std::borrow::Cow;

/// The longest command text that a log keeps.
const MAX_LENGTH: usize = 2000;

/// The text of a command as logs show it: what follows `password =` is replaced, and a very long text is cut.
pub(super) fn masked(source: &str) -> Cow<'_, str> {
    let source = match source.char_indices().nth(MAX_LENGTH) {
        Some((end, _)) => Cow::Owned(format!("{}...", &source[..end])),
        None => Cow::Borrowed(source),
    };
    let lower = source.to_ascii_lowercase();
    if !lower.contains("passw") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find("passw") {
        let name = at + found;
        let name_end = lower[name..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(lower.len(), |n| name + n);
        let after = lower[name_end..].trim_start();
        let value = match after.strip_prefix('=').filter(|rest| !rest.starts_with('=')) {
            Some(rest) => lower.len() - rest.trim_start().len(),
            None => {
                out.push_str(&source[at..name_end]);
                at = name_end;
                continue;
            }
        };
        let end = match lower[value..].chars().next() {
            Some(quote @ ('"' | '\'')) => lower[value + 1..].find(quote).map_or(lower.len(), |n| value + n + 2),
            _ => lower[value..].find(|c: char| c.is_whitespace() || c == ')').map_or(lower.len(), |n| value + n),
        };
        out.push_str(&source[at..value]);
        // a reference gives nothing away
        let plain = value == end || lower[value..end].starts_with(['!', '$']);
        out.push_str(if plain { &source[value..end] } else { "***" });
        at = end;
    }
    out.push_str(&source[at..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_and_references_are_not() {
        for (source, expected) in [
            ("get status", "get status"),
            ("connect dbms a where password=demo and port=1", "connect dbms a where password=*** and port=1"),
            ("set db_password = \"a b\" # x", "set db_password = *** # x"),
            ("x where Password = !db_password", "x where Password = !db_password"),
            ("topic=(passwd=x)", "topic=(passwd=***)"),
            ("if !password == x then", "if !password == x then"),
            ("password =", "password ="),
            ("password = 'a b' and x", "password = *** and x"),
            ("password=\"open", "password=***"),
        ] {
            assert_eq!(masked(source), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(é|password|passwd|=| |\"|x|\\)){0,12}") {
            drop(masked(&text));
        }
    }
}
