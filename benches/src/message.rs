//! The messages that are published: 53 bytes as the operator script maps them, or longer by an attribute that no mapping reads.

/// Bytes of a message without padding.
pub const LEN: usize = 53;

const EMPTY: &[u8; LEN] = br#"{"timestamp": "2024-01-01T00:00:00Z", "value": 100.0}"#;
const DATE_AT: usize = 15;
const VALUE_AT: usize = 47;

/// Days that the device times of a run may cover; then they start again.
const DAYS: u64 = 366;

/// Puts message `n` at the end of `out`: device time `n` seconds after the start of 2024, a value with one decimal.
pub fn append(out: &mut Vec<u8>, n: u64, len: usize) {
    let start = out.len();
    out.extend_from_slice(EMPTY);
    let text = &mut out[start..];
    let (month, day) = month_and_day(n / 86_400 % DAYS);
    two_digits(&mut text[DATE_AT + 5..], month);
    two_digits(&mut text[DATE_AT + 8..], day);
    two_digits(&mut text[DATE_AT + 11..], n / 3600 % 24);
    two_digits(&mut text[DATE_AT + 14..], n / 60 % 60);
    two_digits(&mut text[DATE_AT + 17..], n % 60);
    let tenths = n % 9000 + 1000;
    text[VALUE_AT] = digit(tenths / 1000);
    two_digits(&mut text[VALUE_AT + 1..], tenths / 10 % 100);
    text[VALUE_AT + 4] = digit(tenths % 10);
    if len > LEN {
        out.pop();
        out.extend_from_slice(br#", "pad": ""#);
        out.resize((start + len).saturating_sub(2).max(out.len()), b'x');
        out.extend_from_slice(br#""}"#);
    }
}

/// The device time of message `n` as it is stored.
pub fn stored_time(out: &mut String, n: u64) {
    let mut text = Vec::with_capacity(LEN);
    append(&mut text, n, LEN);
    out.clear();
    out.extend(text[DATE_AT..DATE_AT + 19].iter().map(|byte| if *byte == b'T' { ' ' } else { char::from(*byte) }));
    out.push_str(".000000");
}

/// The value of message `n`.
#[must_use]
pub fn value(n: u64) -> f64 {
    f64::from(u16::try_from(n % 9000 + 1000).unwrap_or_default()) / 10.0
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

fn two_digits(out: &mut [u8], value: u64) {
    out[0] = digit(value / 10);
    out[1] = digit(value);
}

/// Of a day of a leap year, from zero.
fn month_and_day(mut day: u64) -> (u64, u64) {
    for (month, days) in (1..).zip([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < days {
            return (month, day + 1);
        }
        day -= days;
    }
    (12, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_of_the_asked_length() {
        for n in [0, 59, 60, 86_399, 86_400, 31 * 86_400, 123_456_789] {
            for len in [LEN, 70, 256] {
                let mut text = vec![b'#'];
                append(&mut text, n, len);
                assert_eq!(text.len(), len + 1);
                let message: serde_json::Value = serde_json::from_slice(&text[1..]).expect("JSON");
                assert_eq!(message["value"].as_f64(), Some(value(n)));
                let mut stored = String::new();
                stored_time(&mut stored, n);
                let sent: jiff::Timestamp = message["timestamp"].as_str().expect("a text").parse().expect("a time");
                assert_eq!(stored, sent.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string());
            }
        }
    }
}
