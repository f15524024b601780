//! The access log: a line of JSON for every request, off unless it is asked for.
//!
//! ```text
//! workers ─ bounded queue ▶ writer (a thread of its own)
//! ```
//!
//! A worker never waits for a disk: when the queue is full, the line is dropped and counted. What may be a
//! secret is in no line: no query, no header but the two that name a request, no body.

use crate::config::AccessLog;
use prometheus::IntCounter;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Lines that wait for the writer: a second's worth of a busy gateway, some 3 MB.
const QUEUE: usize = 8192;
/// Longest value that is taken over from a header, in bytes.
const MAX_ID: usize = 128;

/// The way to the writer.
#[derive(Debug)]
pub(crate) struct Access {
    lines: SyncSender<Message>,
    dropped: IntCounter,
}

#[derive(Debug)]
enum Message {
    Line(String),
    Reopen,
}

/// One request, as the log tells it.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    pub time: String,
    pub client: String,
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub service: Option<&'a str>,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    pub duration_us: u64,
    /// Until the head of the service's answer; none when no service was asked.
    pub upstream_us: Option<u64>,
    /// What the filters decided: `pass`, `answer` or `failed`; none when there were none.
    pub decision: Option<&'a str>,
    /// Why they answered: the last part of the problem's type.
    pub reason: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
}

impl Access {
    /// Opens the log and starts its writer, which ends with the last sender.
    pub(crate) fn open(log: AccessLog, dropped: IntCounter) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let out = Out::open(&log)?;
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&queue, &log, out))?;
        Ok(Self { lines, dropped })
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let Ok(text) = serde_json::to_string(line) else {
            return;
        };
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(text)) {
            self.dropped.inc();
        }
    }

    /// Opens the file anew, for whoever has moved it away.
    pub(crate) fn reopen(&self) {
        // With a full queue the file stays open until the next time.
        let _ = self.lines.try_send(Message::Reopen);
    }
}

/// The time of a line.
pub(crate) fn stamp(now: SystemTime) -> String {
    OffsetDateTime::from(now)
        .format(&Rfc3339)
        .unwrap_or_default()
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A client's name for its request, when it is one: short, and without anything odd.
pub(crate) fn id(headers: &http::HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
    (text.len() <= MAX_ID && text.bytes().all(legal)).then(|| text.to_owned())
}

enum Out {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<File>),
}

impl Out {
    fn open(log: &AccessLog) -> io::Result<Self> {
        Ok(match log {
            AccessLog::Stdout => Self::Stdout(BufWriter::new(io::stdout())),
            AccessLog::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                Self::File(BufWriter::new(file))
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(out) => out,
            Self::File(out) => out,
        }
    }
}

fn write(queue: &Receiver<Message>, log: &AccessLog, mut out: Out) {
    let mut told = false;
    while let Ok(first) = queue.recv() {
        let mut result = Ok(());
        // What waits is written at once, then flushed: no line waits for the next request.
        for message in std::iter::once(first).chain(queue.try_iter()) {
            match message {
                Message::Line(line) => {
                    result = result.and_then(|()| writeln!(out.writer(), "{line}"));
                }
                Message::Reopen => match Out::open(log) {
                    Ok(new) => {
                        result = result.and_then(|()| out.writer().flush());
                        out = new;
                    }
                    Err(error) => tracing::error!(%error, "the access log cannot be opened anew"),
                },
            }
        }
        result = result.and_then(|()| out.writer().flush());
        if let Err(error) = &result
            && !told
        {
            tracing::error!(%error, "the access log cannot be written");
        }
        told = result.is_err();
    }
}
