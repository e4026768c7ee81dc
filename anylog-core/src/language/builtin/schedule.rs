//! The schedule: `run scheduler`, `schedule ... task ...`, `task ...`, `get scheduler`.

use std::sync::Arc;
use std::time::Duration;

use super::simple;
use crate::command::{
    Command, CommandResult, Declaration, Invocation, OptionKind, Options, Positional, PositionalKind, Word,
};
use crate::language::where_list;
use crate::node::processes::ProcessState;
use crate::schedule::{Change, SYSTEM, SchedulerView, Task, TaskView, Which};
use crate::{Access, CommandError, Node, Reply, Session, Surface, Table, command, time};

/// The scheduler that is meant when none is named.
const DEFAULT: u32 = 1;

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    let schedule_declaration = schedule_declaration();
    vec![
        simple(
            Declaration::new("run scheduler", "Starts a scheduler.")
                .positional(id("the number of the scheduler; 0 is that of the node's own tasks, 1 when left out"))
                .returns("nothing")
                .example("run scheduler 1"),
            run,
        ),
        simple(
            Declaration::new("exit scheduler", "Stops a scheduler, or all; their tasks are kept.")
                .positional(id("the number of the scheduler"))
                .returns("nothing")
                .example("exit scheduler 1"),
            exit,
        ),
        command(schedule_declaration.clone(), Arc::new(schedule_declaration), |declaration, session, call| {
            Box::pin(std::future::ready(schedule(declaration, session, &call)))
        }),
        change(
            "task stop",
            "Lets a task rest.",
            "task stop where scheduler = 1 and name = \"Drop Partitions\"",
            |_| Change::Stop,
        ),
        change("task resume", "Ends the rest of a task.", "task resume where scheduler = 1 and id = 2", |_| {
            Change::Resume
        }),
        change("task run", "Runs a task once, now.", "task run where scheduler = 1 and id = 2", |_| Change::Run),
        change("task remove", "Removes a task.", "task remove where scheduler = 1 and id = 2", |_| Change::Remove),
        change(
            "task init",
            "Counts the repetitions of a task from another start.",
            "task init where scheduler = 1 and id = 2 and start = +1d",
            |options| Change::Init(options.date("start")),
        ),
        simple(
            Declaration::new("get scheduler", "Shows schedulers and their tasks.")
                .reads()
                .positional(id("only this scheduler"))
                .format_option()
                .returns(
                    "per scheduler a table with ID, Mode, Name, Counter, Run Status, Start-Time, Repeat-Time, Task",
                )
                .example("get scheduler 1"),
            show,
        ),
    ]
}

/// Adds the row of `get processes`.
pub(super) fn declare_process(node: &Arc<Node>) {
    let node_of = Arc::downgrade(node);
    node.processes.register("Scheduler", move || {
        let Some(node) = node_of.upgrade() else { return ProcessState::not_declared() };
        let running: Vec<String> = node
            .schedulers
            .views()
            .iter()
            .filter(|scheduler| scheduler.running)
            .map(|scheduler| format!("[{} ({})]", scheduler.id, if scheduler.id == SYSTEM { "system" } else { "user" }))
            .collect();
        if running.is_empty() {
            return ProcessState::not_declared();
        }
        ProcessState::running(format!("Schedulers IDs in use: {}", running.join(" ")))
    });
}

fn id(help: &'static str) -> Positional {
    Positional { name: "id", kind: PositionalKind::Word(OptionKind::Int), required: false, help }
}

fn scheduler_id(text: &str) -> Result<u32, CommandError> {
    text.parse().map_err(|_| {
        CommandError::structure(format!("'{text}' is not the number of a scheduler")).hint("use 0, 1, 2, ...")
    })
}

fn given_id(call: &Invocation) -> Result<Option<u32>, CommandError> {
    call.positional_value("id").map(|value| scheduler_id(&value.to_string())).transpose()
}

fn run(session: &mut Session, call: &Invocation) -> CommandResult {
    session.node.schedulers.run(&session.node, given_id(call)?.unwrap_or(DEFAULT))?;
    Ok(Reply::Empty)
}

fn exit(session: &mut Session, call: &Invocation) -> CommandResult {
    match given_id(call)? {
        Some(id) => session.node.schedulers.stop(id)?,
        None => {
            for scheduler in session.node.schedulers.views().iter().filter(|scheduler| scheduler.running) {
                session.node.schedulers.stop(scheduler.id)?;
            }
        }
    }
    Ok(Reply::Empty)
}

fn schedule_declaration() -> Declaration {
    Declaration::new("schedule", "Repeats a command.")
        .required("time", OptionKind::Duration, "time between the beginnings of two runs")
        .option("name", OptionKind::Text, "a name, unique in its scheduler")
        .option("scheduler", OptionKind::Int, "the number of the scheduler, which need not run yet")
        .default_is("1")
        .option("start", OptionKind::Date, "the first run")
        .default_is("at once")
        .grammar("time = <N unit> [and name = <name>] [and scheduler = <id>] [and start = <date>] [and] task <command>")
        .returns("nothing; see get scheduler")
        .example("schedule time = 1 day and name = \"Drop Partitions\" task drop partition where dbms = test and table = * and keep = 3")
}

