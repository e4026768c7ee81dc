//! Passwords do not belong into logs.

use std::borrow::Cow;
use std::ops::Range;

/// The longest command text that a log keeps.
const MAX_LENGTH: usize = 2000;

/// Parts of the names whose values logs do not show.
const SECRET: [&str; 6] = ["passw", "secret", "token", "private_key", "api_key", "license_key"];

/// The text of a command as logs show it: what follows `password =` is replaced, and a very long text is cut.
pub(super) fn masked(source: &str) -> Cow<'_, str> {
    let source = match source.char_indices().nth(MAX_LENGTH) {
        Some((end, _)) => Cow::Owned(format!("{}...", &source[..end])),
        None => Cow::Borrowed(source),
    };
    let mut out = String::new();
    let mut at = 0;
    while let Some(value) = next_secret(&source, at) {
        out.push_str(&source[at..value.start]);
        out.push_str("***");
        at = value.end;
    }
    if at == 0 {
        return source;
    }
    out.push_str(&source[at..]);
    Cow::Owned(out)
}

/// Where the next value of a secret name stands. A reference gives nothing away.
fn next_secret(source: &str, from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(found) = source[at..].find(['=', ':']) {
        let sign = at + found;
        at = sign + 1;
        let name = source[..sign].trim_end();
        // `"password": "x"` in JSON, but not `host:port`
        if source[sign..].starts_with(':') && !name.ends_with(['"', '\'']) {
            continue;
        }
        let name = name.trim_end_matches([']', '"', '\'']);
        let start = name
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |before| before + name[before..].chars().next().map_or(1, char::len_utf8));
        let name = name[start..].to_lowercase();
        let rest = &source[at..];
        if rest.starts_with('=') || !SECRET.iter().any(|part| name.contains(part)) {
            continue;
        }
        let value = source.len() - rest.trim_start().len();
        let text = &source[value..];
        let length = match text.chars().next() {
            Some(quote @ ('"' | '\'')) => text[1..].find(quote).map_or(text.len(), |n| n + 2),
            _ => {
                let ends = if source[sign..].starts_with(':') { ",}" } else { ")" };
                text.find(|c: char| c.is_whitespace() || ends.contains(c)).unwrap_or(text.len())
            }
        };
        if length > 0 && !text.starts_with(['!', '$']) {
            return Some(value..value + length);
        }
    }
    None
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
            ("x where token=a-b and é_secret = b", "x where token=*** and é_secret = ***"),
            ("password = !a and password = b", "password = !a and password = ***"),
            ("p = {\"password\": \"x y\", \"a\": 1}", "p = {\"password\": ***, \"a\": 1}"),
            ("set policy p [db_password] = x", "set policy p [db_password] = ***"),
            ("connect to password:x", "connect to password:x"),
            ("password = a,b==", "password = ***"),
            ("password =", "password ="),
            ("password = 'a b' and x", "password = *** and x"),
            ("password=\"open", "password=***"),
        ] {
            assert_eq!(masked(source), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(é|password|token|=|:|\\]| |\"|'|!|x|\\)){0,12}") {
            drop(masked(&text));
        }
    }
}
