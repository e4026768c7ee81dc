//! Script files.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::language::script::Script;
use anylog_core::{Caller, Session, Status};

use crate::support::{Bench, Paper, remote};

#[tokio::test]
async fn scripts_jump_call_and_return() {
    for (script, printed) in [
        ("goto b\n:a:\nsay a\nend script\n:b:\nsay b\ngoto a", &["b", "a"][..]),
        ("call s\nsay back\nend script\n:s:\nsay sub\nreturn\nsay never", &["sub", "back"]),
        (
            "call a\nsay end\nend script\n:a:\nsay a1\ncall b\nsay a2\nreturn\n:b:\nsay b\nreturn",
            &["a1", "b", "a2", "end"],
        ),
        // with an empty stack 'return' ends the script
        ("say x\nreturn\nsay never", &["x"]),
        ("n = 0\n:loop:\nn = incr !n\nsay !n\nif !n.int < 3 then goto loop\nsay done", &["1", "2", "3", "done"]),
        ("if T then call s\nelse say never\nsay on\nend script\n:s:\nsay s\nreturn", &["s", "on"]),
        ("if !unset then say never\nelse goto out\nsay never\n:out: trailing text\nsay out", &["out"]),
        ("if T then\n# comment\n\n:label:\ndo end script\nsay never", &[]),
        ("x = 1 & say !x & say two", &["1", "two"]),
        ("tell answer\nx = tell answer", &["answer\n"]),
    ] {
        let mut bench = Bench::new();
        let (result, lines) = bench.process(script).await;
        result.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!(lines, printed, "{script}");
    }
}

#[tokio::test]
async fn errors_follow_the_policy_of_the_script() {
    for (script, status, printed) in [
        // no policy: 56 for all but syntax errors
        ("fail 40\nsay never", Some(56), &[][..]),
        ("nonsense\nsay never", Some(56), &[]),
        ("fail 2\nsay never", Some(2), &[]),
        ("process /no/such/script.al", Some(112), &[]),
        ("on error ignore\nfail 40\nfail 2\nprocess /no/such.al\nsay on", None, &["on"]),
        ("on error end script\nfail 40\nsay never", Some(40), &[]),
        ("on error goto failed\nfail 40\nsay never\n:failed:\nsay failed", None, &["failed"]),
        // goto and call are not for syntax errors
        ("on error goto failed\nfail 2\nsay never\n:failed:\nsay failed", Some(2), &[]),
        (
            "on error call failed\nfail 40\nsay on\nfail 40\nsay end\nend script\n:failed:\nsay failed\nreturn",
            None,
            &["failed", "on", "failed", "end"],
        ),
        // an error behind the label that the script itself went to
        ("on error goto out\ngoto out\n:out:\nsay out\nfail 40\nsay never", Some(40), &["out"]),
        (
            "on error call sub\ncall sub\nfail 40\nsay end\nend script\n:sub:\nsay sub\nreturn",
            None,
            &["sub", "sub", "end"],
        ),
        ("goto nowhere", Some(2), &[]),
        ("on error ignore\ngoto nowhere\nsay never", Some(2), &[]),
        ("on error goto nowhere\nfail 40", Some(2), &[]),
        ("on error sometimes\nsay never", Some(2), &[]),
        ("if T then on error ignore\nfail 40\nsay on", None, &["on"]),
    ] {
        let mut bench = Bench::new();
        let (result, mut lines) = bench.process(script).await;
        lines.retain(|line| !line.starts_with("Script terminated:"));
        assert_eq!(result.as_ref().err().map(|error| error.status.0), status, "{script}: {result:?}");
        assert_eq!(lines, printed, "{script}");
    }
}

