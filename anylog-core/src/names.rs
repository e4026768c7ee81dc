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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            (" Lobby.Temp ", "lobby_temp"),
            ("a/b\\c:d-e", "a_b_c_d_e"),
            ("Größe", "größe"),
            ("100", "_100"),
            ("a#b", "a0x23b"),
            ("", ""),
        ] {
            assert_eq!(normalize(name), expected, "{name}");
        }
        assert_eq!(underscore("Mountain View"), "mountain_view");
    }

    proptest::proptest! {
        #[test]
        fn a_normal_name_stays(name in "\\PC{0,30}") {
            let once = normalize(&name);
            proptest::prop_assert_eq!(normalize(&once), once);
        }
    }
}
