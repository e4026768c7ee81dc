//! Normalised names of databases, tables, columns and topics.

/// The stored form of a name: lower case; blank `-` `.` `/` `\` `:` become `_`; any other character below U+0100
/// that is neither letter, digit nor `_` becomes its `0xNN` text; a name of digits only gets a leading `_`.
///
/// ```
/// use anylog_core::names::normalize;
/// assert_eq!(normalize("Smart City/Pump-1"), "smart_city_pump_1");
/// assert_eq!(normalize("40001"), "_40001");
/// assert_eq!(normalize("a%"), "a0x25");
/// ```
#[must_use]
pub fn normalize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.trim().chars() {
        match c {
            ' ' | '-' | '.' | '/' | '\\' | ':' | '_' => out.push('_'),
            c if c.is_alphanumeric() => out.extend(c.to_lowercase()),
            c if u32::from(c) < 0x100 => out.push_str(&format!("0x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    if !out.is_empty() && out.bytes().all(|b| b.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// Text of a reference suffix `.name`: blanks become `_`, lower case.
#[must_use]
pub fn underscore(text: &str) -> String {
    text.to_lowercase().replace(' ', "_")
}
