//! Writes the audit log, many lines at a time, off the runtime's threads.

use super::{Lost, line};
use mesh_protocol::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most lines that are written at once.
const BATCH: usize = 256;

/// The end of the audit log that writes.
pub(crate) struct Writer {
    service: Arc<str>,
    lines: mpsc::Receiver<Vec<u8>>,
    lost: Arc<Lost>,
    /// `None` while a batch is being written.
    sink: Option<Sink>,
}

impl Writer {
    pub(super) fn new(
        file: Option<&Path>,
        service: Arc<str>,
        lines: mpsc::Receiver<Vec<u8>>,
        lost: Arc<Lost>,
    ) -> io::Result<Self> {
        let sink = match file {
            None => Sink::StandardError,
            Some(path) => Sink::File(Log::open(path)?),
        };
        Ok(Self {
            service,
            lines,
            lost,
            sink: Some(sink),
        })
    }

    /// Writes until `shutdown` is cancelled and what waited until then is written.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut lines = Vec::with_capacity(BATCH);
        loop {
            let received = self.lines.recv_many(&mut lines, BATCH);
            match shutdown.run_until_cancelled(received).await {
                Some(0) => return,
                Some(_) => self.write(&mut lines).await,
                None => break,
            }
        }
        self.lines.close();
        while self.lines.recv_many(&mut lines, BATCH).await > 0 {
            self.write(&mut lines).await;
        }
    }

    async fn write(&mut self, lines: &mut Vec<Vec<u8>>) {
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let lost = self.lost.unsaid.swap(0, Ordering::Relaxed);
        let mut batch = Vec::with_capacity(lines.iter().map(Vec::len).sum());
        for line in lines.drain(..) {
            batch.extend_from_slice(&line);
        }
        if lost > 0 {
            tracing::warn!(
                lost,
                "audit lines are missing, more was refused than could be written"
            );
            batch.extend_from_slice(&line::lost(&self.service, lost, Timestamp::now()));
        }
        let Some(mut sink) = self.sink.take() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || {
            let written = sink.write(&batch);
            (sink, written)
        });
        // The closure does not panic, and a runtime that ends takes the writer with it.
        let Ok((sink, written)) = written.await else {
            return;
        };
        self.sink = Some(sink);
        if written.is_err() {
            self.lost.unwritable.inc_by(count);
        }
    }
}

enum Sink {
    StandardError,
    File(Log),
}

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::StandardError => io::stderr().lock().write_all(batch),
            Self::File(log) => log.write(batch).or_else(|error| {
                log.say(&error);
                // Better there than nowhere.
                io::stderr().lock().write_all(batch)
            }),
        }
    }
}

/// A file that others may move away (log rotation) at any time.
struct Log {
    path: PathBuf,
    file: File,
    /// Device and inode: whether the path still names the file.
    node: (u64, u64),
    /// A write failed, perhaps within a line.
    torn: bool,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            file,
            node: (metadata.dev(), metadata.ino()),
            torn: false,
        })
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let moved = match std::fs::metadata(&self.path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.node,
            Err(_) => true,
        };
        if moved {
            *self = Self::open(&self.path)?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        // Until it is whole.
        let torn = std::mem::replace(&mut self.torn, true);
        self.file.write_all(batch)?;
        if torn {
            tracing::info!(path = %self.path.display(), "audit log is written again");
        }
        self.torn = false;
        Ok(())
    }

    fn say(&self, error: &io::Error) {
        tracing::error!(path = %self.path.display(), %error, "audit log cannot be written, its lines are on standard error");
    }
}
