use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::Status;
use crate::language::lexer::lex;
use crate::time::ManualClock;

fn node() -> Arc<Node> {
    let clock = ManualClock::new("2026-05-10T12:00:00Z".parse().unwrap());
    let node = Node::builder().clock(clock).build();
    for (name, value) in [("topic", "anylog-demo"), ("port", "32148"), ("sync", "30 seconds"), ("key", "name")] {
        node.dictionary.set(name, value);
    }
    node
}

fn declaration() -> Declaration {
    Declaration::new("try", "Tries.")
        .option("name", OptionKind::Text, "")
        .key_alias(&["title"])
        .option("count", OptionKind::Int, "")
        .option("ratio", OptionKind::Float, "")
        .option("log", OptionKind::Bool, "")
        .option("time", OptionKind::Duration, "")
        .option("volume", OptionKind::Bytes, "")
        .option("repeat", OptionKind::Frequency, "")
        .option("connection", OptionKind::Address, "")
        .option("start", OptionKind::Date, "")
        .option("sort", OptionKind::Columns, "")
        .option("node name", OptionKind::Text, "")
        .repeated("dest", OptionKind::Text, "")
        .repeated("topic", OptionKind::Nested, "")
        .option("policy", OptionKind::Json, "")
        .option("folder", OptionKind::Directory, "")
        .format_option()
}

fn read(text: &str) -> Result<Options, CommandError> {
    parse(&node(), &declaration(), &lex(text)?)
}

#[test]
fn every_kind_of_value() {
    let options = read(
        "name = a and count=5 and ratio = 0.5 and log = TRUE and time = 30 seconds and volume = 10KB and repeat = 5 hz and \
         connection = 127.0.0.1:32048 and start = -3d and sort = (2,3) and node name = x y and format = JSON and",
    )
    .unwrap();
    assert_eq!(options.text("name").as_deref(), Some("a"));
    assert_eq!(options.int("count"), Some(5));
    assert_eq!(options.float("ratio"), Some(0.5));
    assert_eq!(options.bool("log"), Some(true));
    assert_eq!(options.duration("time"), Some(Duration::from_secs(30)));
    assert_eq!(options.bytes("volume"), Some(10_240));
    assert_eq!(options.float("repeat"), Some(0.2));
    assert_eq!(options.text("connection").as_deref(), Some("127.0.0.1:32048"));
    assert_eq!(options.date("start"), Some("2026-05-07T12:00:00Z".parse::<Timestamp>().unwrap()));
    assert_eq!(options.columns("sort"), Some(&[2, 3][..]));
    assert_eq!(options.text("node name").as_deref(), Some("x y"));
    assert!(options.wants_json());
}

#[test]
fn times_that_no_clock_can_count_are_refused() {
    assert_eq!(read("time = 3650000 days").unwrap().duration("time"), Some(Duration::from_secs(3_650_000 * 86_400)));
    for text in ["18446744073709551615", "99999999999999999999999", "3700000 days", "99999999999999999 weeks"] {
        let error = read(&format!("time = {text}")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("the longest time is 3650000 days"), "{text}: {error}");
    }
    let hint = |text: &str| read(&format!("time = {text}")).unwrap_err().hint.unwrap();
    assert_eq!(hint("5 sconds"), "did you mean the unit 'seconds'?");
    assert!(hint("some seconds").starts_with("expected N seconds|"), "{}", hint("some seconds"));
}

#[test]
fn references_in_keys_and_values() {
    let options = read("!key = !topic and count = !port.int and time = !sync").unwrap();
    assert_eq!(options.text("name").as_deref(), Some("anylog-demo"));
    assert_eq!(options.int("count"), Some(32148));
    assert_eq!(options.duration("time"), Some(Duration::from_secs(30)));
    let error = read("name = !unset").unwrap_err();
    assert_eq!(error.message, "Missing dictionary definition for: '!unset'");
    assert_eq!(error.hint.as_deref(), Some("set it first: set unset = <value>"));
    assert!(read("name = a !unset b").is_err());
}