#[tokio::test]
async fn errors_name_script_line_command_and_cause() {
    let mut bench = Bench::new();
    let inner = bench.script("inner.al", "# first\nsay in\nprob a\n");
    let (result, printed) = bench.process(&format!("on error end script\n\nprocess {inner}")).await;
    let error = result.unwrap_err();
    for part in ["main.al", "line 3", "inner.al", "Unrecognized Command: 'prob a'", "did you mean 'probe'"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(
        printed[1],
        format!(
            "Script terminated: Error: '[0003] prob a --> Error in script without 'on error' instruction' in file {inner}"
        )
    );
    let (result, _) = bench.process("goto retry\n:retri:\n").await;
    assert!(result.unwrap_err().to_string().contains("did you mean 'retri'"));
    let (result, _) = bench.process("goto retry\n:retry\n").await;
    assert!(result.unwrap_err().to_string().contains("line 2 lacks its second colon"));
    let (result, _) = bench.process("say a\n<x = {\n").await;
    let error = result.unwrap_err();
    assert!(error.message.contains("line 2") && error.status == Status::MISSING_BRACKETS, "{error}");
}

#[tokio::test]
async fn scripts_call_scripts() {
    let mut bench = Bench::new();
    let inner = bench.script("inner.al", "if !unset then\nsay !from\nend script\nsay never");
    bench.run("dir = ").await.unwrap_err();
    let dir = bench.home.path().display().to_string();
    bench.node.dictionary.set("dir", &*dir);
    let (result, printed) = bench
        .process("if T then from = outer\ndo process !dir/inner.al\ndo say flag\nprocess !dir + /inner.al\nprocess \"!dir/inner.al\"")
        .await;
    result.unwrap();
    assert_eq!(printed, ["outer", "flag", "outer", "outer"].map(str::to_owned), "{inner}");
    assert_eq!(bench.session.if_flag, None, "a script leaves the flag as it was");
    assert_eq!(bench.run("process !unset/x.al").await.unwrap_err().status, Status::NO_SCRIPT);
    assert_eq!(bench.run(&format!("process {dir}")).await.unwrap_err().status, Status::NO_SCRIPT);
    assert_eq!(bench.run("process").await.unwrap_err().status, Status::COMMAND_STRUCTURE);
}

#[tokio::test]
async fn exit_scripts_ends_the_callers_too() {
    let mut bench = Bench::new();
    let inner = bench.script("inner.al", "say in\nexit scripts\nsay never");
    let (result, printed) = bench.process(&format!("say out\nprocess {inner}\nsay never")).await;
    result.unwrap();
    assert_eq!(printed, ["out", "in"]);
    // later scripts are not touched
    let (result, printed) = bench.process("say again").await;
    result.unwrap();
    assert_eq!(printed, ["again"]);
}

#[tokio::test]
async fn arguments_fill_the_variables() {
    let mut bench = Bench::new();
    let path = bench.script("args.al", "say never\nvariables (first, second)\nsay !first !second");
    bench.run("v = two").await.unwrap();
    bench.run(&format!("process {path} \"o n e\" !v")).await.unwrap();
    assert_eq!(bench.paper.take(), ["o n e two"]);
    for line in [format!("process {path}"), format!("process {path} a b c")] {
        assert_eq!(bench.run(&line).await.unwrap_err().status, Status::ARGUMENT_MISMATCH);
    }
    let plain = bench.script("plain.al", "say x");
    assert_eq!(bench.run(&format!("process {plain} a")).await.unwrap_err().status, Status::ARGUMENT_MISMATCH);
    bench.session.run_script_with(std::path::Path::new(&path), &["a".into(), "b".into()]).await.unwrap();
    assert_eq!(bench.paper.take(), ["a b"]);
}

#[tokio::test]
async fn a_script_that_processes_itself_ends_with_an_error() {
    let mut bench = Bench::new();
    bench.node.dictionary.set("self", bench.home.path().join("main.al").display().to_string());
    let (result, _) = bench.process("if T then process !self").await;
    let error = result.unwrap_err();
    assert!(error.message.contains("deeper than"), "{error}");
    let json = bench.script("self.json", r#"{"config": [{"commands": ["process !self"]}]}"#);
    bench.node.dictionary.set("self", json.clone());
    bench.run(&format!("process {json}")).await.unwrap();
    assert!(bench.paper.take().iter().any(|line| line.contains("deeper than")));
}

#[tokio::test]
async fn json_scripts_set_and_run() {
    let mut bench = Bench::new();
    let path = bench.script(
        "config.json",
        r#"{"config": [
            {"name": "a", "details": "d", "setting": {"dbms": "test", "port": 7850}, "commands": ["say !dbms !port", "fail 40", "tell x"]},
            {"name": "b", "commands": ["say end"]}]}"#,
    );
    bench.run(&format!("process {path}")).await.unwrap();
    assert_eq!(bench.paper.take(), ["test 7850", "fail 40 --> failed with 40", "x\n", "end"]);
    let path = bench.script("bad.json", "{}");
    assert_eq!(bench.run(&format!("process {path}")).await.unwrap_err().status, Status::JSON_STRUCTURE);
}

