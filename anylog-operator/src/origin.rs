//! Whose row a row is: what the quarantine says of where it came from.

/// Where rows that are stored together came from.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    text: String,
    starts: Vec<usize>,
}

impl Origin {
    /// Rows of one sender.
    pub(crate) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), starts: Vec::new() }
    }

    /// Rows of several requests or messages, the first rows of which are `starts`.
    pub(crate) fn of_several(text: &str, starts: Vec<usize>) -> Self {
        Self { text: text.to_owned(), starts }
    }

    /// `mqtt topic a/b`, `rest 10.0.0.7`.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The number that a row has in its own request or message, from 0.
    pub(crate) fn position(&self, row: usize) -> usize {
        let begun = self.starts.partition_point(|start| *start <= row);
        let start = begun.checked_sub(1).and_then(|last| self.starts.get(last));
        row - start.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_in_their_own_request() {
        let one = Origin::of("rest 10.0.0.7");
        assert_eq!((one.text(), one.position(0), one.position(7)), ("rest 10.0.0.7", 0, 7));
        let several = Origin::of_several("mqtt topic a", vec![0, 3, 3, 5]);
        let positions: Vec<usize> = (0..8).map(|row| several.position(row)).collect();
        assert_eq!(positions, [0, 1, 2, 0, 1, 0, 1, 2]);
    }
}
