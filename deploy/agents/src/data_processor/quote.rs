//! Finds the quote that is opened and never closed, which the CSV reader takes for a long field.

use std::fmt;

/// Where such a quote stands: its byte, and its line from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenQuote {
    pub(super) byte: u64,
    pub(super) line: u64,
}

impl fmt::Display for OpenQuote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the quote that opens on line {} is never closed: what follows it is left out",
            self.line
        )
    }
}

enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a quote that is meant.
    QuoteInQuoted,
}

/// Follows `text` as the reader does: a quote opens only at the start of a field, two stand for one.
pub(super) fn unclosed(text: &str, delimiter: u8) -> Option<OpenQuote> {
    let mut state = State::FieldStart;
    let mut line = 1;
    let mut opened = OpenQuote { byte: 0, line };
    for (byte, c) in (0..).zip(text.bytes()) {
        state = match (state, c) {
            (State::FieldStart, b'"') => {
                opened = OpenQuote { byte, line };
                State::Quoted
            }
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) | (State::QuoteInQuoted, b'"') => State::Quoted,
            (_, b'\n' | b'\r') => State::FieldStart,
            (_, c) if c == delimiter => State::FieldStart,
            _ => State::Plain,
        };
        if c == b'\n' {
            line += 1;
        }
    }
    matches!(state, State::Quoted).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quote_that_stays_open_counts() {
        for closed in [
            "",
            "a,b\n",
            "\"a\"",
            "\"a\"\"\n\",b",
            "a\"b,c",
            "\"a\"b\",c",
            "\"\"",
        ] {
            assert_eq!(unclosed(closed, b','), None, "{closed}");
        }
        for (open, byte, line) in [
            ("\"", 0, 1),
            ("a,\"b", 2, 1),
            ("\"a\n\"\nb,\"c\"\"\nd", 7, 3),
            ("\"a\",\"b,\n\n", 4, 1),
        ] {
            assert_eq!(
                unclosed(open, b','),
                Some(OpenQuote { byte, line }),
                "{open}"
            );
        }
        // Another delimiter, another start of a field.
        assert_eq!(unclosed("a,\"b", b';'), None);
    }
}
