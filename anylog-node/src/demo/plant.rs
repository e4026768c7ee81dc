//! Four pumps: plausible readings, the same at every run.

use anylog_core::time;
use jiff::Timestamp;

/// The topic that all pumps publish to.
pub(super) const TOPIC: &str = "plant/pumps";

/// How many pumps there are.
pub(super) const PUMPS: u32 = 4;

/// Readings of each pump in a second.
pub(super) const READINGS_PER_SECOND: u32 = 25;

/// The command that maps their messages to rows.
pub(super) const MAPPING: &str = r#"run mqtt client where broker=local and port=!port and log=false and topic=(name="plant/pumps" and dbms=test and table=pumps and column.timestamp.timestamp="bring [timestamp]" and column.device=(type=str and value="bring [device]") and column.temperature=(type=float and value="bring [temperature]") and column.pressure=(type=float and value="bring [pressure]") and column.vibration=(type=float and value="bring [vibration]"))"#;

/// The message of one pump's reading number `n`.
pub(super) fn message(pump: u32, n: u32, now: Timestamp) -> String {
    let seconds = f64::from(n) / f64::from(READINGS_PER_SECOND);
    let phase = f64::from(pump);
    // The load swings slowly; pressure follows it at once, the bearing's temperature late.
    let load = (seconds / 30.0 + phase).sin();
    let temperature = 58.0 + 3.0 * phase + 6.0 * (seconds / 30.0 + phase - 0.8).sin() + 0.2 * noise(pump, n);
    let pressure = 4.2 + 0.6 * load + 0.03 * noise(pump, n + 1);
    // The bearing of the third pump wears out.
    let wear = if pump == 3 { (seconds / 120.0).min(4.0) } else { 0.0 };
    let vibration = 1.1 + 0.4 * load.abs() + wear + 0.1 * noise(pump, n + 2).abs();
    format!(
        r#"{{"timestamp": "{}Z", "device": "pump-{pump}", "temperature": {temperature:.2}, "pressure": {pressure:.3}, "vibration": {vibration:.3}}}"#,
        time::stored(now).replacen(' ', "T", 1)
    )
}

/// Between -1 and 1, without pattern, the same for the same reading.
fn noise(pump: u32, n: u32) -> f64 {
    let mut x = pump.wrapping_mul(0x9e37_79b9) ^ n.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    f64::from(x) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_json_within_plausible_bounds() {
        for pump in 1..=PUMPS {
            for n in (0..50_000).step_by(997) {
                let reading: serde_json::Value =
                    serde_json::from_str(&message(pump, n, Timestamp::UNIX_EPOCH)).unwrap();
                let value = |name: &str| reading[name].as_f64().unwrap();
                assert!((40.0..90.0).contains(&value("temperature")), "{reading}");
                assert!((3.0..6.0).contains(&value("pressure")), "{reading}");
                assert!((0.5..8.0).contains(&value("vibration")), "{reading}");
                assert_eq!(reading["timestamp"], "1970-01-01T00:00:00.000000Z");
            }
        }
    }
}
