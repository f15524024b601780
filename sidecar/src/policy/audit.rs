//! The audit log: every refusal, as one line of JSON with the field names of the Elastic Common Schema.
//!
//! ```text
//!  policy ──line, or lost when full──▶ channel ──▶ Writer ──batch──▶ file (or standard error)
//! ```
//!
//! Whoever refuses never waits: a disk that hangs must not hold up the requests that are allowed. What finds the
//! channel full is counted, and the log itself says how many lines are missing and since when.

mod line;
mod writer;

pub(crate) use writer::Writer;

use super::Peer;
use super::refusal::{Direction, Refusal};
use crate::SidecarError;
use crate::config::ServiceName;
use http::Method;
use mesh_protocol::assertion::Claims;
use mesh_protocol::{StepId, TaskId, Timestamp};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Lines that wait to be written: a second of refusals at a rate that no honest peer causes, a few MiB at most.
const QUEUE: usize = 1_024;

/// Where refusals are said; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    service: Arc<str>,
    lines: mpsc::Sender<Vec<u8>>,
    lost: Arc<Lost>,
}

/// Lines that are in no log.
#[derive(Debug)]
struct Lost {
    /// Since the log last said so.
    unsaid: AtomicU64,
    full: IntCounter,
    unwritable: IntCounter,
}

/// A refusal and what it was about.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub(super) at: Timestamp,
    pub(super) direction: Direction,
    pub(super) refusal: &'a Refusal,
    /// Who asked, by certificate; a task comes from the broker, which says nothing of that kind.
    pub(super) peer: Option<Peer<'a>>,
    /// For whom, where an assertion was verified.
    pub(super) claims: Option<&'a Claims>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) task: Option<(&'a TaskId, &'a StepId)>,
}

impl Audit {
    /// Opens the log of `service`: `file`, or standard error.
    ///
    /// # Errors
    /// A file that cannot be written: a mesh without its audit log does not start.
    pub(crate) fn open(
        file: Option<&Path>,
        service: &ServiceName,
        registry: &Registry,
    ) -> Result<(Self, Writer), SidecarError> {
        let opts = Opts::new(
            "sidecar_audit_lost_total",
            "Audit lines that are in no log, by reason: full (the writer was behind), unwritable",
        );
        let counters = IntCounterVec::new(opts, &["agent", "reason"])?;
        registry.register(Box::new(counters.clone()))?;
        let counter = |reason| counters.with_label_values(&[service.as_str(), reason]);
        let lost = Arc::new(Lost {
            unsaid: AtomicU64::new(0),
            full: counter("full"),
            unwritable: counter("unwritable"),
        });
        let (send, lines) = mpsc::channel(QUEUE);
        let audit = Self {
            service: service.as_str().into(),
            lines: send,
            lost: Arc::clone(&lost),
        };
        let writer =
            Writer::new(file, Arc::clone(&audit.service), lines, lost).map_err(|error| {
                let at = file.map(|f| f.display().to_string()).unwrap_or_default();
                SidecarError::Config(vec![format!(
                    "policy.audit: {at} cannot be written: {error}"
                )])
            })?;
        Ok((audit, writer))
    }

    /// Hands a refusal to the writer, without waiting.
    pub(super) fn refused(&self, refused: &Refused<'_>) {
        match self.lines.try_reserve() {
            Ok(place) => place.send(line::refused(&self.service, refused)),
            Err(_) => self.lost.full(),
        }
    }
}

impl Lost {
    fn full(&self) {
        self.full.inc();
        self.unsaid.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