fn schedule(declaration: &Declaration, session: &mut Session, call: &Invocation) -> CommandResult {
    let words = call.rest();
    let plain = |word: &Word, text: &str| !word.quoted && word.text == text;
    let is_task = |at: &usize| plain(&words[*at], "task") && (*at == 0 || !plain(&words[at - 1], "="));
    let at = (0..words.len()).find(is_task).filter(|at| at + 1 < words.len()).ok_or_else(|| {
        CommandError::structure("Missing 'task' and a command to repeat")
            .hint("write: schedule time = 30 seconds and name = report task get processes")
    })?;
    let mut terms = &words[..at];
    // `schedule where time = ...` and `... and task ...` are tolerated.
    if let Some((first, rest)) = terms.split_first()
        && plain(first, "where")
    {
        terms = rest;
    }
    if let Some((last, rest)) = terms.split_last()
        && plain(last, "and")
    {
        terms = rest;
    }
    let options = where_list::parse(&session.node, declaration, terms)?;
    let every =
        options.duration("time").ok_or_else(|| CommandError::structure("Missing 'time' in command variables"))?;
    let scheduler = options.int("scheduler").map(|id| scheduler_id(&id.to_string())).transpose()?.unwrap_or(DEFAULT);
    let command = call.text_from(call.key_words + at + 1);
    let name = options.text("name").unwrap_or_default();
    let mut task = Task::new(name, every, command, session.caller.rights).starting(options.date("start"));
    // A terminal is there at each run; the reply of a request is gone by then.
    if matches!(session.caller.surface, Surface::Terminal | Surface::Embedded) {
        task = task.printing_on(Arc::clone(&session.console));
    }
    session.node.schedulers.add(&session.node, scheduler, task)?;
    Ok(Reply::Empty)
}

fn change(
    words: &'static str,
    summary: &'static str,
    example: &'static str,
    change: fn(&Options) -> Change,
) -> Arc<dyn Command> {
    let mut declaration = Declaration::new(words, summary)
        .required("scheduler", OptionKind::Int, "the number of the scheduler")
        .option("name", OptionKind::Text, "the name of the task")
        .option("id", OptionKind::Int, "the number of the task")
        .returns("nothing")
        .example(example);
    if words == "task init" {
        declaration = declaration.option("start", OptionKind::Date, "the new start").default_is("now");
    }
    command(declaration, Arc::new(change), |change, session, call| {
        Box::pin(std::future::ready(apply(session, &call.options, change(&call.options))))
    })
}

fn apply(session: &mut Session, options: &Options, change: Change) -> CommandResult {
    let scheduler = scheduler_id(&options.expect_text("scheduler")?)?;
    let which = match (options.int("id"), options.text("name")) {
        (Some(id), _) => Which::Id(
            u32::try_from(id).map_err(|_| CommandError::structure(format!("'{id}' is not the number of a task")))?,
        ),
        (None, Some(name)) => Which::Name(name),
        (None, None) => {
            return Err(CommandError::structure("Missing 'name' or 'id' in command variables")
                .hint(format!("list the tasks: get scheduler {scheduler}")));
        }
    };
    // A task runs with the rights of who scheduled it, so changing one takes them too.
    session.require(Access::Admin, "task")?;
    session.node.schedulers.change(&session.node, scheduler, &which, change)?;
    Ok(Reply::Empty)
}

fn show(session: &mut Session, call: &Invocation) -> CommandResult {
    let views = session.node.schedulers.views();
    let only = given_id(call)?;
    let views: Vec<SchedulerView> = views.into_iter().filter(|view| only.is_none_or(|id| view.id == id)).collect();
    if let (Some(id), true) = (only, views.is_empty()) {
        return Err(CommandError::parameter(format!("There is no scheduler {id}"))
            .hint(format!("start it: run scheduler {id}")));
    }
    if call.options.wants_json() {
        return Ok(Reply::Json(views.iter().map(as_json).collect()));
    }
    let width = session.node.output_width();
    let tables: Vec<String> = views.iter().map(|view| as_table(view).max_width(width).to_string()).collect();
    // One scheduler starts like any table; each of several has a line more before it.
    let before = if only.is_some() { "" } else { "\r\n" };
    Ok(Reply::Text(tables.into_iter().map(|table| format!("{before}{table}")).collect()))
}

fn as_table(view: &SchedulerView) -> Table {
    let title = format!(
        "Scheduler ID:     {}\r\nScheduler Status: {}\r\nScheduled Tasks",
        view.id,
        if view.running { "Running" } else { "Not Running" }
    );
    let mut table =
        Table::new(["ID", "Mode", "Name", "Counter", "Run Status", "Start-Time", "Repeat-Time", "Task"]).title(title);
    for task in &view.tasks {
        table.push([
            task.id.to_string(),
            mode(task).to_owned(),
            task.name.clone(),
            task.runs.to_string(),
            run_status(task),
            time::stored(task.start),
            repeat_time(task.every),
            task.command.clone(),
        ]);
    }
    table
}

fn as_json(view: &SchedulerView) -> serde_json::Value {
    let tasks: Vec<serde_json::Value> = view
        .tasks
        .iter()
        .map(|task| {
            serde_json::json!({
                "ID": task.id,
                "Mode": mode(task),
                "Name": task.name,
                "Counter": task.runs,
                "Run Status": run_status(task),
                "Start-Time": time::stored(task.start),
                "Next-Time": time::stored(task.next),
                "Repeat-Time": repeat_time(task.every),
                "Task": task.command,
            })
        })
        .collect();
    serde_json::json!({
        "Scheduler ID": view.id,
        "Scheduler Status": if view.running { "Running" } else { "Not Running" },
        "Scheduled Tasks": tasks,
    })
}

fn mode(task: &TaskView) -> &'static str {
    if task.stopped { "Stopped" } else { "Active" }
}

fn run_status(task: &TaskView) -> String {
    match &task.outcome {
        _ if task.running => "Running".to_owned(),
        None => "Not executed".to_owned(),
        Some(Ok(())) => "Success".to_owned(),
        Some(Err(error)) => error.status.text().to_owned(),
    }
}

/// `hours:minutes:seconds`, without leading zeros.
fn repeat_time(every: Duration) -> String {
    let seconds = every.as_secs();
    format!("{}:{}:{}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
