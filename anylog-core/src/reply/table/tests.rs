use proptest::prelude::*;

use super::*;

/// The lines of a sample as a table has them: with a line end before the first.
fn sample(lines: &[&str]) -> String {
    lines.iter().fold("\r\n".to_owned(), |text, line| text + line + "\r\n")
}

#[test]
fn connections() {
    let mut table = Table::new(["Type", "External Address", "Internal Address", "Bind Address"]);
    table.push(["TCP", "127.0.0.1:21148", "127.0.0.1:21148", "127.0.0.1:21148"]);
    table.push(["REST", "127.0.0.1:21149", "127.0.0.1:21149", "127.0.0.1:21149"]);
    table.push(["Messaging", "127.0.0.1:21150", "127.0.0.1:21150", "127.0.0.1:21150"]);
    assert_eq!(
        table.to_string(),
        sample(&[
            "Type      External Address Internal Address Bind Address    ",
            "---------|----------------|----------------|---------------|",
            "TCP      |127.0.0.1:21148 |127.0.0.1:21148 |127.0.0.1:21148|",
            "REST     |127.0.0.1:21149 |127.0.0.1:21149 |127.0.0.1:21149|",
            "Messaging|127.0.0.1:21150 |127.0.0.1:21150 |127.0.0.1:21150|",
        ])
    );
}

#[test]
fn databases_with_a_title() {
    let mut table = Table::new(["Logical DBMS", "Database Type", "Owner", "IP:Port", "Configuration", "Storage"])
        .title("Active DBMS Connections");
    table.push(["almgm", "sqlite", "system", "Local", "Autocommit On", "MEMORY"]);
    assert_eq!(
        table.to_string(),
        sample(&[
            "Active DBMS Connections",
            "Logical DBMS Database Type Owner  IP:Port Configuration Storage ",
            "------------|-------------|------|-------|-------------|-------|",
            "almgm       |sqlite       |system|Local  |Autocommit On|MEMORY |",
        ])
    );
}

#[test]
fn processes_with_an_indent() {
    let mut table = Table::new(["Process", "Status", "Details"]).indent(4);
    table.push(["TCP", "Running", "Listening on: 127.0.0.1:21148, Threads Pool: 6"]);
    table.push(["Blockchain Sync", "Not declared", ""]);
    assert_eq!(
        table.to_string(),
        sample(&[
            "    Process         Status       Details                                        ",
            "    ---------------|------------|----------------------------------------------|",
            "    TCP            |Running     |Listening on: 127.0.0.1:21148, Threads Pool: 6|",
            "    Blockchain Sync|Not declared|                                              |",
        ])
    );
}

#[test]
fn thresholds_with_numbers() {
    let mut table = Table::new(["Threshold", "Value", "Streamer"]).title("Flush Thresholds");
    table.push(["Threshold Time", "60", "Running"]);
    table.push(["Threshold Volume", "10,240", ""]);
    table.push(["Write Immediate", "True", ""]);
    table.push(["Buffered Rows", "3", ""]);
    assert_eq!(
        table.to_string(),
        sample(&[
            "Flush Thresholds",
            "Threshold        Value  Streamer ",
            "----------------|------|--------|",
            "Threshold Time  |    60|Running |",
            "Threshold Volume|10,240|        |",
            "Write Immediate |True  |        |",
            "Buffered Rows   |     3|        |",
        ])
    );
}

#[test]
fn statistics_with_two_heading_lines() {
    let mut table = Table::new([
        "\nDBMS-Table",
        "Put\nfiles",
        "Put\nRows",
        " ",
        "Streaming\nCalls",
        "Streaming\nRows",
        "Cached\nRows",
        "Counter\nImmediate",
        "Threshold\nVolume(KB)",
        "Buffer\nFill(%)",
        "Threshold\nTime(sec)",
        "Time Left\n(Sec)",
        "Last Process\nHH:MM:SS",
    ])
    .title("\r\nStatistics");
    table.push(["peerdb.t1", "0", "0", "", "1", "1", "0", "0", "10", "0.0", "60", "60", "00:01:16"]);
    assert_eq!(
        table.to_string(),
        sample(&[
            "",
            "Statistics",
            "            Put    Put     Streaming Streaming Cached Counter    Threshold   Buffer   Threshold  Time Left Last Process ",
            "DBMS-Table  files  Rows    Calls     Rows      Rows   Immediate  Volume(KB)  Fill(%)  Time(sec)  (Sec)     HH:MM:SS     ",
            "-----------|------|-----|-|---------|---------|------|----------|-----------|--------|----------|---------|------------|",
            "peerdb.t1  |     0|    0| |        1|        1|     0|         0|         10|     0.0|        60|       60|00:01:16    |",
        ])
    );
}

#[test]
fn long_cells_wrap_and_lines_end_is_no_cell() {
    let mut table = Table::new(["A", "B"]).max_width(4);
    table.push(["abcdefghij", "x\ny\tz"]);
    assert_eq!(table.to_string(), sample(&["A    B    ", "----|----|", "abcd|x y |", "efgh|z   |", "ij  |    |"]));
    assert_eq!(table.len(), 1);
    assert_eq!(table.to_json(), serde_json::json!([{"A": "abcdefghij", "B": "x y z"}]));
}

proptest! {
    #[test]
    fn columns_are_found_by_the_rule_line(
        headings in prop::collection::vec("[A-Za-z][A-Za-z ]{0,12}", 1..6),
        rows in prop::collection::vec(prop::collection::vec("[a-zA-Zé0-9:.,_ -]{0,30}", 0..7), 0..6),
        indent in 0_usize..6,
    ) {
        let mut table = Table::new(headings.clone()).indent(indent);
        for row in &rows {
            table.push(row.clone());
        }
        let text = table.to_string();
        let lines: Vec<Vec<char>> = text.split("\r\n").map(|line| line.chars().collect()).collect();
        let ends: Vec<usize> = (0..lines[2].len()).filter(|at| lines[2][*at] == '|').collect();
        prop_assert_eq!(ends.len(), headings.len());
        for (line, row) in lines[3..].iter().zip(&rows) {
            let mut start = indent;
            for (column, end) in ends.iter().enumerate() {
                prop_assert_eq!(line[*end], '|');
                let cell: String = line[start..*end].iter().collect();
                let expected = row.get(column).map_or("", String::as_str);
                prop_assert_eq!(cell.trim(), expected.trim());
                start = end + 1;
            }
        }
    }

    #[test]
    fn no_cell_panics(cells in prop::collection::vec("\\PC{0,40}", 0..6), width in 0_usize..50) {
        let mut table = Table::new(["a", "b\nc", ""]).max_width(width);
        table.push(cells);
        drop(table.to_string());
    }
}
