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
        }
    }

    pub fn stderr() -> Self {
        let stderr = io::stderr();
        let colour = wants_colour(stderr.is_terminal());
        Self {
            out: Box::new(stderr),
            colour,
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

    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// The last words of a command that failed; nobody is left to tell when they cannot be written.
    pub fn error(&mut self, error: &anyhow::Error) {
        let kind = self.paint(Paint::Bad, "error");
        let _ = self.line(format!("{kind}: {error:#}"));
    }
}

fn wants_colour(terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    terminal && !refused && !dumb
}
