//! The texts in which an answer is shown.
//!
//! | format | rows | statistics |
//! |---|---|---|
//! | `json` | `{"Query":[{..},{..}]` | `,"Statistics":[{"Count": n,"Time":"HH:MM:SS","Nodes": n}]}` |
//! | `json:list` | `[{..},{..}` | the last member of the list: `,{"Statistics":[..]}]` |
//! | `json:output` | one object a line | one more line |
//! | `table` | titles, rules, rows; 25 rows at a time | an object below |
//!
//! JSON is one valid document for `json` and `json:list`, one a line for `json:output`. An answer without rows is
//! `{"Statistics":[{"Count": 0,..}]}`, or `{"reply" : "Empty data set"}` without statistics.

mod json;
mod table;

use std::time::Duration;

use anylog_core::CommandError;
use anylog_core::time::clock_text;

use crate::{Cell, QueryError};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object that holds the rows.
    #[default]
    Json,
    /// A JSON list.
    JsonList,
    /// A JSON object a line.
    JsonOutput,
    /// A table for a person.
    Table,
}

impl Format {
    /// The format of a word of the language.
    ///
    /// # Errors
    /// [`QueryError::Option`] that names the nearest format.
    pub fn parse(word: &str) -> Result<Self, QueryError> {
        const NAMES: [(&str, Format); 4] = [
            ("json", Format::Json),
            ("json:list", Format::JsonList),
            ("json:output", Format::JsonOutput),
            ("table", Format::Table),
        ];
        let lower = word.trim().to_lowercase();
        let found = NAMES.iter().find(|(name, _)| *name == lower);
        found.map(|(_, format)| *format).ok_or_else(|| QueryError::Option {
            reason: format!("format = {word} is not known"),
            hint: "use json, json:list, json:output or table".to_owned(),
        })
    }

    /// True when the text is JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        self != Format::Table
    }
}

/// The nodes of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// How many were asked.
    pub asked: u64,
    /// Those that gave no answer, each with the reason.
    pub missing: Vec<String>,
}

impl Nodes {
    /// All of so many answered.
    #[must_use]
    pub fn all(asked: u64) -> Self {
        Self { asked, missing: Vec::new() }
    }
}

/// Statistics of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Rows shown.
    pub count: u64,
    /// From the request to the last row.
    pub time: Duration,
    /// The nodes that were asked.
    pub nodes: Nodes,
}

