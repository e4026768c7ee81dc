//! Time zones by the names of the language.

use jiff::tz::TimeZone;

/// The zone of a name: `utc`, `local` (the node's), `pt` `mt` `ct` `et`, or a name such as `Europe/Berlin`.
///
/// # Errors
/// The name, when there is no such zone.
pub(crate) fn parse(name: &str, local: &TimeZone) -> Result<TimeZone, String> {
    let known = match name.trim().to_lowercase().as_str() {
        "utc" => return Ok(TimeZone::UTC),
        "" | "local" => return Ok(local.clone()),
        "pt" => "America/Los_Angeles",
        "mt" => "America/Denver",
        "ct" => "America/Chicago",
        "et" => "America/New_York",
        _ => name.trim(),
    };
    TimeZone::get(known).map_err(|_| name.to_owned())
}