#[tokio::test]
async fn lists_of_commands_end_with_the_first_failure() {
    let mut bench = Bench::new();
    let commands = ["'say one'", "if T then say two", "fail 40", "say never"].map(str::to_owned);
    let error = bench.session.run_commands("policy abc", &commands).await.unwrap_err();
    assert!(error.message.contains("policy abc") && error.message.contains("line 3"), "{error}");
    assert_eq!(bench.paper.take()[..2], ["one", "two"]);
}

#[tokio::test]
async fn debugging_shows_each_command() {
    let mut bench = Bench::new();
    let (result, printed) = bench.process("set debug on\nsay x\non error ignore\nfail 40\nset debug off\nsay y").await;
    result.unwrap();
    assert_eq!(
        printed,
        [
            "[main] [0001] set debug on --> Success",
            "x",
            "[main] [0002] say x --> Success",
            "[main] [0003] on error ignore --> Success",
            "[main] [0004] fail 40 --> Error in command parameters",
            "y"
        ]
    );
    assert_eq!(bench.run("set debug interactive").await.unwrap_err().status, Status::DEBUG_REFUSED);
    assert!(bench.run("next").await.unwrap_err().to_string().contains("set debug interactive <thread>"));
}

/// Waits, with a deadline, until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("still waiting until {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_run_beside_and_can_be_stepped_and_ended() {
    let mut bench = Bench::new();
    let path = bench.script("watch.al", "steps = 1\nsteps = 2\nsteps = 3\nwait 1000\nsteps = never");
    bench.run("set debug interactive watch").await.unwrap();
    bench.run(&format!("thread {path}")).await.unwrap();
    let node = Arc::clone(&bench.node);
    until("the thread runs", || node.scripts.running().iter().any(|script| script.thread == "watch")).await;
    assert_eq!(bench.get("steps"), None);
    bench.run("next").await.unwrap();
    until("the first step ran", || node.dictionary.get("steps").as_deref() == Some("1")).await;
    bench.run("continue watch").await.unwrap();
    until("it waits", || node.scripts.running().iter().any(|script| script.command == "wait 1000" && script.line == 4))
        .await;
    assert_eq!(bench.get("steps").as_deref(), Some("3"));
    bench.run("exit scripts").await.unwrap();
    until("it ended", || node.scripts.running().is_empty()).await;
    assert_eq!(bench.get("steps").as_deref(), Some("3"));

    let slow = bench.script("slow.al", "wait 1000");
    for _ in 0..2 {
        bench.run(&format!("thread {slow}")).await.unwrap();
    }
    until("both run", || node.scripts.running().len() == 2).await;
    let mut threads: Vec<String> = node.scripts.running().into_iter().map(|script| script.thread).collect();
    threads.sort();
    assert_eq!(threads, ["slow", "slow-2"]);
    bench.run("exit scripts").await.unwrap();
    until("both ended", || node.scripts.running().is_empty()).await;

    let failing = bench.script("failing.al", "fail 40");
    bench.run(&format!("thread {failing}")).await.unwrap();
    until("the failure is noted", || node.errors.messages().iter().any(|message| message.thread == "failing")).await;
    assert_eq!(bench.run("thread /no/such.al").await.unwrap_err().status, Status::NO_SCRIPT);

    // a stopped thread ends before its next command
    bench.run("set debug interactive watch").await.unwrap();
    bench.run("steps = 0").await.unwrap();
    bench.run(&format!("thread {path}")).await.unwrap();
    until("the thread runs", || !node.scripts.running().is_empty()).await;
    bench.run("stop all").await.unwrap();
    until("it ended", || node.scripts.running().is_empty()).await;
    assert_eq!(bench.get("steps").as_deref(), Some("0"));
}

