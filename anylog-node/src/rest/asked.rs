//! What a request asks for: the same fields in headers, in the URL, or in a JSON body.

use anylog_core::error::nearest;
use axum::http::{HeaderMap, Uri};

use super::failure::Failure;

/// The fields of a request, by their lower-case header names.
const FIELDS: &[&str] = &[
    "command",
    "user-agent",
    "anylog-agent",
    "destination",
    "subset",
    "timeout",
    "topic",
    "dbms",
    "table",
    "mode",
    "type",
    "source",
    "instructions",
    "assignment",
    "into",
    "html",
    "pdf",
];

/// The fields of one request: a few, each once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Asked(Vec<(&'static str, String)>);

impl Asked {
    /// The fields of headers and URL; those of the URL win, because a browser always sends a user agent.
    pub(super) fn of_request(headers: &HeaderMap, uri: &Uri) -> Result<Self, Failure> {
        let mut asked = Self(Vec::with_capacity(headers.len()));
        for (name, value) in headers {
            let Some(field) = field(name.as_str()).filter(|field| asked.place(field).is_none()) else { continue };
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Failure::headers(format!("The header '{field}' is not UTF-8")))?;
            asked.0.push((field, text.trim().to_owned()));
        }
        if let Some(query) = uri.query() {
            asked.read_query(query)?;
        }
        Ok(asked)
    }

    /// `name=value` terms, separated by `?` or `&`. A term that does not begin with the name of a field belongs to the value
    /// before it.
    fn read_query(&mut self, query: &str) -> Result<(), Failure> {
        let mut terms: Vec<(&'static str, String)> = Vec::new();
        let mut rest = query;
        let mut separator = '?';
        while !rest.is_empty() {
            let end = rest.find(['?', '&']).unwrap_or(rest.len());
            let term = &rest[..end];
            let named = term.split_once('=').and_then(|(name, value)| Some((field(&decoded(name).ok()?)?, value)));
            match (named, terms.last_mut()) {
                (Some((name, value)), _) => terms.push((name, value.to_owned())),
                (None, Some((_, value))) => {
                    value.push(separator);
                    value.push_str(term);
                }
                (None, None) => {}
            }
            separator = rest[end..].chars().next().unwrap_or('?');
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        for (name, value) in terms {
            let text = decoded(&value).map_err(|()| Failure::headers(format!("The URL's '{name}' is not UTF-8")))?;
            self.set(name, text.trim());
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| *known == name)
    }

    fn set(&mut self, name: &'static str, value: &str) {
        match self.place(name) {
            Some(place) => value.clone_into(&mut self.0[place].1),
            None => self.0.push((name, value.to_owned())),
        }
    }

    /// The fields of a JSON object, over those of the request itself. None when the body is not an object.
    pub(super) fn with_object(&self, body: &str) -> Option<Result<Self, Failure>> {
        let serde_json::Value::Object(object) = serde_json::from_str(body).ok()? else { return None };
        Some(self.merged(object))
    }

    fn merged(&self, object: serde_json::Map<String, serde_json::Value>) -> Result<Self, Failure> {
        let mut asked = self.clone();
        let mut sql = None;
        for (key, value) in object {
            let text = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            match field(&key) {
                Some(name) => asked.set(name, text.trim()),
                None if key.eq_ignore_ascii_case("sql") => sql = Some(text),
                None => {
                    let mut message = format!("The request body has an unknown key '{key}'");
                    if let Some(known) = nearest(&key, FIELDS.iter().copied()) {
                        message.push_str(&format!(": did you mean '{known}'?"));
                    }
                    return Err(Failure::headers(message));
                }
            }
        }
        if let Some(sql) = sql {
            let Some(place) = asked.place("dbms") else {
                return Err(Failure::headers("The request body has 'sql' but no 'dbms'"));
            };
            let (_, dbms) = asked.0.remove(place);
            asked.set("command", &format!("sql {dbms} format = json {}", sql.trim()));
            if asked.place("destination").is_none() {
                asked.set("destination", "network");
            }
        }
        Ok(asked)
    }

    /// A field that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.place(name).map(|place| self.0[place].1.as_str()).filter(|text| !text.is_empty())
    }

    /// The command, when there is one.
    pub(super) fn command(&self) -> Option<&str> {
        self.get("command")
    }

    /// The product name of the caller's program in lower case; `anylog` for curl and for callers that give none.
    pub(super) fn agent(&self) -> String {
        product(self.get("anylog-agent").or_else(|| self.get("user-agent")).unwrap_or_default())
    }
}

