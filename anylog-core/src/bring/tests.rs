use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Bring, Items};
use crate::{Node, Reply, Status};

fn policies() -> Vec<Value> {
    vec![
        json!({"operator": {"name": "b", "ip": "10.0.0.2", "port": 2048, "date": "2026-01-02T00:00:00Z", "path": "a/b/c"}}),
        json!({"operator": {"name": "a", "ip": "10.0.0.1", "port": 32048, "date": "2026-01-01T00:00:00Z", "on": true}}),
        json!({"publisher": {"name": "p", "ip": "10.0.0.1", "date": "2026-01-03T00:00:00Z"}}),
    ]
}

fn answer(text: &str) -> String {
    let policies = policies();
    let documents: Vec<&Value> = policies.iter().collect();
    show(Bring::parse(text, None).unwrap().evaluate(&documents).unwrap())
}

fn show(reply: Reply) -> String {
    match reply {
        Reply::Empty => "EMPTY".to_owned(),
        Reply::Text(text) => text,
        Reply::Json(value) => crate::reply::json::text(&value),
        Reply::Table(table) => table.to_string(),
        Reply::Stream { .. } => unreachable!("a bring does not stream"),
    }
}

#[test]
fn texts() {
    let cases = [
        ("bring [operator][name]", "ba"),
        ("bring [*][name]", "bap"),
        ("bring [name]", "bap"),
        ("bring ['operator'][\"name\"]", "ba"),
        ("bring [operator][name] separator = ,", "b,a"),
        ("bring [operator][name] separator=\\n", "b\na"),
        ("bring [operator][name] and separator = \"; \"", "b; a"),
        ("bring [operator][ip]:[operator][port] separator = ,", "10.0.0.2:2048,10.0.0.1:32048"),
        ("bring [operator][ip] \":\" [operator][port] separator = ,", "10.0.0.2:2048,10.0.0.1:32048"),
        ("bring [operator][ip] : [operator][port] separator = ,", "10.0.0.2:2048,10.0.0.1:32048"),
        ("bring [operator][name]:[publisher][name]", "bap"),
        ("bring [] separator = ,", "operator,operator,publisher"),
        ("bring.unique [] separator = ,", "operator,publisher"),
        ("bring.unique [*][ip] separator = ,", "10.0.0.2,10.0.0.1"),
        ("bring.sort [*][name]", "abp"),
        ("bring.first [operator][name]", "a"),
        ("bring.first [*][name]", "a"),
        ("bring.recent [operator][name]", "b"),
        ("bring.last [*][name]", "p"),
        ("bring.count", "3"),
        ("bring.count [operator][name]", "2"),
        ("bring.count.unique [*][ip]", "2"),
        ("bring.json.count", "[{\"count\": 3}]"),
        ("bring.min [*][port]", "2048"),
        ("bring.max [*][port]", "32048"),
        ("bring.max [*][name]", "p"),
        ("bring [operator][nothing]", "EMPTY"),
        ("bring [*][on]", "true"),
        ("bring [operator][path(rfind(/))]", "c"),
        ("bring [operator][path(find(/))]", "a"),
        ("bring [operator][ip(prefix(2))] separator = -", "10-10"),
        ("bring [operator][ip(suffix(1))] separator = -", "2-1"),
    ];
    for (text, expected) in cases {
        assert_eq!(answer(text), expected, "{text}");
    }
}