// A wait that begins when its script was ended already does not wait.
#[tokio::test]
async fn a_script_that_was_ended_does_not_begin_to_wait() {
    let mut bench = Bench::new();
    let path = bench.script("late.al", "exit scripts & wait 1000\nlate = 1");
    let command = format!("process {path}");
    let run = tokio::time::timeout(std::time::Duration::from_secs(100), bench.run(&command));
    run.await.expect("it ends").unwrap();
    assert_eq!(bench.get("late"), None);
}

#[tokio::test]
async fn scripts_have_the_rights_of_their_caller() {
    let bench = Bench::new();
    let script = Script::parse("policy", "on error ignore\nx = 1\nsecret\ny = tell 1").unwrap();
    let mut far = remote(&bench.node);
    far.run_parsed(&script, &[]).await.unwrap();
    assert_eq!((bench.get("x"), bench.get("y")), (None, None));
    // over the network a script lies in the work directories
    let address = "127.0.0.1:5000".parse().unwrap();
    let near = Caller::network(anylog_core::Surface::Rest, address, false);
    let mut near = Session::new(Arc::clone(&bench.node), near).with_console(Arc::new(Paper::default()));
    let path = bench.script("outside.al", "x = 1");
    assert_eq!(near.execute(&format!("process {path}")).await.unwrap_err().status, Status::UNAUTHORIZED);
    assert_eq!(near.execute("process ../outside.al").await.unwrap_err().status, Status::UNAUTHORIZED);
    bench.node.directories.create().unwrap();
    let inside = bench.node.directories.root().join("data/tmp/inside.al");
    std::fs::write(inside, "x = inside").unwrap();
    near.execute("process data/tmp/inside.al").await.unwrap();
    assert_eq!(bench.get("x").as_deref(), Some("inside"));
}

#[tokio::test]
async fn a_cancelled_command_leaves_the_session_as_it_was() {
    let mut bench = Bench::new();
    let path = bench.script("slow.al", "if T then wait 1000");
    for _ in 0..50 {
        let run = bench.session.execute(&path);
        drop(run);
        let line = format!("process {path}");
        let run = tokio::time::timeout(Duration::from_millis(2), bench.session.execute(&line));
        assert!(run.await.is_err());
    }
    assert!(bench.node.scripts.running().is_empty());
    bench.run("say on").await.unwrap();
    assert_eq!(bench.session.if_flag, None);
    assert!(bench.run("goto x").await.unwrap_err().message.contains("only in a script"));
}

#[tokio::test]
async fn errors_of_scripts_go_to_the_echo_queue() {
    let mut bench = Bench::new();
    bench.node.echo.set_enabled(true);
    let (result, printed) = bench.process("fail 40").await;
    result.unwrap_err();
    assert_eq!(printed, [""; 0]);
    assert!(bench.node.echo.messages()[0].text.starts_with("Error executing: [fail 40] Message: ["));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 100, ..Default::default() })]
    #[test]
    fn no_script_panics(text in "((if T then|do|else|goto a|call a|return|on error ignore|on error call a|:a:|:b|say x|fail 40|end script|<|>|\\{|\\}|#| |x = 1){1,3}\n){0,8}") {
        // jumps may loop for ever: the run ends after a while
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut bench = Bench::new();
        runtime.block_on(async {
            let run = bench.process(&text);
            drop(tokio::time::timeout(Duration::from_millis(50), run).await);
        });
    }
}
