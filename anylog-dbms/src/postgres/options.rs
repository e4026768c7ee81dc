//! Connection texts: `key=value ...` or `postgresql://...`, as PostgreSQL's own programs take them.

/// Keys and values, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options(Vec<(String, String)>);

impl Options {
    /// Reads a connection text; an empty one has no keys.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let pairs = match url {
            Some(url) => from_url(url)?,
            None => from_words(text)?,
        };
        let mut options = Self::default();
        for (key, value) in pairs {
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(format!("'{key}' in the connection text is not the name of a setting"));
            }
            options.set(&key, &value);
        }
        Ok(options)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => value.clone_into(known),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn set_default(&mut self, key: &str, value: &str) {
        if self.get(key).is_none() {
            self.set(key, value);
        }
    }

    /// Takes a key away.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    /// As `key='value' ...`.
    pub(super) fn text(&self) -> String {
        let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
        pairs.join(" ")
    }
}

/// A connection text without the name of its database.
pub(crate) fn without_database(text: &str) -> String {
    match Options::parse(text) {
        Ok(mut options) => {
            options.take("dbname");
            options.text()
        }
        Err(_) => text.to_owned(),
    }
}

fn from_words(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let wrong = || format!("the connection text has no '=' after '{}'", shown(rest));
        let (key, after) = rest.split_once('=').ok_or_else(wrong)?;
        let key = key.trim();
        if key.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (value, after) = word(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value, quoted or up to a blank, and what follows it.
fn word(text: &str) -> Result<(String, &str), String> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            letter if !quoted && letter.is_whitespace() => return Ok((value, &text[at..])),
            letter => value.push(letter),
        }
    }
    if quoted { Err("a quote in the connection text is not closed".into()) } else { Ok((value, "")) }
}

/// `[user[:password]@][host[:port],...][/database][?key=value&...]`
fn from_url(url: &str) -> Result<Vec<(String, String)>, String> {
    let (main, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (place, database) = main.split_once('/').unwrap_or((main, ""));
    let (login, hosts) = place.rsplit_once('@').unwrap_or(("", place));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut pairs = Vec::new();
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',').filter(|host| !host.is_empty()) {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':').unwrap_or("")),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(decoded(name)?);
        ports.push(if port.is_empty() { "5432" } else { port });
    }
    for (key, value) in [("user", decoded(user)?), ("password", decoded(password)?), ("dbname", decoded(database)?)] {
        if !value.is_empty() {
            pairs.push((key.to_owned(), value));
        }
    }
    if !names.is_empty() {
        pairs.push(("host".to_owned(), names.join(",")));
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let wrong = || format!("the connection text has no '=' after '{}'", shown(parameter));
        let (key, value) = parameter.split_once('=').ok_or_else(wrong)?;
        pairs.push((decoded(key)?, decoded(value)?));
    }
    Ok(pairs)
}

/// `%41` becomes `A`.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("a '%' in the connection text is not followed by two hexadecimal digits")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the connection text is not UTF-8".to_owned())
}

/// The beginning of a text without what may be a password.
fn shown(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Options::parse(text).unwrap().0
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words_are_read() {
        assert_eq!(pairs(""), []);
        let expected = owned(&[("host", "10.0.0.1"), ("password", "it's \\ = x"), ("port", "5433"), ("user", "")]);
        assert_eq!(pairs(r"host=10.0.0.1 password = 'it\'s \\ = x' port=5433 user=''"), expected);
        assert!(Options::parse("host").unwrap_err().contains("'host'"));
        assert!(Options::parse("a b=c").is_err());
        assert!(Options::parse("password='open").is_err());
    }

    #[test]
    fn urls_are_read() {
        let expected = owned(&[
            ("user", "anylog"),
            ("password", "a:b@c"),
            ("dbname", "plant 1"),
            ("host", "db.example,::1"),
            ("port", "5433,5432"),
            ("sslmode", "verify-full"),
        ]);
        assert_eq!(
            pairs("postgresql://anylog:a%3Ab%40c@db.example:5433,[::1]/plant%201?sslmode=verify-full"),
            expected
        );
        assert_eq!(pairs("postgres://h"), owned(&[("host", "h"), ("port", "5432")]));
        assert!(Options::parse("postgres://h/%4").is_err());
    }

    #[test]
    fn an_error_shows_no_password() {
        let error = Options::parse("host=a password=secret x").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(".{0,12}", 0..5)) {
            let mut options = Options::default();
            for (at, value) in values.iter().enumerate() {
                options.set(&format!("key{at}"), value);
            }
            proptest::prop_assert_eq!(Options::parse(&options.text()).unwrap(), options);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(postgres://)?.{0,40}") {
            if let Ok(options) = Options::parse(&text) {
                proptest::prop_assert_eq!(Options::parse(&options.text()), Ok(options));
            }
        }
    }
}
