use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use crate::node::processes::ProcessState;
use crate::session::Console;
use crate::time::ManualClock;
use crate::{Access, Caller, Node, Reply, Session, Status, Surface};

#[derive(Default)]
struct Printed(Mutex<Vec<String>>);

impl Console for Printed {
    fn print(&self, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

struct Terminal {
    session: Session,
    printed: Arc<Printed>,
}

impl Terminal {
    fn new() -> Self {
        let clock = ManualClock::new("2026-11-23T05:22:00.349345Z".parse().unwrap());
        let node = Node::builder().clock(clock).build();
        node.dictionary.set("external_ip", "127.0.0.1");
        node.dictionary.set("anylog_server_port", "21148");
        node.set_name("op1");
        let printed = Arc::new(Printed::default());
        Self { session: Session::new(node, Caller::terminal()).with_console(printed.clone()), printed }
    }

    async fn reply(&mut self, line: &str) -> Reply {
        self.session.execute(line).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    async fn text(&mut self, line: &str) -> String {
        self.reply(line).await.into_text().await.unwrap()
    }

    async fn error(&mut self, line: &str) -> crate::CommandError {
        match self.session.execute(line).await {
            Ok(reply) => panic!("'{line}' answered {reply:?}"),
            Err(error) => error,
        }
    }

    fn printed(&self) -> Vec<String> {
        std::mem::take(&mut self.printed.0.lock())
    }

    fn remote(&self) -> Session {
        let caller = Caller::network(Surface::Rest, "10.0.0.9:5000".parse().unwrap(), self.session.node.remote_admin());
        Session::new(Arc::clone(&self.session.node), caller)
    }
}

#[tokio::test]
async fn printing() {
    let mut terminal = Terminal::new();
    terminal.session.node.dictionary.set("x", "value");
    terminal.reply("print \"text \" !x 'quoted !x' !nothing end").await;
    assert_eq!(terminal.printed(), ["text  value quoted !x  end"]);
    terminal.reply("echo one !x").await;
    assert_eq!(terminal.printed(), ["one value"]);
    assert_eq!(terminal.text("get echo queue").await, "Message Queue not declared");
    terminal.reply("set echo queue on").await;
    for number in 0..25 {
        terminal.reply(&format!("echo message {number}")).await;
    }
    assert!(terminal.printed().is_empty());
    let queue = terminal.text("get echo queue").await;
    assert_eq!(queue.lines().count(), 20);
    assert!(queue.ends_with("message 24"), "{queue}");
    terminal.reply("reset echo queue where size = 2").await;
    assert_eq!(terminal.text("get echo queue").await, "");
    assert_eq!(terminal.error("set echo queue maybe").await.status, Status::COMMAND_STRUCTURE);
}

#[tokio::test]
async fn json_and_from() {
    let mut terminal = Terminal::new();
    let dictionary = &terminal.session.node.dictionary;
    dictionary.set("port", "32148");
    dictionary.set("policy", "{'operator': {\"name\": !name, \"port\": !port.int}}");
    dictionary.set("list", "[{\"a\": {\"id\": 1}}, {\"b\": {\"id\": 2}}]");
    dictionary
        .set("connections", "{\"TCP\": {\"external\": \"1.2.3.4:5\"}, \"Messaging\": {\"external\": \"1.2.3.4:7\"}}");
    let error = terminal.error("json !policy").await;
    assert_eq!(error.status, Status::JSON_STRUCTURE);
    assert!(error.hint.unwrap().contains("!name"));
    assert_eq!(terminal.text("json !policy test").await, "false");
    terminal.session.node.dictionary.set("name", "op 1");
    assert_eq!(terminal.text("json !policy").await, r#"{"operator": {"name": "op 1", "port": 32148}}"#);
    assert_eq!(terminal.text("json !policy test").await, "true");
    assert_eq!(terminal.text("from !policy bring [operator][name] : [operator][port]").await, "op 1:32148");
    assert_eq!(terminal.text("from !connections bring [Messaging][external]").await, "1.2.3.4:7");
    assert_eq!(terminal.text("from !list bring [*][id] separator = ,").await, "1,2");
    assert_eq!(terminal.text("from !list(1) bring [*][id]").await, "2");
    assert_eq!(terminal.text("from !list bring.count").await, "2");
    assert!(terminal.reply("from !list bring [*][nothing]").await.is_empty());
    for line in ["from !list(7) bring [*][id]", "from !nobody bring [a]", "from !list", "from !list bring.ip_port"] {
        terminal.error(line).await;
    }
    terminal.reply("id = from !list bring.last [*][id]").await;
    assert_eq!(terminal.session.node.dictionary.get("id").as_deref(), Some("2"));
}

#[tokio::test]
async fn parameters_are_listed_and_secrets_are_not_for_everybody() {
    let mut terminal = Terminal::new();
    terminal.session.node.dictionary.set("db_password", "demo");
    terminal.session.node.dictionary.set("zebra", "stripes");
    assert_eq!(terminal.text("get !zebra").await, "stripes");
    assert_eq!(terminal.text("get !nobody").await, "");
    assert_eq!(terminal.text("get !db_password").await, "demo");
    assert_eq!(terminal.text("get dictionary zeb").await, "\r\nKey   Value   \r\n-----|-------|\r\nzebra|stripes|\r\n");
    assert_eq!(terminal.text("get dictionary zeb where format = json").await, r#"{"zebra": "stripes"}"#);
    let mut remote = terminal.remote();
    for line in
        ["get !db_password", "get files !db_password", "get status where include = \"!db_password\"", "help $MY_SECRET"]
    {
        assert_eq!(remote.execute(line).await.unwrap_err().status, Status::UNAUTHORIZED, "{line}");
    }
    for line in ["get dictionary db_pass", "get dictionary where format = json"] {
        let text = remote.execute(line).await.unwrap().into_text().await.unwrap();
        assert!(!text.contains("demo"), "{line}: {text}");
    }
    assert_eq!(remote.execute("get !zebra").await.unwrap().into_text().await.unwrap(), "stripes");
    terminal.session.node.dictionary.set_environment("SOME_TOKEN", "abc");
    assert!(terminal.text("get env var SOME_TOKEN").await.contains("abc"));
    assert!(!remote.execute("get env var SOME_TOKEN").await.unwrap().into_text().await.unwrap().contains("abc"));
    let error = terminal.error("get procesess").await;
    assert_eq!(error.status, Status::UNRECOGNIZED_COMMAND);
    assert!(error.hint.unwrap().contains("get processes"));
}

#[tokio::test]
async fn documented_parameters_are_there_at_start() {
    let node = Node::builder().build();
    for name in
        ["ip", "external_ip", "hostname", "anylog_server_port", "anylog_rest_port", "io_buff_size", "blockchain_file"]
    {
        assert!(node.dictionary.get(name).is_some_and(|value| !value.is_empty()), "{name}");
    }
    assert!(node.dictionary.get("ip").unwrap().parse::<std::net::IpAddr>().is_ok());
}

#[tokio::test]
async fn the_state_of_the_node() {
    let mut terminal = Terminal::new();
    assert_eq!(terminal.text("get status").await, "op1@127.0.0.1:21148 running");
    assert_eq!(
        terminal.text("get status where format=json").await,
        r#"{"assigned_name": "op1@127.0.0.1:21148", "status": "running", "Status": "running", "profiling": false}"#
    );
    terminal.session.node.dictionary.set("cluster_id", "abc");
    let text = terminal.text("get status where format = json and include = !cluster_id and include = !ip").await;
    assert!(text.contains(r#""cluster_id": "abc", "ip": "#), "{text}");
    terminal.error("get status where format = json and include = plain").await;
    // Scripts take their branch by the first word.
    assert!(terminal.text("get version").await.starts_with("AnyLog Version: "));
    assert_eq!(terminal.text("get node name").await, "op1@127.0.0.1:21148");
    terminal.session.node.set_address(Some("10.1.1.1:99".to_owned()));
    assert_eq!(terminal.text("get node name").await, "op1@10.1.1.1:99");
    terminal.reply("set node name op2").await;
    assert_eq!(terminal.session.node.name(), "op2");
    assert!(!terminal.text("get hostname").await.is_empty());
    assert_eq!(terminal.text("get error 141").await, "Error text: \"Unrecognized Command\"");
    terminal.reply("exit node").await;
    assert!(terminal.session.node.shutdown.is_cancelled());
}

#[tokio::test]
async fn processes_in_the_documented_layout() {
    let mut terminal = Terminal::new();
    let node = &terminal.session.node;
    node.processes.register("REST", || {
        ProcessState::running("Listening on: 127.0.0.1:21149, Threads Pool: 6, Timeout: 60, SSL: False")
    });
    node.processes.register("TCP", || ProcessState::running("Listening on: 127.0.0.1:21148, Threads Pool: 6"));
    node.processes.register("MQTT", ProcessState::not_declared);
    terminal.reply("run scheduler 0").await;
    terminal.reply("run scheduler").await;
    let text = terminal.text("get processes").await;
    let lines: Vec<&str> = text.split("\r\n").collect();
    let line = |name: &str| *lines.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
    let first = lines[1];
    assert_eq!(lines[0], "");
    assert!(first.starts_with("    Process         Status       Details    "), "{first}");
    assert_eq!(
        lines[2],
        "    ---------------|------------|-----------------------------------------------------------------------|"
    );
    assert_eq!(
        line("TCP"),
        "    TCP            |Running     |Listening on: 127.0.0.1:21148, Threads Pool: 6                         |"
    );
    assert_eq!(
        line("Scheduler"),
        "    Scheduler      |Running     |Schedulers IDs in use: [0 (system)] [1 (user)]                         |"
    );
    assert_eq!(
        line("MQTT"),
        "    MQTT           |Not declared|                                                                       |"
    );
    let json = terminal.text("get processes where format = json").await;
    assert!(
        json.starts_with(
            r#"{"TCP": {"Status": "Running", "Details": "Listening on: 127.0.0.1:21148, Threads Pool: 6"}, "#
        ),
        "{json}"
    );
    assert!(json.contains(r#""MQTT": {"Status": "Not declared"}"#), "{json}");
}

#[tokio::test]
async fn remote_callers_do_not_open_the_door_for_themselves() {
    let mut terminal = Terminal::new();
    let mut remote = terminal.remote();
    assert_eq!(remote.execute("set remote admin on").await.unwrap_err().status, Status::UNAUTHORIZED);
    assert_eq!(remote.execute("system ls").await.unwrap_err().status, Status::UNAUTHORIZED);
    terminal.reply("set remote admin on").await;
    let mut administrator = terminal.remote();
    assert_eq!(administrator.caller.rights, Access::Admin);
    assert_eq!(administrator.execute("set remote admin off").await.unwrap_err().status, Status::UNAUTHORIZED);
    terminal.reply("set remote admin off").await;
    assert!(!terminal.session.node.remote_admin());
}

#[tokio::test]
async fn logs() {
    let mut terminal = Terminal::new();
    terminal.reply("reset event log").await;
    terminal.reply("reset error log").await;
    terminal.session.node.errors.add(terminal.session.node.clock.now(), "main", "Error", "disk is full");
    terminal.session.node.errors.add(terminal.session.node.clock.now(), "main", "Error", "wrong port");
    let table = terminal.text("get error log where keys = disk").await;
    assert!(table.starts_with("\r\nID Count Thread Time "), "{table}");
    assert!(table.contains("|2026-11-23 05:22:00.349345|Error|disk is full|"), "{table}");
    assert!(!table.contains("wrong port"));
    let Reply::Json(list) = terminal.reply("get error log where format = json").await else { panic!("no JSON") };
    assert_eq!(list[1]["Text"], json!("wrong port"));
    terminal.reply("reset error log").await;
    assert!(terminal.session.node.errors.messages().is_empty());
}

#[tokio::test]
async fn schedules_in_the_documented_layout() {
    let mut terminal = Terminal::new();
    terminal.session.node.dictionary.set("partition_sync", "1 day");
    terminal.reply("run scheduler 1").await;
    assert_eq!(
        terminal.text("get scheduler 1").await,
        "\r\nScheduler ID:     1\r\nScheduler Status: Running\r\nScheduled Tasks\r\n\
         ID Mode Name Counter Run Status Start-Time Repeat-Time Task \r\n\
         --|----|----|-------|----------|----------|-----------|----|\r\n"
    );
    assert_eq!(terminal.error("run scheduler 1").await.status, Status::PROCESS_RUNNING);
    terminal.reply("exit scheduler 1").await;
    // The document's own spelling; the task's text is kept unexpanded.
    terminal
        .reply("schedule time=!partition_sync and name=\"Drop Partitions\" task drop partition where dbms=!default_dbms and table =!table_name and keep=!partition_keep")
        .await;
    let view = &terminal.session.node.schedulers.views()[0];
    assert_eq!(
        view.tasks[0].command,
        "drop partition where dbms=!default_dbms and table =!table_name and keep=!partition_keep"
    );
    assert_eq!(view.tasks[0].every.as_secs(), 86_400);
    terminal.reply("schedule time = 1 minute and scheduler = 0 and name = \"Metadata Ping\" and start = +1d and task set servers ping").await;
    assert_eq!(
        terminal.text("get scheduler 0").await,
        "\r\nScheduler ID:     0\r\nScheduler Status: Not Running\r\nScheduled Tasks\r\n\
         ID Mode   Name          Counter Run Status   Start-Time                 Repeat-Time Task             \r\n\
         --|------|-------------|-------|------------|--------------------------|-----------|----------------|\r\n\
         \x20 1|Active|Metadata Ping|      0|Not executed|2026-11-24 05:22:00.349345|0:1:0      |set servers ping|\r\n"
            .replace("\x20 1", " 1")
    );
    let all = terminal.text("get scheduler").await;
    assert!(all.starts_with("\r\n\r\nScheduler ID:     0\r\n"), "{all:?}");
    assert!(all.contains("|\r\n\r\n\r\nScheduler ID:     1\r\n"), "{all:?}");
    let error = terminal.error("schedule time = 1 day and name = \"Drop Partitions\" task get status").await;
    assert_eq!(error.status, Status::COMMAND_STRUCTURE);
    for line in [
        "schedule time = 1 day and name = x",
        "schedule name = x task get status",
        "schedule time = soon task get status",
        "schedule time = 1 day and nmae = x task get status",
        "task stop where name = x",
        "task stop where scheduler = 1",
        "task stop where scheduler = 1 and name = nobody",
        "get scheduler 77",
        "run scheduler x",
    ] {
        terminal.error(line).await;
    }
    terminal.reply("task stop where scheduler = 1 and name = \"Drop Partitions\"").await;
    assert!(terminal.session.node.schedulers.views()[1].tasks[0].stopped);
    terminal.reply("task remove where scheduler = 1 and id = 1").await;
    assert!(terminal.session.node.schedulers.views()[1].tasks.is_empty());
    let Reply::Json(list) = terminal.reply("get scheduler where format = json").await else { panic!("no JSON") };
    assert_eq!(list[0]["Scheduled Tasks"][0]["Repeat-Time"], json!("0:1:0"));
}

#[tokio::test]
async fn host_commands() {
    let mut terminal = Terminal::new();
    terminal.session.node.dictionary.set("word", "b c");
    assert_eq!(terminal.text("system printf 'a\\nb\\n' | grep b").await, "b");
    assert_eq!(terminal.text("system echo !word | tr a-z A-Z").await, "B C");
    assert_eq!(terminal.text("system \"echo quoted\"").await, "quoted");
    assert_eq!(terminal.text("system printf 'a\\nb'").await, "a\r\nb");
    assert_eq!(terminal.text("system true | grep nothing").await, "");
    assert_eq!(terminal.error("system ls /no/such/path").await.status, Status::SYSTEM_CALL);
    assert_eq!(terminal.error("system no_such_program").await.status, Status::SYSTEM_CALL);
    assert_eq!(terminal.error("system echo !nobody").await.status, Status::COMMAND_STRUCTURE);
    assert_eq!(terminal.error("system timeout = x ls").await.status, Status::TIMEOUT_VALUE);
    let start = std::time::Instant::now();
    assert_eq!(terminal.error("system timeout = 1 sleep 30 | cat").await.status, Status::SYSTEM_CALL);
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
    terminal.reply("x = system echo stored").await;
    assert_eq!(terminal.session.node.dictionary.get("x").as_deref(), Some("stored"));
}

#[tokio::test]
async fn expressions_as_commands() {
    let mut terminal = Terminal::new();
    terminal.session.node.dictionary.set("env_ledger", "10.0.0.1:32048");
    terminal.session.node.dictionary.set("errin", "3");
    assert_eq!(terminal.text("python !env_ledger.split(\":\")[0]").await, "10.0.0.1");
    assert_eq!(terminal.text("python int(!errin) + int(!errin)").await, "6");
    assert_eq!(terminal.text("python \"datetime.datetime.utcnow().strftime('%Y/%m')\"").await, "2026/11");
    terminal.reply("n = python !env_ledger.split(\":\")[0].replace(\".\", \"_\") + \"_tags.al\"").await;
    assert_eq!(terminal.session.node.dictionary.get("n").as_deref(), Some("10_0_0_1_tags.al"));
    assert_eq!(terminal.error("python 'x'.upperr()").await.status, Status::EXPRESSION);
}

#[tokio::test]
async fn files_and_directories() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new();
    terminal.reply(&format!("set anylog home {}", home.path().display())).await;
    terminal.reply("create work directories").await;
    let watch = terminal.session.directory("watch_dir");
    assert!(watch.starts_with(home.path()) && watch.is_dir());
    std::fs::write(watch.join("a.json"), "12345").unwrap();
    std::fs::create_dir(watch.join("sub")).unwrap();
    assert_eq!(terminal.text("get files !watch_dir").await, "a.json");
    assert_eq!(terminal.text("get directories !watch_dir").await, "sub");
    assert_eq!(terminal.text("get size !watch_dir").await, "5");
    assert_eq!(terminal.text("file test !watch_dir/a.json").await, "True");
    assert_eq!(terminal.text("file test !watch_dir/b.json").await, "False");
    assert_eq!(terminal.error("get files /no/such/directory").await.status, Status::NO_SUCH_DIRECTORY);
    assert_eq!(terminal.error("set anylog home /no/such/directory").await.status, Status::NO_SUCH_DIRECTORY);
    let mut remote = terminal.remote();
    assert_eq!(remote.execute("get files /etc").await.unwrap_err().status, Status::UNAUTHORIZED);
    assert_eq!(remote.execute("file test ../../../../etc/passwd").await.unwrap_err().status, Status::UNAUTHORIZED);
    assert!(remote.execute("get files data/watch").await.is_ok());
}

#[tokio::test]
async fn threads_that_run_scripts_are_listed() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("long.al");
    std::fs::write(&script, "wait 60\n").unwrap();
    let mut terminal = Terminal::new();
    assert!(terminal.text("get user threads").await.contains("Thread"));
    terminal.reply(&format!("thread {}", script.display())).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !terminal.text("get threads").await.contains("|wait 60") {
        assert!(std::time::Instant::now() < deadline, "the script is not listed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    terminal.session.node.scripts.end_all();
}

#[tokio::test]
async fn the_computer() {
    let mut terminal = Terminal::new();
    let number = |text: String| text.trim().parse::<f64>().unwrap();
    let total = number(terminal.text("get disk total .").await);
    let free = number(terminal.text("get disk free .").await);
    assert!(total > 0.0 && free <= total);
    let percent = number(terminal.text("get disk percentage .").await);
    assert!((0.0..=100.0).contains(&percent));
    assert!(terminal.text("get disk usage . where format = json").await.starts_with("{\"total\": "));
    assert!(number(terminal.text("get node info virtual_memory total").await) > 0.0);
    assert!(number(terminal.text("get node info net_io_counters errin").await) >= 0.0);
    assert!((0.0..=100.0).contains(&number(terminal.text("get cpu usage").await)));
    assert!(terminal.text("get ip list").await.contains("127.0.0.1"));
    assert!(terminal.text("get platform info").await.contains("system"));
    assert!(terminal.text("get memory info").await.contains("available"));
    let error = terminal.error("get node info cpu_percnt").await;
    assert!(error.hint.unwrap().contains("cpu_percent"));
    assert!(terminal.text("get unused rest port for operator").await.parse::<u16>().unwrap() >= 32149);
    assert!(terminal.error("get unused rest port for operatr").await.hint.unwrap().contains("operator"));
}

#[tokio::test]
async fn times() {
    let mut terminal = Terminal::new();
    for (line, expected) in [
        ("get datetime utc now()", "2026-11-23 05:22:00.349345"),
        ("get datetime Asia/Tokyo now()", "2026-11-23 14:22:00.349345"),
        ("get datetime utc now() - 3 days", "2026-11-20 05:22:00.349345"),
        ("get datetime utc -3d", "2026-11-20 05:22:00.349345"),
        ("get datetime +02:00 now() + 1 month", "2026-12-23 07:22:00.349345"),
    ] {
        assert_eq!(terminal.text(line).await, expected, "{line}");
    }
    terminal.reply("set time zone America/New_York").await;
    assert_eq!(terminal.text("get timezone info").await, "America/New_York (UTC-05:00)");
    terminal.reply("set time zone +02:00").await;
    assert_eq!(terminal.text("get timezone info").await, "fixed (UTC+02:00)");
    for line in ["set time zone Nowhere", "get datetime utc soon", "get datetime"] {
        terminal.error(line).await;
    }
}

#[tokio::test]
async fn help_is_derived() {
    let mut terminal = Terminal::new();
    let text = terminal.text("help get disk usage").await;
    assert!(text.contains("get disk usage [<path>]") && text.contains("Access: read, HTTP: GET"), "{text}");
    assert!(terminal.text("help task").await.contains("task resume"));
    assert!(terminal.text("help").await.contains("create work directories"));
    assert!(terminal.text("help index echo").await.contains("reset echo queue"));
    assert!(terminal.error("help get procesess").await.hint.unwrap().contains("get processes"));
    let document = crate::language::reference::markdown(&terminal.session.node.registry);
    for command in terminal.session.node.registry.commands() {
        let declaration = command.declaration();
        assert!(document.contains(&format!("### {}\n", declaration.words)), "{}", declaration.words);
    }
}

#[test]
fn every_command_is_documented() {
    for command in super::all() {
        let declaration = command.declaration();
        let words = declaration.words;
        assert!(declaration.summary.ends_with('.'), "{words}: the summary is a sentence");
        assert!(!declaration.returns.is_empty(), "{words}: says what it returns");
        assert!(!declaration.examples.is_empty(), "{words}: has an example");
        for example in &declaration.examples {
            let calls_it = declaration.keys().any(|key| example.contains(key));
            assert!(calls_it, "{words}: '{example}' calls it");
        }
    }
}
