//! What the node allows queries: `set query mode`, `set query pool`.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::node::processes::ProcessState;
use anylog_core::{Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Table, command};

use crate::{QueryMode, QueryService};

/// The largest pool: each query holds a thread.
const MOST: i64 = 256;

pub(super) fn commands(service: &Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    let counted = Arc::downgrade(service);
    service.node().processes.register("Query Pool", move || match counted.upgrade() {
        Some(service) => ProcessState::running(format!("Threads Pool: {}", service.pool().usage().0)),
        None => ProcessState::not_declared(),
    });
    let state = || Arc::new(Arc::clone(service));
    let mode = Declaration::new(
        "set query mode",
        "Limits queries at this node, and says which gaps an answer over the network may have.",
    )
    .introduced_by("using")
    .option(
        "timeout",
        OptionKind::Text,
        "longest time of a query over this node's data, also for another node; 0 is unlimited",
    )
    .default_is("0")
    .option("max_volume", OptionKind::Bytes, "most bytes of its rows; 0 is unlimited")
    .default_is("0")
    .option(
        "send_mode",
        OptionKind::Text,
        "all, or any: answer without operators that cannot be reached, and name them",
    )
    .default_is("all")
    .option(
        "reply_mode",
        OptionKind::Text,
        "all, or any: answer without operators that gave no whole answer, and name them",
    )
    .default_is("all")
    .option("show_id", OptionKind::Bool, "whether a terminal shows the number of a query")
    .default_is("false")
    .returns("nothing; what is left out stays as it was, shown by 'get query params'")
    .example("set query mode using timeout = 30 seconds and max_volume = 2MB")
    .example("set query mode using send_mode = any and reply_mode = any");
    let params = Declaration::new("get query params", "Shows what 'set query mode' set.")
        .alias("get query mode")
        .reads()
        .format_option()
        .returns("a table with the columns Parameter and Value, or JSON")
        .example("get query params");
    let pool = Declaration::new("set query pool", "Changes how many queries run at a time; further ones wait.")
        .word("size", "1 to 256")
        .returns("nothing; queries that run go on")
        .example("set query pool 6");
    let usage = Declaration::new("get query pool", "Shows the places of the query pool: 1 for a query that runs.")
        .reads()
        .returns("a line for queries of this node, and one for parts of other nodes' queries")
        .example("get query pool");
    vec![
        command(mode, state(), |service, _, call| Box::pin(async move { set_mode(service, &call) })),
        command(params, state(), |service, _, call| Box::pin(async move { Ok(get_params(service, &call)) })),
        command(pool, state(), |service, _, call| Box::pin(async move { set_pool(service, &call) })),
        command(usage, state(), |service, _, _| Box::pin(async move { Ok(get_pool(service)) })),
    ]
}

fn set_mode(service: &Arc<QueryService>, call: &Invocation) -> CommandResult {
    let options = &call.options;
    if options.is_empty() {
        return Err(CommandError::structure("set query mode sets nothing")
            .hint("write: set query mode using timeout = 30 seconds and max_volume = 2MB"));
    }
    let mut mode = service.mode();
    if let Some(text) = options.text("timeout") {
        mode.timeout = super::network::seconds(&text)?;
    }
    if let Some(bytes) = options.bytes("max_volume") {
        mode.max_volume = Some(bytes).filter(|bytes| *bytes > 0);
    }
    for (name, any) in [("send_mode", &mut mode.send_any), ("reply_mode", &mut mode.reply_any)] {
        match options.text(name).as_deref() {
            None => {}
            Some("all") => *any = false,
            Some("any") => *any = true,
            Some(other) => {
                return Err(CommandError::structure(format!("{name} = {other} is not known")).hint("use all or any"));
            }
        }
    }
    mode.show_id = options.bool("show_id").unwrap_or(mode.show_id);
    service.set_mode(mode);
    Ok(Reply::Empty)
}

fn get_params(service: &QueryService, call: &Invocation) -> Reply {
    let QueryMode { timeout, max_volume, send_any, reply_any, show_id } = service.mode();
    let any = |any: bool| if any { "any" } else { "all" };
    let mut table = Table::new(["Parameter", "Value"]);
    table.push(["timeout", &timeout.map_or_else(|| "0".to_owned(), |limit: Duration| limit.as_secs().to_string())]);
    table.push(["max_volume", &max_volume.unwrap_or(0).to_string()]);
    table.push(["send_mode", any(send_any)]);
    table.push(["reply_mode", any(reply_any)]);
    table.push(["show_id", if show_id { "true" } else { "false" }]);
    if call.options.wants_json() { Reply::Json(table.to_json()) } else { table.into() }
}

fn set_pool(service: &QueryService, call: &Invocation) -> CommandResult {
    let text = call.expect_positional("size")?;
    let size = text.parse().ok().filter(|size| (1..=MOST).contains(size)).and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or_else(|| {
        CommandError::parameter(format!("'{text}' is not a size of the query pool")).hint(format!("give 1 to {MOST}"))
    })?;
    service.pool().resize(size);
    Ok(Reply::Empty)
}

fn get_pool(service: &QueryService) -> Reply {
    let (size, own, parts) = service.pool().usage();
    let places = |taken: usize| {
        let marks: Vec<&str> = (0..size).map(|place| if place < taken { "1" } else { "0" }).collect();
        marks.join(", ")
    };
    Reply::Text(format!(
        "Query Pool with {size} threads: [{}]\r\nFor other nodes with {size} threads: [{}]",
        places(own),
        places(parts)
    ))
}
