//! The documented forms of `where`, `join`, `merge` and `bring`.

use anylog_core::Node;
use serde_json::json;

use super::*;

fn snapshot() -> Snapshot {
    let policies = [
        json!({"cluster": {"id": "c1", "name": "One", "company": "Smart City",
            "table": [{"dbms": "d", "name": "t1"}, {"dbms": "d", "name": "t2"}]}}),
        json!({"cluster": {"id": "c2", "name": "two", "company": "other", "status": "*"}}),
        json!({"operator": {"id": "o1", "name": "op1", "cluster": "c1", "ip": "10.0.0.1", "port": 32148, "main": true,
            "country": "US", "loc": "37.4, -122.1", "tags": ["Red", "blue"], "load": 0.5, "path": "site/a/b/"}}),
        json!({"operator": {"id": "o2", "name": "op2", "cluster": "c2", "ip": "10.0.0.2", "port": 32149,
            "country": "DE", "info": {"os": "linux"}}}),
        json!({"query": {"id": "q1", "name": "q", "ip": "10.0.0.3", "port": 32348}}),
        json!({"uns": {"id": "u1", "name": "site", "namespace": "site/"}}),
        json!({"uns": {"id": "u2", "name": "line", "namespace": "site/line", "parent": "u1"}}),
    ];
    Snapshot::new(policies.iter().map(|value| Arc::new(Policy::from_value(value.clone()).unwrap())).collect())
}

fn node() -> Arc<Node> {
    let node = Node::builder().build();
    node.dictionary.set("company", "smart city");
    node.dictionary.set("port", "32148");
    node.dictionary.set("type", "operator");
    node.dictionary.set("two", "(operator, query)");
    node
}

fn ids(query: &str) -> Vec<String> {
    let query = Query::parse(query, &node()).unwrap_or_else(|error| panic!("{query}: {error}"));
    let found = query.matches(&snapshot(), Look::Overlaid, None).unwrap();
    found.iter().map(|policy| policy.id().to_owned()).collect()
}

async fn text(query: &str) -> String {
    let query = Query::parse(query, &node()).unwrap_or_else(|error| panic!("{query}: {error}"));
    let reply = query.run(&snapshot(), Look::Overlaid, &OwnAddresses::default()).unwrap();
    reply.into_text().await.unwrap()
}

#[test]
fn types_and_filters_select_policies() {
    for (query, wanted) in [
        ("*", vec!["c1", "c2", "o1", "o2", "q1", "u1", "u2"]),
        ("operator", vec!["o1", "o2"]),
        ("(operator, query,)", vec!["o1", "o2", "q1"]),
        ("!type", vec!["o1", "o2"]),
        ("!two", vec!["o1", "o2", "q1"]),
        ("nothing", vec![]),
        ("root policies", vec!["u1"]),
        ("root policies include uns", vec!["u1"]),
        ("root policies exclude uns", vec![]),
        // pairs
        ("cluster where company = Smart City", vec!["c1"]),
        ("cluster where company = \"Smart City\" and name = one", vec!["c1"]),
        ("cluster where company=!company", vec!["c1"]),
        ("operator where port = !port", vec!["o1"]),
        ("operator where port=!port.int and", vec!["o1"]),
        ("operator where port = 32149", vec!["o2"]),
        ("operator where load = 0.50", vec!["o1"]),
        ("operator where main = true", vec!["o1"]),
        ("operator where tags = red", vec!["o1"]),
        ("operator where tags with blue", vec!["o1"]),
        ("operator where tags with [\"green\", \"BLUE\"]", vec!["o1"]),
        ("operator where loc with 37.4", vec!["o1"]),
        ("cluster where status = anything", vec!["c2"]),
        ("cluster where table[name] = t2", vec!["c1"]),
        ("cluster where [table][name] = t3", vec![]),
        ("operator where info[os] = Linux", vec!["o2"]),
        ("* where [id] = \"u2\"", vec!["u2"]),
        ("* where name = 'op1'", vec!["o1"]),
        ("operator where missing = x", vec![]),
        ("operator {\"port\": !port.int}", vec!["o1"]),
        ("operator where {'name': 'OP2'}", vec!["o2"]),
        // conditions
        ("operator where [country] contains u", vec!["o1"]),
        ("operator where [country] == us or [name] == op2", vec!["o1", "o2"]),
        ("operator where [port] > 32148", vec!["o2"]),
        ("operator where [operator][name] startwith op", vec!["o1", "o2"]),
        ("operator where not [loc]", vec!["o2"]),
        ("operator where [main]", vec!["o1"]),
        ("operator where ([country] == US or [country] == DE) and [port] < 32149", vec!["o1"]),
        ("operator where [load] >= 0.5", vec!["o1"]),
        ("operator where [path] childfrom \"site/a/\"", vec![]),
        ("uns where [namespace] childfrom \"site/\"", vec!["u2"]),
    ] {
        assert_eq!(ids(query), wanted, "{query}");
    }
}

