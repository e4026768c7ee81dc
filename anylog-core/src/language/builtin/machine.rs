//! The computer: disk, memory, processors.

use std::sync::Arc;
use std::time::Duration;

use super::{BlockingCall, blocking};
use crate::command::{Command, CommandResult, Declaration};
use crate::{CommandError, Reply, Status, Table};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    let mut commands = disk();
    commands.extend([
        blocking(
            Declaration::new("get memory info", "Shows the memory of the computer.")
                .reads()
                .format_option()
                .returns("a table of name and bytes: total, available, percent, used, free")
                .example("get memory info"),
            memory,
        ),
        blocking(
            Declaration::new("get cpu info", "Shows the processors of the computer.")
                .reads()
                .format_option()
                .returns("a table of name and value: model, cores, load averages")
                .example("get cpu info"),
            cpu_info,
        ),
        blocking(
            Declaration::new(
                "get cpu usage",
                "Shows how busy the processors are, measured over a quarter of a second.",
            )
            .reads()
            .returns("percent")
            .example("get cpu usage"),
            |_| cpu_percent().map(|percent| Reply::Text(format!("{percent:.1}"))),
        ),
        blocking(
            Declaration::new("get platform info", "Shows the operating system of the computer.")
                .reads()
                .format_option()
                .returns("a table of name and value")
                .example("get platform info"),
            platform,
        ),
        blocking(
            Declaration::new("get node info", "Shows one figure of the computer.")
                .reads()
                .word(
                    "figure",
                    "cpu_percent, cpu_count, virtual_memory, disk_usage, net_io_counters, boot_time or pids",
                )
                .optional_word("attribute", "one attribute of the figure, such as packets_recv")
                .returns("a number, or a JSON object when no attribute is named")
                .example("get node info net_io_counters packets_recv"),
            node_info,
        ),
    ]);
    commands
}

fn disk() -> Vec<Arc<dyn Command>> {
    fn declaration(words: &'static str, summary: &'static str, returns: &'static str) -> Declaration {
        Declaration::new(words, summary)
            .reads()
            .optional_word("path", "a path on the disk; the root of the node when left out")
            .returns(returns)
    }
    vec![
        blocking(
            declaration("get disk usage", "Shows how full a disk is.", "a table of name and bytes")
                .format_option()
                .example("get disk usage ."),
            |call| {
                let disk = Disk::of(call)?;
                let rows = [
                    ("total", disk.total.to_string()),
                    ("used", disk.used.to_string()),
                    ("free", disk.free.to_string()),
                    ("percent", format!("{:.1}", disk.used_percent())),
                ];
                Ok(pairs(call, &rows))
            },
        ),
        blocking(
            declaration("get disk total", "Shows the size of a disk.", "bytes").example("get disk total ."),
            |call| Ok(Disk::of(call)?.total.to_string().into()),
        ),
        blocking(
            declaration("get disk used", "Shows how much of a disk is used.", "bytes").example("get disk used ."),
            |call| Ok(Disk::of(call)?.used.to_string().into()),
        ),
        blocking(
            declaration("get disk free", "Shows how much of a disk is free.", "bytes").example("get disk free ."),
            |call| Ok(Disk::of(call)?.free.to_string().into()),
        ),
        blocking(
            declaration(
                "get disk percentage",
                "Shows how much of a disk is free, in percent.",
                "percent with two decimals",
            )
            .example("get disk percentage ."),
            |call| {
                let disk = Disk::of(call)?;
                Ok(format!("{:.2}", ratio(disk.free, disk.total)).into())
            },
        ),
    ]
}

struct Disk {
    total: u64,
    used: u64,
    free: u64,
}

