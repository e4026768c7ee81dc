use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::time::ManualClock;

fn node() -> Arc<Node> {
    let clock = ManualClock::new("2026-03-01T12:30:45.5Z".parse().unwrap());
    let node = Node::builder().clock(clock).build();
    for (name, value) in [
        ("version", "AnyLog Version: 1.2"),
        ("env_ledger", "10.0.0.1:32048"),
        ("opcua_name", " Plant A-1 "),
        ("opcua_url", "opc.tcp://host.x:4840/path"),
        ("errin", "3"),
        ("errout", "4"),
        ("ip", "10.0.0.7"),
        ("watch_dir", "/data/watch"),
        ("a", "2"),
        ("b", "0.5"),
        ("lines", "x\ny"),
    ] {
        node.dictionary.set(name, value);
    }
    node
}

#[test]
fn documented_expressions() {
    let node = node();
    let cases = [
        (r#"!version.split(" ")[0]"#, "AnyLog"),
        (r#"!env_ledger.split(":")[0]"#, "10.0.0.1"),
        (r#"!opcua_name.strip().replace(" ", "_").replace("-", "_") + "_tags.al""#, "Plant_A_1_tags.al"),
        (
            r#"!opcua_url.strip().split("//")[-1].replace(".", "_").replace(":","_") + "_tags.al""#,
            "host_x_4840/path_tags.al",
        ),
        ("int(!errin) + int(!errout)", "7"),
        ("'/a/b/p'.rsplit('/',1)[0] + '.out'", "/a/b.out"),
        ("!watch_dir.rsplit('/',1)[0] + '.out'", "/data.out"),
        ("!ip + ':4028'", "10.0.0.7:4028"),
        ("!a.int + !errin.int", "5"),
        ("!a.float + float(!b)", "2.5"),
        ("datetime.datetime.utcnow().strftime('%Y-%m-%d %H:%M:%S.%f')", "2026-03-01 12:30:45.500000"),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(&node, text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn the_language() {
    let node = node();
    let cases = [
        ("1 + 2 * 3 - -4", "11"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3.5"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** 10", "1024"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("1e16 * 10", "1e+17"),
        ("5 / 100000", "5e-05"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("9223372036854775807", "9223372036854775807"),
        ("'ab' * 2", "abab"),
        ("'abc'[1] + 'abc'[-1] + 'abcdef'[1:-1] + 'abc'[:1]", "bcbcdea"),
        ("len('äö') + len([1, 2,])", "4"),
        ("'x' in 'xyz' and 3 not in [1, 2]", "True"),
        ("1 < 2 <= 2", "True"),
        ("not 1 == 1", "False"),
        ("'' or 'default'", "default"),
        ("0 and !nobody", "0"),
        ("'yes' if !a.int > 1 else !nobody", "yes"),
        ("'a-b-c'.split('-')", "['a', 'b', 'c']"),
        ("'a  b c'.split()", "['a', 'b', 'c']"),
        ("'a b c'.rsplit(None, 1)", "['a b', 'c']"),
        ("'-'.join(['a', 'b'])", "a-b"),
        ("'xxaxx'.strip('x') + 'b '.rstrip() + '!'", "ab!"),
        ("'hello world'.title() + 'aBC'.capitalize() + 'a'.upper() + 'B'.lower()", "Hello WorldAbcAb"),
        ("'abcb'.find('b') + 'abcb'.rfind('b') + 'a'.find('z')", "3"),
        ("'abc'.startswith('ab') and 'abc'.endswith('c')", "True"),
        ("'-5'.zfill(4) + str('7'.isdigit())", "-005True"),
        ("'aaa'.replace('a', 'b', 2)", "bba"),
        ("round(2.5) + round(3.567, 1)", "5.6"),
        ("max(1, 2.5) + min([3, 4]) + sum([1, 2]) + abs(-1)", "9.5"),
        ("sorted(['b', 'a'])[0] + str(int(' 12 ')) + str(int(3.9))", "a123"),
        ("!lines", "x y"),
        ("(datetime.datetime.now() - datetime.timedelta(days=1)).strftime('%d/%m')", "28/02"),
        ("datetime.datetime.utcnow().year + datetime.now().minute", "2056"),
        (
            "(datetime.datetime.now() + datetime.timedelta(hours = 1) - datetime.datetime.now()).total_seconds()",
            "3600.0",
        ),
        ("str(True) + str(None) # a comment", "TrueNone"),
        ("\"it's\" + ' a \\'b\\''", "it's a 'b'"),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(&node, text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn mistakes_are_named() {
    let node = node();
    let cases = [
        ("!nobody + 'x'", "'!nobody'"),
        ("'x' + 1", "str()"),
        ("'x'.splt(' ')", "did you mean 'split'"),
        ("lenn('x')", "did you mean 'len'"),
        ("hello", "Unknown name 'hello'"),
        ("'a'[5]", "no element 5"),
        ("1 / 0", "Division by zero"),
        ("1 // 0", "Division by zero"),
        ("int('x')", "not a whole number"),
        ("(1 + 2", "Missing ')'"),
        ("'abc", "Missing closing '"),
        ("1 +", "ends too early"),
        ("1 2", "'2' was not expected"),
        ("9223372036854775807 + 1", "too large"),
        ("'x' * 999999999", "too large"),
        ("'_tags'.al", "no attribute 'al'"),
        ("open('/etc/passwd')", "Unknown function 'open'"),
        ("__import__('os')", "Unknown function"),
        ("datetime.datetime.now().strftime('%')", "not a time format"),
        ("datetime.datetime.now() + datetime.timedelta(days=99999999)", "out of range"),
    ];
    for (text, expected) in cases {
        let error = CommandError::from(evaluate(&node, text).unwrap_err());
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(evaluate(&node, &deep).is_err());
    assert!(evaluate(&node, &"2**".repeat(5000)).is_err());
    assert!(evaluate(&node, &format!("{}1", "-".repeat(10_000))).is_ok());
    assert!(evaluate(&node, &format!("{}1", "not ".repeat(4000))).is_ok());
    assert!(evaluate(&node, &"1+".repeat(9000)).is_err());
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,60}") {
        drop(evaluate(&node(), &text));
    }

    #[test]
    fn plausible_text_never_panics(
        text in "(!a|!b\\.float|!ip|'aé'|\"b\"|[0-9]{1,19}|1e308|-| |\\+|\\*|\\*\\*|//|%|\\(|\\)|\\[|\\]|:|,|\\.split\\(|\\.replace\\(|\\.find\\(|\\.zfill\\(|int\\(|str\\(|round\\(|len\\(| in | and | not | if | else |==|<|datetime\\.now\\(\\)|timedelta\\(){0,14}"
    ) {
        drop(evaluate(&node(), &text));
    }

    #[test]
    fn sums_of_integers(a in any::<i32>(), b in any::<i32>(), c in 1_i64..1000) {
        let (a, b) = (i64::from(a), i64::from(b));
        let node = node();
        prop_assert_eq!(evaluate(&node, &format!("{a} + {b} - {c}")).unwrap(), (a + b - c).to_string());
        prop_assert_eq!(evaluate(&node, &format!("({a} // {c}) * {c} + {a} % {c}")).unwrap(), a.to_string());
    }

    #[test]
    fn any_parameter_comes_through(value in "[^\\r\\n\\x00]{1,40}") {
        let node = node();
        node.dictionary.set("v", value.clone());
        prop_assert_eq!(evaluate(&node, "'<' + !v + '>'").unwrap(), format!("<{value}>"));
    }
}
