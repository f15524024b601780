//! Progress of long work, drawn on a terminal alone: where the standard error is a file, nothing moves in it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Between two pictures of what goes on.
const TICK: Duration = Duration::from_millis(100);

/// A line that says how far something is; gone when it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Work of `total` pieces; nothing is drawn when `quiet`.
    pub fn bar(total: u64, quiet: bool) -> Self {
        let style = "{bar:30} {pos}/{len} {msg} {elapsed}";
        Self::drawn(
            ProgressBar::with_draw_target(Some(total), target(quiet)),
            style,
        )
    }

    /// Work of which nobody knows how long it takes.
    pub fn spinner(what: &str, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, target(quiet));
        bar.set_message(what.to_owned());
        Self::drawn(bar, "{spinner} {msg} {elapsed}")
    }

    fn drawn(bar: ProgressBar, style: &str) -> Self {
        // A template that is none is the default one.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// How many pieces are done, and what is to be said of them.
    pub fn set(&self, done: u64, what: String) {
        self.0.set_position(done);
        self.0.set_message(what);
    }

    /// Another word for what is waited for.
    pub fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// Whether nobody sees it.
    pub fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet {
        ProgressDrawTarget::hidden()
    } else {
        // Hidden by itself where the standard error is no terminal.
        ProgressDrawTarget::stderr()
    }
}