impl Statistics {
    /// The fields; a node that is missing is always named (QRY-2).
    fn fields(&self) -> Vec<String> {
        let mut fields = vec![format!(r#""Count": {}"#, self.count), format!(r#""Time":"{}""#, clock_text(self.time))];
        let Nodes { asked, missing } = &self.nodes;
        if missing.is_empty() {
            fields.push(format!(r#""Nodes": {asked}"#));
        } else {
            let answered = asked.saturating_sub(missing.len() as u64);
            fields.push(format!(r#""Target Nodes": {asked}"#));
            fields.push(format!(r#""Participating Nodes": {answered}"#));
            let list: Vec<String> = missing.iter().map(|text| crate::cell::json_string(text)).collect();
            fields.push(format!(r#""Missing Nodes":[{}]"#, list.join(",")));
        }
        fields
    }

    fn compact(&self) -> String {
        format!(r#""Statistics":[{{{}}}]"#, self.fields().join(","))
    }

    fn indented(&self) -> String {
        let margin = format!(",\n{}", " ".repeat(16));
        format!("\"Statistics\":[{{{}}}]", self.fields().join(&margin))
    }
}

/// Writes an answer piece by piece.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    statistics: bool,
    indented: bool,
    // The names of the columns in JSON quotes.
    quoted: Vec<String>,
    count: u64,
    table: table::Pages,
}

impl Writer {
    /// A writer of rows with these column names. `indented` is the form of `json` for a terminal: a field a line.
    #[must_use]
    pub fn new(format: Format, statistics: bool, indented: bool, names: Vec<String>) -> Self {
        let quoted = names.iter().map(|name| crate::cell::json_string(name)).collect();
        Self { format, statistics, indented, table: table::Pages::new(names), quoted, count: 0 }
    }

    /// Rows written so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The text of more rows; may be empty while a table collects a page.
    pub fn rows(&mut self, rows: Vec<Vec<Cell>>) -> String {
        let mut out = String::new();
        for row in rows {
            match self.format {
                Format::Table => self.table.row(row, &mut out),
                Format::Json => {
                    out.push_str(match (self.count, self.indented) {
                        (0, _) => "{\"Query\":[",
                        (_, false) => ",",
                        (_, true) => ",\n          ",
                    });
                    let between = if self.indented { ",\n          " } else { "," };
                    json::object(&self.quoted, &row, between, &mut out);
                }
                Format::JsonList => {
                    out.push_str(if self.count == 0 { "[" } else { ",\n" });
                    json::object(&self.quoted, &row, ",", &mut out);
                }
                Format::JsonOutput => {
                    json::object(&self.quoted, &row, ",", &mut out);
                    out.push('\n');
                }
            }
            self.count += 1;
        }
        out
    }

    /// The text after the last row. An answer that lacks a node says so, whatever was asked for.
    pub fn finish(&mut self, time: Duration, nodes: Nodes) -> String {
        let wanted = self.statistics || !nodes.missing.is_empty();
        let statistics = Statistics { count: self.count, time, nodes };
        let object = |text: String| format!("{{{text}}}");
        match (self.count, wanted, self.format) {
            (0, true, _) => object(statistics.compact()),
            (0, false, _) => "{\"reply\" : \"Empty data set\"}".to_owned(),
            (_, true, Format::Json) if self.indented => format!("],\n{}}}", statistics.indented()),
            (_, true, Format::Json) => format!("],\n{}}}", statistics.compact()),
            (_, false, Format::Json) => "]}".to_owned(),
            (_, true, Format::JsonList) => format!(",\n{}]", object(statistics.compact())),
            (_, false, Format::JsonList) => "]".to_owned(),
            (_, true, Format::JsonOutput) => object(statistics.compact()) + "\n",
            (_, false, Format::JsonOutput) => String::new(),
            (_, with_statistics, Format::Table) => {
                let mut out = String::new();
                self.table.flush(&mut out);
                if with_statistics {
                    out.push('\n');
                    out.push_str(&object(statistics.indented()));
                }
                out
            }
        }
    }

    /// The text after the last row of an answer that broke off: it is no longer an answer, and says why.
    pub fn broken(&mut self, error: &CommandError) -> String {
        let text = |text: &str| crate::cell::json_string(text);
        let object = format!(
            r#""Error":[{{"err_code":{},"err_text":{},"local_msg":{}}}]"#,
            error.status.0,
            text(error.status.text()),
            text(&error.to_string())
        );
        match (self.count, self.format) {
            (0, _) | (_, Format::JsonOutput) => format!("{{{object}}}\n"),
            (_, Format::Json) => format!("],\n{object}}}"),
            (_, Format::JsonList) => format!(",\n{{{object}}}]"),
            (_, Format::Table) => {
                let mut out = String::new();
                self.table.flush(&mut out);
                out + &format!("\n{{{object}}}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_answer_says_why() {
        let error = CommandError::new(anylog_core::Status::NETWORK, "10.0.0.2:1 broke \"off\"");
        for format in [Format::Json, Format::JsonList, Format::JsonOutput, Format::Table] {
            let mut writer = Writer::new(format, true, false, names());
            let rows = writer.rows(vec![row(0)]);
            let text = rows + &writer.broken(&error);
            assert!(text.contains("\"Error\":[{") && text.contains("broke \\\"off\\\""), "{text}");
            let documents = match format {
                Format::JsonOutput => text.lines().collect(),
                Format::Table => vec![],
                _ => vec![text.as_str()],
            };
            for document in documents {
                serde_json::from_str::<serde_json::Value>(document).expect(document);
            }
        }
    }

    fn names() -> Vec<String> {
        ["row_id", "insert_timestamp", "tsd_name", "tsd_id", "timestamp", "value", "device", "count", "ok"]
            .map(str::to_owned)
            .to_vec()
    }

    fn row(id: i64) -> Vec<Cell> {
        let text = |text: &str| Cell::Text(text.into());
        vec![
            Cell::Int(id),
            text("2026-11-23 05:22:40.572981"),
            text("209"),
            Cell::Int(1),
            text("2026-11-20 01:02:03.456"),
            Cell::Float(3.25),
            text("d1"),
            Cell::Int(7),
            Cell::Bool(true),
        ]
    }

    fn written(format: Format, statistics: bool, indented: bool) -> Vec<String> {
        let mut writer = Writer::new(format, statistics, indented, names());
        vec![writer.rows(vec![row(1)]), writer.rows(vec![row(2)]), writer.finish(Duration::ZERO, Nodes::all(1))]
    }

    const FIRST: &str = r#"{"row_id":1,"insert_timestamp":"2026-11-23 05:22:40.572981","tsd_name":"209","tsd_id":1,"timestamp":"2026-11-20 01:02:03.456","value":3.25,"device":"d1","count":7,"ok":true}"#;

    fn second() -> String {
        FIRST.replace("\"row_id\":1", "\"row_id\":2")
    }

    #[test]
    fn json_is_as_observed() {
        let second = second();
        assert_eq!(
            written(Format::Json, false, false),
            [format!("{{\"Query\":[{FIRST}"), format!(",{second}"), "]}".into()]
        );
        let last = "],\n\"Statistics\":[{\"Count\": 2,\"Time\":\"00:00:00\",\"Nodes\": 1}]}";
        assert_eq!(written(Format::Json, true, false)[2], last);
        assert_eq!(written(Format::JsonList, false, false), [format!("[{FIRST}"), format!(",\n{second}"), "]".into()]);
        assert_eq!(
            written(Format::JsonOutput, false, false),
            [format!("{FIRST}\n"), format!("{second}\n"), String::new()]
        );
    }

    #[test]
    fn a_terminal_sees_a_field_a_line() {
        let all = written(Format::Json, true, true).concat();
        assert!(all.starts_with("{\"Query\":[{\"row_id\":1,\n          \"insert_timestamp\":"), "{all}");
        let end = "          \"ok\":true}],\n\"Statistics\":[{\"Count\": 2,\n                \"Time\":\"00:00:00\",\n                \"Nodes\": 1}]}";
        assert!(all.ends_with(end), "{all}");
    }

    #[test]
    fn tables_are_as_observed() {
        let expected = "\n\
            row_id insert_timestamp           tsd_name tsd_id timestamp               value device count ok\n\
            ------ -------------------------- -------- ------ ----------------------- ----- ------ ----- ---- \n\
            \x20    1 2026-11-23 05:22:40.572981      209      1 2026-11-20 01:02:03.456  3.25 d1         7 true\n\
            \x20    2 2026-11-23 05:22:40.572981      209      1 2026-11-20 01:02:03.456  3.25 d1         7 true\n\
            \n{\"Statistics\":[{\"Count\": 2,\n                \"Time\":\"00:00:00\",\n                \"Nodes\": 1}]}";
        assert_eq!(written(Format::Table, true, false).concat(), expected);
    }

    #[test]
    fn tables_come_in_pages() {
        let mut writer = Writer::new(Format::Table, false, false, vec!["n".into()]);
        let page = writer.rows((0..26).map(|n| vec![Cell::Int(n)]).collect());
        assert_eq!(page.lines().count(), 1 + 2 + 25);
        assert_eq!(writer.finish(Duration::ZERO, Nodes::all(1)), "\nn\n-- \n25\n");
    }

    #[test]
    fn every_json_answer_is_valid() {
        for indented in [false, true] {
            for statistics in [false, true] {
                for rows in [0, 1, 3] {
                    for format in [Format::Json, Format::JsonList, Format::JsonOutput] {
                        let mut writer = Writer::new(format, statistics, indented, names());
                        let text = writer.rows((0..rows).map(row).collect())
                            + &writer.finish(Duration::from_secs(61), Nodes::all(1));
                        let documents =
                            if format == Format::JsonOutput { text.lines().collect() } else { vec![text.as_str()] };
                        for document in documents {
                            serde_json::from_str::<serde_json::Value>(document).expect(document);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn empty_answers_say_so() {
        let empty =
            |statistics| Writer::new(Format::Json, statistics, false, names()).finish(Duration::ZERO, Nodes::all(1));
        assert_eq!(empty(false), r#"{"reply" : "Empty data set"}"#);
        assert_eq!(empty(true), r#"{"Statistics":[{"Count": 0,"Time":"00:00:00","Nodes": 1}]}"#);
    }
}