#[test]
fn dates() {
    for (text, expected) in [
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("2026-01-02 03:04:05.5", "2026-01-02T03:04:05.5Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("+1d", "2026-05-11T12:00:00Z"),
        ("-2 hours", "2026-05-10T10:00:00Z"),
        ("now()", "2026-05-10T12:00:00Z"),
    ] {
        let options = read(&format!("start = {text}")).unwrap();
        assert_eq!(options.date("start"), Some(expected.parse().unwrap()), "{text}");
    }
    assert!(read("start = yesterday").is_err());
    assert!(read("start = -99999999999d").is_err());
}

#[test]
fn nested_lists_keep_their_inner_lists_as_text() {
    let options = read(
        "topic=(name=!topic and column.timestamp.timestamp=\"bring [timestamp]\" and \
         column.value=(value=\"bring [value]\" and type=float)) and topic = (name = \"#\" and dbms = b)",
    )
    .unwrap();
    let topics: Vec<&Options> = options.nested("topic").collect();
    assert_eq!(topics.len(), 2);
    assert_eq!(topics[0].text("name").as_deref(), Some("anylog-demo"));
    assert_eq!(topics[0].text("column.timestamp.timestamp").as_deref(), Some("bring [timestamp]"));
    let inner = topics[0].text("column.value").unwrap();
    let inner = inner.strip_prefix('(').unwrap().strip_suffix(')').unwrap();
    let inner = parse_any(&node(), &lex(inner).unwrap()).unwrap();
    assert_eq!(inner.text("value").as_deref(), Some("bring [value]"));
    assert_eq!(inner.text("type").as_deref(), Some("float"));
    assert_eq!(topics[1].text("name").as_deref(), Some("#"));
    // an unquoted # is a comment, which leaves the key without a value
    assert!(read("topic = (name = # and dbms = b)").unwrap_err().to_string().contains("double quotes"));
}

#[test]
fn lists_add_several_values_to_a_repeated_key() {
    assert_eq!(read("dest = (a, !topic ,c)").unwrap().texts("dest"), ["a", "anylog-demo", "c"]);
    assert_eq!(read("dest = a and dest = b").unwrap().texts("dest"), ["a", "b"]);
    assert_eq!(read("name = (a, b)").unwrap().text("name").as_deref(), Some("(a, b)"));
}

#[test]
fn values_keep_the_way_they_were_written() {
    for (text, expected) in [
        ("name = a  b", "a b"),
        ("name = ab+cd==", "ab+cd=="),
        ("name = http://h/p?a=b", "http://h/p?a=b"),
        ("name = \"x and y = z\"", "x and y = z"),
        ("name = a and", "a"),
        ("title = t", "t"),
        ("name = '!topic x'", "!topic x"),
        ("name = \"'a'\"", "'a'"),
    ] {
        assert_eq!(read(text).unwrap().text("name").as_deref(), Some(expected), "{text}");
    }
}

// OPS-1: what is not understood is an error that names the nearest valid setting
#[test]
fn what_is_not_understood_is_refused() {
    for (text, message) in [
        ("nam = a", "did you mean 'name'"),
        ("titel = a", "did you mean 'title'"),
        ("zzzzzz = a", "keys of this command: name, count"),
        ("name", "Missing '=' in 'name'"),
        ("name =", "Missing value of 'name'"),
        ("= a", "Missing key before '= a'"),
        ("", "is empty"),
        ("name = a and and count = 5", "between two 'and'"),
        ("name = \"\"", "is empty"),
        ("name = a and name = a", "Duplicate key value pair: name = a"),
        ("dest = a and dest = a", "Duplicate key value pair: dest = a"),
        ("name = a and name = b", "Multiple values to key: name"),
        ("name = a and title = b", "Multiple values to key: name"),
        ("name = a count = 5", "Missing 'and' before 'count ='"),
        ("count = five", "expected integer"),
        ("log = yes", "true|false"),
        ("time = 30 secnds", "did you mean the unit 'seconds'"),
        ("volume = 10 XB", "expected N[KB|MB|GB|TB]"),
        ("volume = 99999999999TB", "N[KB|MB|GB|TB]"),
        ("connection = localhost", "host:port"),
        ("connection = localhost:99999", "host:port"),
        ("repeat = 0 hz", "N hz"),
        ("sort = (a)", "column"),
        ("format = jsn", "did you mean 'json'"),
        ("topic = a", "not a list in parentheses"),
        ("folder = /no/such/directory/here", "is not a directory"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

#[test]
fn required_keys_and_free_keys() {
    let declaration = Declaration::new("try", "Tries.").required("dbms", OptionKind::Text, "").any_option();
    let words = lex("table = t and other key = 1 and list = (a = b)").unwrap();
    let error = parse(&node(), &declaration, &words).unwrap_err();
    assert_eq!((error.status, error.message.contains("Missing 'dbms'")), (Status::COMMAND_STRUCTURE, true));
    let options = parse(&node(), &declaration, &lex("dbms = d and other key = 1 and list = (a = b)").unwrap()).unwrap();
    assert_eq!(options.text("other key").as_deref(), Some("1"));
    assert_eq!(options.text("list").as_deref(), Some("(a = b)"));
}

#[test]
fn a_directory_gets_its_separator() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    assert_eq!(read(&format!("folder = {path}")).unwrap().text("folder"), Some(format!("{path}/")));
}

proptest::proptest! {
    #[test]
    fn no_list_panics(text in "[a-z=()!$\", 0-9]{0,40}( and [a-z=()!$\", 0-9]{0,20}){0,3}") {
        if let Ok(words) = lex(&text) {
            drop(parse(&node(), &declaration(), &words));
            drop(parse_any(&node(), &words));
        }
    }

    #[test]
    fn texts_come_back(value in "[a-zA-Z0-9_./:-]{1,20}", quoted in "[^\"\r]{1,20}") {
        proptest::prop_assume!(!value.starts_with("->") && value != "and");
        let quoted = quoted.trim();
        proptest::prop_assume!(!quoted.is_empty() && !quoted.starts_with(['!', '$', '\\']));
        let options = read(&format!("name = {value} and node name = \"{quoted}\"")).unwrap();
        proptest::prop_assert_eq!(options.text("name"), Some(value));
        proptest::prop_assert_eq!(options.text("node name"), Some(quoted.to_owned()));
    }
}
