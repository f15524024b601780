//! What people see: plain text, coloured on a terminal only.
//!
//! Everything goes through `io::Write`, never through `println!`, which panics when the reader of a
//! pipe has gone.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// A stream that people read.
pub struct Screen {
    out: Box<dyn Write + Send>,
    colour: bool,
    outlasting: bool,
}

/// How a word is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Bold,
    Dim,
    Good,
    Bad,
    Odd,
}

impl Screen {
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let colour = wants_colour(stdout.is_terminal());
        Self {
            out: Box::new(stdout),
            colour,
            outlasting: false,
        }
    }

    pub fn stderr() -> Self {
        let stderr = io::stderr();
        let colour = wants_colour(stderr.is_terminal());
        Self {
            out: Box::new(stderr),
            colour,
            outlasting: false,
        }
    }

    /// Takes what is said and shows nobody.
    pub fn silent() -> Self {
        Self {
            out: Box::new(io::sink()),
            colour: false,
            outlasting: false,
        }
    }

    /// The text in a colour, or as it is.
    pub fn paint(&self, paint: Paint, text: impl Display) -> String {
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Odd => "33",
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// The same, for a command whose work goes on when nobody reads what it says any more.
    #[must_use]
    pub fn outlasting_its_reader(mut self) -> Self {
        self.outlasting = true;
        self
    }

    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        self.text(&format!("{text}\n"))
    }

    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let written = self.out.write_all(text.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Err(_) if self.outlasting => {
                self.out = Box::new(io::sink());
                Ok(())
            }
            other => other,
        }
    }

    /// The last words of a command that failed; nobody is left to tell when they cannot be written.
    pub fn error(&mut self, error: &anyhow::Error) {
        let kind = self.paint(Paint::Bad, "error");
        let error = format!("{error:#}");
        let lines: Vec<String> = error.lines().map(plain).collect();
        let _ = self.line(format!("{kind}: {}", lines.join("\n")));
    }
}

/// A text from elsewhere as it may stand on a terminal: nothing in it moves the cursor, changes colours
/// or turns the direction of what follows (Unicode's bidirectional controls).
pub fn plain(text: &str) -> String {
    text.replace(steers, " ")
}

/// JSON for programs, which a terminal may show all the same: what steers it is escaped.
pub fn json(value: &serde_json::Value) -> serde_json::Result<String> {
    Ok(escaped(&serde_json::to_string_pretty(value)?))
}

/// The same on one line.
pub fn json_line(value: &serde_json::Value) -> String {
    escaped(&value.to_string())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside strings nothing but line ends steers, and within them those are escaped already.
        if steers(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn wants_colour(terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    terminal && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEERING: &str = "a\u{1b}[31m\u{9b}2J\r\u{7f}\u{202e}b";

    #[test]
    fn what_steers_a_terminal_does_not_reach_it() {
        assert_eq!(plain(STEERING), "a [31m 2J   b");
        let text = json(&serde_json::json!({ STEERING: [STEERING] })).unwrap();
        assert!(!text.contains(|c| steers(c) && c != '\n'), "{text:?}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read[STEERING][0], STEERING, "a program reads what was sent");
    }
}