/// The product name of what a program calls itself.
pub(super) fn product(agent: &str) -> String {
    let product = agent.split(['/', ' ']).next().unwrap_or_default().to_lowercase();
    if product.is_empty() || product == "curl" { "anylog".to_owned() } else { product }
}

fn field(name: &str) -> Option<&'static str> {
    FIELDS.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
}

/// Percent-decodes; a `%` without two digits stands for itself.
fn decoded(text: &str) -> Result<String, ()> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of_url(url: &str) -> Asked {
        Asked::of_request(&HeaderMap::new(), &url.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_url_form_takes_both_separators() {
        for url in [
            "/?User-Agent=AnyLog/1.23?command=get%20status%20where%20format=json?destination=network",
            "/?User-Agent=AnyLog/1.23&command=get%20status%20where%20format=json&destination=network",
        ] {
            let asked = of_url(url);
            assert_eq!(asked.command(), Some("get status where format=json"));
            assert_eq!(asked.get("destination"), Some("network"));
            assert_eq!(asked.agent(), "anylog");
        }
    }

    #[test]
    fn a_separator_inside_a_value_stays_there() {
        assert_eq!(of_url("/?command=get%20x?y&z=1").command(), Some("get x?y&z=1"));
        assert_eq!(of_url("/?command=50%").command(), Some("50%"));
        assert_eq!(of_url("/?nothing").command(), None);
    }

    #[test]
    fn the_agent_is_the_product_name() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/");
        assert_eq!(Asked::of_request(&headers, &uri).unwrap().agent(), "anylog");
        headers.insert("user-agent", HeaderValue::from_static("curl/8.1"));
        assert_eq!(Asked::of_request(&headers, &uri).unwrap().agent(), "anylog");
        headers.insert("anylog-agent", HeaderValue::from_static("Grafana/9"));
        assert_eq!(Asked::of_request(&headers, &uri).unwrap().agent(), "grafana");
    }

    #[test]
    fn a_json_body_gives_the_same_fields() {
        let body = r#"{"command": "get status", "AnyLog-Agent": "AnyLog/1.23", "subset": true, "timeout": 30}"#;
        let asked = Asked::default().with_object(body).unwrap().unwrap();
        assert_eq!(
            (asked.command(), asked.get("subset"), asked.get("timeout")),
            (Some("get status"), Some("true"), Some("30"))
        );
        let query = Asked::default().with_object(r#"{"dbms": "test", "sql": "select 1 from t"}"#).unwrap().unwrap();
        assert_eq!(query.command(), Some("sql test format = json select 1 from t"));
        assert_eq!(query.get("destination"), Some("network"));
        let wrong = Asked::default().with_object(r#"{"comand": "x"}"#).unwrap().unwrap_err();
        assert!(wrong.error.message.contains("'command'"), "{}", wrong.error); // OPS-1
        assert!(Asked::default().with_object("[1]").is_none());
        assert!(Asked::default().with_object("{").is_none());
    }

    proptest! {
        #[test]
        fn any_query_is_read_without_panic(query in "[ -~]{0,60}") {
            Asked::default().read_query(&query).ok();
        }

        #[test]
        fn encoded_commands_round_trip(command in "[a-zA-Z0-9=?&%+ ü漢]{1,30}") {
            let encoded: String = command.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decoded(&encoded).unwrap(), command);
        }
    }
}