impl Disk {
    fn of(call: &BlockingCall) -> Result<Self, CommandError> {
        let path = match call.call.positional("path") {
            Some(_) => call.path()?,
            None => call.node.directories.home(),
        };
        let disk = rustix::fs::statvfs(&path).map_err(|error| {
            CommandError::new(
                Status::NO_SUCH_DIRECTORY,
                format!("The disk of '{}' cannot be looked at: {}", path.display(), std::io::Error::from(error)),
            )
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Self {
            total: bytes(disk.f_blocks),
            used: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
            free: bytes(disk.f_bavail),
        })
    }

    fn used_percent(&self) -> f64 {
        ratio(self.used, self.used.saturating_add(self.free))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Names and values as a table or a JSON object.
fn pairs(call: &BlockingCall, rows: &[(&str, String)]) -> Reply {
    if call.call.options.wants_json() {
        let value =
            |text: &str| text.parse::<serde_json::Number>().map_or_else(|_| text.into(), serde_json::Value::Number);
        return Reply::Json(
            rows.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect::<serde_json::Map<_, _>>().into(),
        );
    }
    let mut table = Table::new(["Name", "Value"]).max_width(call.node.output_width());
    for (name, value) in rows {
        table.push([*name, value.as_str()]);
    }
    table.into()
}

fn proc(file: &str) -> Result<String, CommandError> {
    std::fs::read_to_string(format!("/proc/{file}")).map_err(|error| {
        CommandError::process(format!("'/proc/{file}' cannot be read: {error}"))
            .hint("figures of the computer are known on Linux only")
    })
}

/// Bytes of a line of `/proc/meminfo`.
fn memory_of(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kilobytes| kilobytes * 1024)
}

fn memory_rows() -> Result<Vec<(&'static str, String)>, CommandError> {
    let text = proc("meminfo")?;
    let (total, available) = (memory_of(&text, "MemTotal"), memory_of(&text, "MemAvailable"));
    let used = total.saturating_sub(available);
    Ok(vec![
        ("total", total.to_string()),
        ("available", available.to_string()),
        ("percent", format!("{:.1}", ratio(used, total))),
        ("used", used.to_string()),
        ("free", memory_of(&text, "MemFree").to_string()),
    ])
}

fn memory(call: &BlockingCall) -> CommandResult {
    Ok(pairs(call, &memory_rows()?))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn cpu_info(call: &BlockingCall) -> CommandResult {
    let text = proc("cpuinfo")?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let load = proc("loadavg")?;
    let mut load = load.split_whitespace().map(str::to_owned);
    let mut next = || load.next().unwrap_or_default();
    let rows = [
        ("model", field("model name")),
        ("architecture", std::env::consts::ARCH.to_owned()),
        ("cores", cores().to_string()),
        ("load 1 minute", next()),
        ("load 5 minutes", next()),
        ("load 15 minutes", next()),
    ];
    Ok(pairs(call, &rows))
}

/// Busy and all ticks of all processors since the start.
fn ticks() -> Result<(u64, u64), CommandError> {
    let text = proc("stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|tick| tick.parse().ok()).collect();
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all.saturating_sub(idle), all))
}

fn cpu_percent() -> Result<f64, CommandError> {
    let (busy_before, all_before) = ticks()?;
    std::thread::sleep(Duration::from_millis(250));
    let (busy, all) = ticks()?;
    Ok(ratio(busy.saturating_sub(busy_before), all.saturating_sub(all_before)))
}

fn platform(call: &BlockingCall) -> CommandResult {
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let rows = [
        ("system", text(system.sysname())),
        ("node", text(system.nodename())),
        ("release", text(system.release())),
        ("version", text(system.version())),
        ("machine", text(system.machine())),
    ];
    Ok(pairs(call, &rows))
}

/// Sums of `/proc/net/dev` over all interfaces.
fn network_counters() -> Result<Vec<(&'static str, String)>, CommandError> {
    let text = proc("net/dev")?;
    let mut sums = [0_u64; 16];
    for line in text.lines().filter_map(|line| line.split_once(':')) {
        for (sum, value) in sums.iter_mut().zip(line.1.split_whitespace()) {
            *sum = sum.saturating_add(value.parse().unwrap_or(0));
        }
    }
    Ok(vec![
        ("bytes_sent", sums[8].to_string()),
        ("bytes_recv", sums[0].to_string()),
        ("packets_sent", sums[9].to_string()),
        ("packets_recv", sums[1].to_string()),
        ("errin", sums[2].to_string()),
        ("errout", sums[10].to_string()),
        ("dropin", sums[3].to_string()),
        ("dropout", sums[11].to_string()),
    ])
}

const FIGURES: &[&str] =
    &["cpu_percent", "cpu_count", "virtual_memory", "disk_usage", "net_io_counters", "boot_time", "pids", "getloadavg"];

fn node_info(call: &BlockingCall) -> CommandResult {
    let figure = call.call.expect_positional("figure")?;
    let rows = match figure.as_str() {
        "cpu_percent" => return Ok(format!("{:.1}", cpu_percent()?).into()),
        "cpu_count" => return Ok(cores().to_string().into()),
        "boot_time" => {
            let text = proc("stat")?;
            let time = text.lines().find_map(|line| line.strip_prefix("btime ")).unwrap_or_default();
            return Ok(time.trim().into());
        }
        "pids" => {
            let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            return Ok(Reply::Json(pids.collect()));
        }
        "getloadavg" => {
            let text = proc("loadavg")?;
            let loads = text.split_whitespace().take(3).filter_map(|load| load.parse::<f64>().ok());
            return Ok(Reply::Json(loads.collect()));
        }
        "virtual_memory" => memory_rows()?,
        "net_io_counters" => network_counters()?,
        "disk_usage" => {
            let disk = rustix::fs::statvfs(call.node.directories.home())
                .map_err(|error| CommandError::process(std::io::Error::from(error).to_string()))?;
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize).to_string();
            vec![
                ("total", bytes(disk.f_blocks)),
                ("used", bytes(disk.f_blocks.saturating_sub(disk.f_bfree))),
                ("free", bytes(disk.f_bavail)),
            ]
        }
        other => {
            let error = CommandError::parameter(format!("Unknown figure '{other}'"));
            return Err(match crate::error::nearest(other, FIGURES.iter().copied()) {
                Some(known) => error.hint(format!("did you mean '{known}'?")),
                None => error.hint(format!("known: {}", FIGURES.join(", "))),
            });
        }
    };
    attribute(&figure, call.call.positional("attribute"), rows)
}

fn attribute(figure: &str, attribute: Option<&str>, rows: Vec<(&'static str, String)>) -> CommandResult {
    let Some(attribute) = attribute else {
        let value = |text: String| {
            text.parse::<serde_json::Number>().map_or_else(|_| text.clone().into(), serde_json::Value::Number)
        };
        let object: serde_json::Map<String, serde_json::Value> =
            rows.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect();
        return Ok(Reply::Json(object.into()));
    };
    match rows.iter().find(|(name, _)| *name == attribute) {
        Some((_, value)) => Ok(value.as_str().into()),
        None => Err(CommandError::parameter(format!("'{figure}' has no attribute '{attribute}'"))
            .hint(format!("known: {}", rows.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")))),
    }
}
