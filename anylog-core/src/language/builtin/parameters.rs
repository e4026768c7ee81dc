//! Parameters, the environment, times.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::simple;
use crate::command::{Command, CommandResult, Declaration, Invocation, OptionKind};
use crate::language::expand::{is_reference, reference};
use crate::{Access, CommandError, Reply, Session, Status, Table};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("get", "Shows the value of a parameter or of an environment variable.")
                .reads()
                .grammar("!<name> | $<NAME>")
                .returns("the text as it was set, references in it included; nothing when unset")
                .example("get !node_name"),
            get,
        ),
        simple(
            Declaration::new("get dictionary", "Lists parameters.")
                .reads()
                .optional_word("part", "only names that contain this text")
                .format_option()
                .returns("a table with the columns Key and Value, or a JSON object; passwords only for administrators")
                .example("get dictionary dir where format = json"),
            |session, call| listing(session, call, session.node.dictionary.entries()),
        ),
        simple(
            Declaration::new("get env var", "Lists environment variables.")
                .reads()
                .optional_word("part", "only names that contain this text")
                .format_option()
                .returns("a table with the columns Key and Value, or a JSON object; passwords only for administrators")
                .example("get env var PATH"),
            |session, call| listing(session, call, session.node.dictionary.environment_entries()),
        ),
        simple(
            Declaration::new("get datetime", "Shows the current time, shifted when asked for.")
                .reads()
                .grammar("<time zone> now() [+ | -] [<N> <unit>]")
                .returns("YYYY-MM-DD HH:MM:SS.ffffff in that time zone")
                .example("get datetime utc now()")
                .example("get datetime Asia/Tokyo now() - 3 days"),
            get_datetime,
        ),
        simple(
            Declaration::new("get timezone info", "Shows the time zone in which times without an offset are meant.")
                .reads()
                .alias("get time zone")
                .returns("the name of the zone and its current offset from UTC")
                .example("get timezone info"),
            get_time_zone,
        ),
        simple(
            Declaration::new("set time zone", "Sets the time zone in which times without an offset are meant.")
                .rest("zone", true, "a name such as Europe/Paris, utc, local, or an offset such as +02:00")
                .returns("nothing")
                .example("set time zone America/New_York"),
            set_time_zone,
        ),
        simple(
            Declaration::new("get error", "Shows the text of a status code.")
                .reads()
                .positional(crate::command::Positional {
                    name: "code",
                    kind: crate::command::PositionalKind::Word(OptionKind::Int),
                    required: true,
                    help: "a number that a command or a REST reply came back with",
                })
                .returns("`Error text: \"...\"`")
                .example("get error 141"),
            get_error,
        ),
    ]
}

/// True for names whose values are shown to administrators only.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["passw", "secret", "token", "private_key", "api_key", "license_key"].iter().any(|part| name.contains(part))
        || name == "db_user"
}

