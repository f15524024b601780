//! The screen of a terminal, taken for a while and given back whatever ends that while.
//!
//! No key is read, so the terminal stays as it is: Ctrl-C, Ctrl-Z and a closed window are signals as ever. What is
//! drawn is one write between the marks of a synchronised update, over what stood there: nothing is cleared first, and
//! nothing flickers.

use crate::screen::Screen;
use crate::top::draw::Line;
use rustix::process::{Signal, getpid, kill_process};
use std::io::{self, Write};

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal whose screen is ours.
pub struct Terminal(Screen);

impl Terminal {
    /// Takes the screen.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn take(screen: Screen) -> io::Result<Self> {
        let terminal = Self(screen);
        write(ENTER)?;
        Ok(terminal)
    }

    /// Draws, as many lines as there is room for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let (rows, _) = size();
        let mut text = String::from("\x1b[?2026h\x1b[H");
        for (n, line) in lines.iter().take(rows).enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&painted(&self.0, line));
            // What stood in the rest of the line.
            text.push_str("\x1b[K");
        }
        // And below; then the update is whole.
        text.push_str("\x1b[J\x1b[?2026l");
        write(&text)
    }

    /// Gives the screen back, stops as the shell asked, and takes it again afterwards.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pause(&mut self) -> io::Result<()> {
        write(LEAVE)?;
        let _ = kill_process(getpid(), Signal::STOP);
        write(ENTER)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write(LEAVE);
    }
}

/// Rows and columns; those of a usual terminal where they are not known.
pub fn size() -> (usize, usize) {
    let (rows, columns) = console::Term::stdout().size_checked().unwrap_or((24, 80));
    (rows.max(1).into(), columns.max(1).into())
}

/// A line as it is painted.
pub fn painted(screen: &Screen, line: &Line) -> String {
    match line.paint {
        Some(paint) => screen.paint(paint, &line.text),
        None => line.text.clone(),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