#[tokio::test]
async fn results_are_brought_in_the_documented_layouts() {
    for (query, wanted) in [
        ("cluster where name=one and company=!company bring.first [cluster][id]", "c1"),
        ("operator bring [operator][id] separator = ,", "o1,o2"),
        ("operator where name = op1 bring [operator][ip] : [operator][port]", "10.0.0.1:32148"),
        ("(operator, query) bring.ip_port", "10.0.0.1:32148,10.0.0.2:32149,10.0.0.3:32348"),
        ("operator bring.count", "2"),
        ("nothing bring.ip_port", ""),
        ("nothing", ""),
        (
            "* where [id] = \"u1\" bring.children",
            "[{\"uns\": {\"id\": \"u2\", \"name\": \"line\", \"namespace\": \"site/line\", \"parent\": \"u1\"}}]",
        ),
        ("uns where id = u2 bring.parents [*][id]", "u1"),
        ("uns where id = u1", "[{\"uns\": {\"id\": \"u1\", \"name\": \"site\", \"namespace\": \"site/\"}}]"),
    ] {
        assert_eq!(text(query).await, wanted, "{query}");
    }
}

#[tokio::test]
async fn join_and_merge_put_policies_together() {
    let joined = text("query join (blockchain get uns where id = u1) bring [query][id] - [uns][id]").await;
    assert_eq!(joined, "q1-u1");
    let joined = text("operator join (blockchain get cluster where id = [operator][cluster]) bring [operator][id] = [cluster][name] separator = ;").await;
    assert!(joined.contains("o1") && joined.contains("One") && joined.contains("two"), "{joined}");
    // A policy without partner stays as it is.
    let merged =
        text("operator merge (blockchain get cluster where id = [operator][cluster] and company = other)").await;
    let merged: Value = serde_json::from_str(&merged).unwrap();
    assert!(merged[0]["operator"].get("company").is_none());
    assert_eq!(merged[1]["operator"]["company"], "other");
    assert_eq!(merged[1]["operator"]["name"], "op2");
}

#[test]
fn what_is_no_query_is_said_so() {
    for query in [
        "",
        "operator when x = y",
        "operator where",
        "operator where port = !unset",
        "!unset",
        "operator bring",
        "operator join x",
        "operator where [a] ~ b",
    ] {
        let error = Query::parse(query, &node()).unwrap_err();
        assert!(!error.message.is_empty(), "{query}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}", filter in "[\\[\\]()={}a-z!'\"<>,. ]{0,40}") {
        let node = node();
        for text in [text.clone(), format!("operator where {filter}"), format!("* where {text} bring {filter}")] {
            if let Ok(query) = Query::parse(&text, &node) {
                drop(query.run(&snapshot(), Look::Overlaid, &OwnAddresses::default()));
            }
        }
    }
}

proptest::proptest! {
    /// What an index finds is what looking at all policies finds, whatever the values are.
    #[test]
    fn an_index_finds_what_looking_finds(
        values in proptest::collection::vec(
            proptest::sample::select(vec!["\"a\"", "\"A\"", "\"*\"", "1", "1.0", "\"1\"", "true", "\"true\"", "[\"a\", 2]", "[\"*\"]", "null", "{}", "-0.0", "0", "9007199254740993"]),
            70..90,
        ),
        wanted in proptest::sample::select(vec!["a", "1", "1.0", "true", "2", "*", "0", "-0", "9007199254740993", "b"]),
        all in proptest::bool::ANY,
    ) {
        let node = anylog_core::Node::builder().build();
        let policy = |(number, value): (usize, &&str)| {
            let kind = if number % 7 == 0 { "other" } else { "site" };
            let text = format!(r#"{{"{kind}": {{"id": "p{number}", "v": {value}}}}}"#);
            std::sync::Arc::new(crate::Policy::from_json_text(&text).unwrap())
        };
        let snapshot = crate::snapshot::Snapshot::new(values.iter().enumerate().map(policy).collect());
        let types = if all { "*" } else { "site" };
        let query = Query::parse(&format!(" {types} where v = {wanted}"), &node).unwrap();
        let ids = |look| {
            let found = query.matches(&snapshot, look, None).unwrap();
            found.iter().map(|policy| policy.id().to_owned()).collect::<Vec<_>>()
        };
        // Stored policies are looked through one by one.
        proptest::prop_assert_eq!(ids(Look::Overlaid), ids(Look::Stored));
    }
}