/// The first reference to a secret parameter or environment variable in a line, were it expanded.
///
/// Any command that expands its words may show a value, if only in an error; so a caller who may not see secrets may not
/// name them at all.
pub(crate) fn secret_reference(line: &str) -> Option<&str> {
    let starts = line.char_indices().filter(|(_, c)| matches!(c, '!' | '$')).map(|(at, _)| at);
    starts
        .filter(|at| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(|at| {
            let name = &line[at + 1..];
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            &line[at..at + 1 + end]
        })
        .find(|reference| is_secret(&reference[1..]))
}

/// The value, or stars when this caller may not see it.
pub(super) fn visible(session: &Session, name: &str, value: String) -> String {
    if session.caller.rights < Access::Admin && is_secret(name) { "********".to_owned() } else { value }
}

fn get(session: &mut Session, call: &Invocation) -> CommandResult {
    match call.rest() {
        [word] if is_reference(&word.text) => match reference(&session.node, &word.text) {
            Some(value) => Ok(Reply::Text(visible(session, &word.text, value.to_string()))),
            None => Ok(Reply::Empty),
        },
        words => {
            let words: Vec<&str> = std::iter::once("get").chain(words.iter().map(|word| word.text.as_str())).collect();
            let error =
                CommandError::new(Status::UNRECOGNIZED_COMMAND, format!("Unrecognized Command: '{}'", words.join(" ")));
            Err(match session.node.registry.suggest(&words).filter(|known| known != "get") {
                Some(known) => error.hint(format!("did you mean '{known}'?")),
                None => error.hint("list what can be asked for with: help get"),
            })
        }
    }
}

fn listing(session: &Session, call: &Invocation, mut entries: Vec<(String, String)>) -> CommandResult {
    if let Some(part) = call.positional("part") {
        entries.retain(|(name, _)| name.contains(part));
    }
    let entries = entries.into_iter().map(|(name, value)| {
        let value = visible(session, &name, value);
        (name, value)
    });
    if call.options.wants_json() {
        return Ok(Reply::Json(serde_json::Value::Object(entries.map(|(name, value)| (name, value.into())).collect())));
    }
    let mut table = Table::new(["Key", "Value"]).max_width(session.node.output_width());
    for (name, value) in entries {
        table.push([name, value]);
    }
    Ok(table.into())
}

/// A time zone by name, offset, `utc` or `local`.
pub(super) fn time_zone(name: &str) -> Result<TimeZone, CommandError> {
    match name.to_lowercase().as_str() {
        "utc" | "z" => return Ok(TimeZone::UTC),
        "local" => return Ok(TimeZone::system()),
        _ => {}
    }
    // An offset is read as a zone without a name.
    if name.starts_with(['+', '-'])
        && let Some((hours, minutes)) = name[1..].split_once(':')
        && let (Ok(hours), Ok(minutes)) = (hours.parse::<i32>(), minutes.parse::<i32>())
        && minutes < 60
    {
        let seconds = (hours * 60 + minutes) * if name.starts_with('-') { -60 } else { 60 };
        if let Ok(offset) = jiff::tz::Offset::from_seconds(seconds) {
            return Ok(TimeZone::fixed(offset));
        }
    }
    TimeZone::get(name).map_err(|_| {
        CommandError::parameter(format!("Unknown time zone '{name}'"))
            .hint("use a name such as Europe/Paris, 'utc', 'local', or an offset such as +02:00")
    })
}

fn get_datetime(session: &mut Session, call: &Invocation) -> CommandResult {
    let words: Vec<&str> = call.rest().iter().map(|word| word.text.as_str()).collect();
    // A leading plus is a word of its own.
    let (sign, words) = match words.split_first() {
        Some((&"+", rest)) => ("+", rest),
        _ => ("", words.as_slice()),
    };
    let Some((zone, expression)) = words.split_first() else {
        return Err(CommandError::structure("'get datetime' needs a time zone").hint("write: get datetime utc now()"));
    };
    let time = session.node.clock.now().to_zoned(time_zone(&format!("{sign}{zone}"))?);
    let shifted = shifted(time, &expression.join(" ")).ok_or_else(|| {
        CommandError::structure(format!("'{}' is not a time", expression.join(" ")))
            .hint("write now(), or now() - 3 days; units: seconds, minutes, hours, days, weeks, months, years")
    })?;
    Ok(Reply::Text(shifted.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()))
}

/// A time moved by `[now()] [+|-] N unit ...`.
fn shifted(time: Zoned, expression: &str) -> Option<Zoned> {
    let expression = expression.trim();
    let expression = expression.strip_prefix("now()").or_else(|| expression.strip_prefix("now")).unwrap_or(expression);
    let spaced = expression.replace('+', " + ").replace('-', " - ");
    let mut words = spaced.split_whitespace().peekable();
    let mut time = time;
    while let Some(first) = words.next() {
        let (sign, count) = match first {
            "+" => (1, words.next()?),
            "-" => (-1, words.next()?),
            count => (1, count),
        };
        let digits = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
        let (count, unit) = match count.split_at(digits) {
            (count, "") => (count, words.next()?),
            attached => attached,
        };
        let count: i64 = count.parse::<u32>().ok().map(i64::from)? * sign;
        let span = match unit.to_lowercase().strip_suffix('s').unwrap_or(&unit.to_lowercase()) {
            "second" | "s" => Span::new().try_seconds(count),
            "minute" => Span::new().try_minutes(count),
            "hour" | "h" => Span::new().try_hours(count),
            "day" | "d" => Span::new().try_days(count),
            "week" | "w" => Span::new().try_weeks(count),
            "month" | "m" => Span::new().try_months(count),
            "year" | "y" => Span::new().try_years(count),
            _ => return None,
        };
        time = time.checked_add(span.ok()?).ok()?;
    }
    Some(time)
}

fn get_time_zone(session: &mut Session, _: &Invocation) -> CommandResult {
    let zone = session.node.time_zone();
    let now = session.node.clock.now().to_zoned(zone.clone());
    let name = zone.iana_name().map_or_else(|| "fixed".to_owned(), str::to_owned);
    Ok(format!("{name} (UTC{})", now.strftime("%:z")).into())
}

fn set_time_zone(session: &mut Session, call: &Invocation) -> CommandResult {
    session.node.set_time_zone(time_zone(&call.expect_positional("zone")?.replace(' ', ""))?);
    Ok(Reply::Empty)
}

fn get_error(_: &mut Session, call: &Invocation) -> CommandResult {
    let code = call.expect_positional("code")?;
    let status =
        code.parse().map(Status).map_err(|_| CommandError::parameter(format!("'{code}' is not a status code")))?;
    Ok(format!("Error text: \"{}\"", status.text()).into())
}