#[test]
fn json_answers() {
    let cases = [
        (
            "bring.json [*][name] [*][port]",
            r#"[{"name": "b", "port": 2048}, {"name": "a", "port": 32048}, {"name": "p"}]"#,
        ),
        (
            "bring.null.json [*][name] [*][port]",
            r#"[{"name": "b", "port": 2048}, {"name": "a", "port": 32048}, {"name": "p", "port": ""}]"#,
        ),
        (
            "bring.json [] [publisher][name]",
            r#"[{"policy": "operator"}, {"policy": "operator"}, {"policy": "publisher", "name": "p"}]"#,
        ),
        ("bring.list [*][name]", r#"["b", "a", "p"]"#),
        ("bring.list [*][port]", "[2048, 32048]"),
        ("bring.list.unique [*][ip]", r#"["10.0.0.2", "10.0.0.1"]"#),
        ("bring.recent", r#"[{"publisher": {"name": "p", "ip": "10.0.0.1", "date": "2026-01-03T00:00:00Z"}}]"#),
    ];
    for (text, expected) in cases {
        assert_eq!(answer(text), expected, "{text}");
    }
}

#[test]
fn tables() {
    assert_eq!(
        answer("bring.table.sort(1,0) [*][name] [*][ip] [*][port]"),
        "\r\n\
         Name Ip       Port  \r\n\
         ----|--------|-----|\r\n\
         a   |10.0.0.1|32048|\r\n\
         p   |10.0.0.1|     |\r\n\
         b   |10.0.0.2| 2048|\r\n"
    );
    // The documented sample: the width of a column is that of its longest cell.
    let policies = [
        json!({"cluster": {"name": "cluster-op1", "id": "240e137066f61c50b55fa0de2fe2743d"}}),
        json!({"table": {"name": "t2", "id": "76d5a2f68934c84c5bbdc36e52179519"}}),
    ];
    let documents: Vec<&Value> = policies.iter().collect();
    assert_eq!(
        show(Bring::parse("bring.table [*][name] [*][id]", None).unwrap().evaluate(&documents).unwrap()),
        "\r\n\
         Name        Id                               \r\n\
         -----------|--------------------------------|\r\n\
         cluster-op1|240e137066f61c50b55fa0de2fe2743d|\r\n\
         t2         |76d5a2f68934c84c5bbdc36e52179519|\r\n"
    );
}

#[test]
fn nothing_gives_nothing() {
    for text in ["bring [a]", "bring.json [a]", "bring.table [a]", "bring.first", "bring.min [a]", "bring.list [a]"] {
        assert!(Bring::parse(text, None).unwrap().evaluate(&[]).unwrap().is_empty(), "{text}");
    }
    assert_eq!(show(Bring::parse("bring.count", None).unwrap().evaluate(&[]).unwrap()), "0");
}

#[test]
fn mapping_values() {
    let message = json!({
        "device": "d1", "on": true, "gone": null, "metadata": {"company": "Co", "site": 7},
        "readings": [{"v": 1.5, "t": "Float"}, {"t": "Int"}, {"v": 9_007_199_254_740_993_i64, "t": "Int"}],
        "list": ["x", "y"], "Free Space": 3, "a]b": 4
    });
    let cases = [
        ("bring [device]", json!(["d1"])),
        ("[on]", json!([true])),
        ("[gone]", json!([null])),
        ("[missing]", json!([])),
        ("bring [readings][][v]", json!([1.5, null, 9_007_199_254_740_993_i64])),
        ("bring [readings][][t]", json!(["Float", "Int", "Int"])),
        ("[readings][2][v]", json!([9_007_199_254_740_993_i64])),
        ("[readings][-1][t]", json!(["Int"])),
        ("[list]", json!([["x", "y"]])),
        ("[list][]", json!(["x", "y"])),
        ("[metadata][company] _ [metadata][site]", json!(["Co_7"])),
        ("[device] - [readings][][t]", json!(["d1-Float", "d1-Int", "d1-Int"])),
        ("[missing]:[device]", json!(["d1"])),
        ("[gone]:[device]", json!(["d1"])),
        ("[gone]:[missing]", json!([null])),
        ("[device]:[on]", json!(["d1:true"])),
        ("[Free Space]", json!([3])),
        ("['a]b']", json!([4])),
    ];
    for (text, expected) in cases {
        let items = Items::parse(text).unwrap();
        assert_eq!(Value::Array(items.values(&message)), expected, "{text}");
    }
    assert!(Items::parse("[readings][][v]").unwrap().is_list());
    assert!(!Items::parse("[list]").unwrap().is_list());
    assert_eq!(Items::parse("[gone]").unwrap().text(&message), None);
    assert_eq!(Items::parse("[device] [gone]").unwrap().text(&message).as_deref(), Some("d1"));
}

#[test]
fn references_are_resolved() {
    let node = Node::builder().build();
    node.dictionary.set("type", "operator");
    node.dictionary.set("sep", " / ");
    let policies = policies();
    let documents: Vec<&Value> = policies.iter().collect();
    let bring = Bring::parse("bring [!type][name] separator = !sep", Some(&node)).unwrap();
    assert_eq!(show(bring.evaluate(&documents).unwrap()), "b / a");
    let error = Bring::parse("bring [!nobody][name]", Some(&node)).unwrap_err();
    assert_eq!(error.status, Status::COMMAND_STRUCTURE);
    assert!(error.message.contains("!nobody"));
}

#[test]
fn mistakes_are_named() {
    // OPS-1
    let cases = [
        ("bring.frist [a]", "did you mean 'bring.first'"),
        ("bring", "Missing Info after 'bring'"),
        ("bring [a", "Missing ']'"),
        ("bring \"a", "Missing closing"),
        ("bring.sort(x).table [a]", "not a column number"),
        ("bring.min [a] [b]", "exactly one"),
        ("bring [a(prefx(3))]", "did you mean 'prefix'"),
        ("bring [a] separator =", "Missing text"),
        ("bring.first(1) [a]", "takes no argument"),
        ("bringing [a]", "Unknown word"),
        ("bring [a] and python = { x }", "'python ='"),
    ];
    for (text, expected) in cases {
        let error = Bring::parse(text, None).unwrap_err();
        assert_eq!(error.status, Status::COMMAND_STRUCTURE, "{text}");
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let policies = policies();
    let documents: Vec<&Value> = policies.iter().collect();
    let error = Bring::parse("bring.table.sort(4) [*][name]", None).unwrap().evaluate(&documents).unwrap_err();
    assert!(error.message.contains("column 4"));
    assert!(Items::parse("bring.first [a]").is_err());
    assert!(Items::parse("constant").is_err());
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-c/]{0,4}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}") {
        drop(Bring::parse(&text, None));
        drop(Bring::parse(&format!("bring{text}"), None));
        drop(Items::parse(&text));
    }

    #[test]
    fn evaluation_never_panics(
        text in "(\\.(first|recent|unique|json|list|table|sort|sort\\(1,0\\)|null|count|min|max)){0,4} ((\\[[abc0*-]{0,2}\\]){1,3}:?(\"x\")? ?){0,3}",
        documents in prop::collection::vec(document(), 0..4),
    ) {
        if let Ok(bring) = Bring::parse(&format!("bring{text}"), None) {
            let documents: Vec<&Value> = documents.iter().collect();
            drop(bring.evaluate(&documents));
            for document in &documents {
                drop(bring.items().values(document));
            }
        }
    }

    #[test]
    fn every_key_can_be_named(key in "[^'\\]\\[()\"!$]{1,12}", value in any::<i64>()) {
        prop_assume!(key.trim() == key && key != "*" && key.parse::<i64>().is_err());
        let document = json!({"x": {key.clone(): value}, "y": 1});
        let items = Items::parse(&format!("[x]['{key}']")).unwrap();
        prop_assert_eq!(items.values(&document), vec![Value::from(value)]);
    }
}

#[test]
fn a_table_wraps_at_the_width_of_the_node() {
    let node = Node::builder().build();
    node.set_output_width(40);
    let document = json!({"p": {"text": "x".repeat(50)}});
    let reply = Bring::parse("bring.table [p][text]", Some(&node)).unwrap().evaluate(&[&document]).unwrap();
    assert_eq!(show(reply).lines().nth(2), Some(format!("{}|", "-".repeat(40)).as_str()));
}
