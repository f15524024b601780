//! `delivery:` as it is written, for the mesh and for one agent.

use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::values;
use crate::finding::Finding;
use mesh_bus::QueueKind;
use mesh_sidecar::config;
use std::time::Duration;

/// How an agent's steps are tried again and what becomes of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Delivery {
    pub delayed_retries: Option<At<u32>>,
    pub first_delay: Option<At<Duration>>,
    pub longest_delay: Option<At<Duration>>,
    pub max_crashes: Option<At<u32>>,
    pub unrecoverable: Option<At<Vec<At<u16>>>>,
    pub keep_refused: Option<At<bool>>,
}

/// What `queue_kind` may say, for the mesh and for one agent.
pub(super) const QUEUE_KINDS: &[(&str, QueueKind)] = &[
    ("quorum", QueueKind::Quorum),
    ("classic", QueueKind::Classic),
];

pub(super) fn delivery(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Delivery> {
    let mut f = reader.fields(spot)?;
    let delays = || values::duration(Duration::from_millis(250)..=DAY);
    let retries = 0..=config::Delivery::MAX_RETRIES.into();
    let delivery = Delivery {
        delayed_retries: f.optional(reader, "delayed_retries", values::integer(retries)),
        first_delay: f.optional(reader, "first_delay", delays()),
        longest_delay: f.optional(reader, "longest_delay", delays()),
        // What the broker makes of more than it delivers is for the checks to say.
        max_crashes: f.optional(reader, "max_crashes", values::integer(1..=1_000_000)),
        unrecoverable: f.optional(reader, "unrecoverable", |r, s| r.list(s, status)),
        keep_refused: f.optional(reader, "keep_refused", values::boolean),
    };
    f.finish(reader);
    Some(delivery)
}

/// A status that would be tried again otherwise.
fn status(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<u16> {
    let status: u16 = values::integer(100..=599)(reader, spot)?;
    if matches!(status, 408 | 429 | 500..=599) {
        return Some(status);
    }
    let message = format!("{}: {status} is never tried again anyhow", spot.path);
    let finding = Finding::error("no_effect", spot.node.place, spot.path, message);
    reader.push(finding.hint("leave it out: what is tried again is 408, 429 and 500 to 599"));
    None
}

/// What a broker does with a queue that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It refuses what is published.
    Reject,
    /// Something else than the publisher hears of it: old messages, or new ones, are dead letters. Never accepted.
    Bury,
}

impl Overflow {
    /// The broker's own names.
    pub(super) const ALL: &'static [(&'static str, Self)] = &[
        ("reject-publish", Self::Reject),
        ("drop-head", Self::Bury),
        ("reject-publish-dlx", Self::Bury),
    ];
}

impl Delivery {
    /// What is written here, and what is written in `base` where nothing is.
    pub(crate) fn over(&self, base: Option<&Self>) -> Self {
        let mut all = self.clone();
        if let Some(base) = base.cloned() {
            all.delayed_retries = all.delayed_retries.or(base.delayed_retries);
            all.first_delay = all.first_delay.or(base.first_delay);
            all.longest_delay = all.longest_delay.or(base.longest_delay);
            all.max_crashes = all.max_crashes.or(base.max_crashes);
            all.unrecoverable = all.unrecoverable.or(base.unrecoverable);
            all.keep_refused = all.keep_refused.or(base.keep_refused);
        }
        all
    }

    /// The same with the sidecar's own defaults.
    pub(crate) fn checked(&self) -> config::Delivery {
        let usual = config::Delivery::default();
        let millis = |at: &Option<At<Duration>>| {
            at.as_ref()
                .map(|at| u64::try_from(at.value.as_millis()).unwrap_or(u64::MAX))
        };
        let first_delay_ms = millis(&self.first_delay).unwrap_or(usual.first_delay_ms);
        // A first delay beyond the usual longest one says how long the longest is.
        let longest = usual.longest_delay_ms.max(first_delay_ms);
        let number = |at: &Option<At<u32>>| at.as_ref().map(|at| at.value);
        config::Delivery {
            delayed_retries: number(&self.delayed_retries).unwrap_or(usual.delayed_retries),
            first_delay_ms,
            longest_delay_ms: millis(&self.longest_delay).unwrap_or(longest),
            unrecoverable: match &self.unrecoverable {
                Some(list) => list.value.iter().map(|at| at.value).collect(),
                None => usual.unrecoverable,
            },
            max_crashes: number(&self.max_crashes).unwrap_or(usual.max_crashes),
            keep_refused: self
                .keep_refused
                .as_ref()
                .map_or(usual.keep_refused, |at| at.value),
        }
    }
}
