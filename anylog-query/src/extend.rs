//! `extend`: columns that each node fills from what it knows of itself.

use anylog_core::{CommandError, Node};

/// One entry: the column's name, and what it shows: `@table_name`, `@dbms_name`, `@ip`, `@port` or `+variable`.
pub(crate) type Extend = (String, String);

/// Reads `@table_name`, `+city.varchar as town`.
pub(crate) fn parse(text: &str) -> Result<Extend, CommandError> {
    let form = "write extend = (@table_name, @dbms_name, @ip, @port, +variable) with 'as name' behind any of them";
    let wrong = |reason: &str| CommandError::structure(format!("extend: '{text}' {reason}")).hint(form);
    let words: Vec<&str> = text.split_whitespace().collect();
    let (shown, title) = match words.as_slice() {
        [shown] => (*shown, None),
        [shown, word, title] if word.eq_ignore_ascii_case("as") => (*shown, Some((*title).to_lowercase())),
        _ => return Err(wrong("is not understood")),
    };
    // A declared type follows a point: `+city.varchar`. All values are texts.
    let name = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    if let Some(variable) = shown.strip_prefix('+') {
        let variable = name(variable);
        return Ok((title.unwrap_or_else(|| variable.to_lowercase()), format!("+{variable}")));
    }
    let Some(known) = shown.strip_prefix('@').map(name) else { return Err(wrong("needs the prefix @ or +")) };
    if !matches!(known.as_str(), "table_name" | "dbms_name" | "ip" | "port") {
        return Err(wrong("is not known"));
    }
    Ok((title.unwrap_or_else(|| known.clone()), format!("@{known}")))
}

/// By what else a statement may name the columns: `table_name` for `@table_name as tbl`.
pub(crate) fn origins(extend: &[Extend]) -> Vec<(String, String)> {
    let origin = |shown: &String| shown.trim_start_matches(['@', '+']).to_lowercase();
    extend.iter().map(|(name, shown)| (origin(shown), name.clone())).collect()
}

/// What an entry shows on this node; none for a variable that it does not have.
pub(crate) fn value(node: &Node, shown: &str, dbms: &str, table: &str) -> Option<String> {
    let address = node.address();
    let (ip, port) = address.rsplit_once(':').unwrap_or((&address, ""));
    Some(match shown {
        "@table_name" => table.to_owned(),
        "@dbms_name" => dbms.to_owned(),
        "@ip" => ip.to_owned(),
        "@port" => port.to_owned(),
        variable => return node.dictionary.get(variable.strip_prefix('+')?),
    })
}
