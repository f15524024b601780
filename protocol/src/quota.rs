//! How gateways share one quota: each tells the orchestrator what it let pass, and hears how much all of
//! them did.
//!
//! A quota is a bucket of tokens in the form of GCRA (ITU-T I.371): its debt is the time that it needs to
//! be full again, and one unit costs `emission_ns` of debt. Of a bucket that is full at `full_at`, telling
//! makes `full_at := max(full_at, now − first_ago) + units × emission`.

use serde::{Deserialize, Serialize};

/// Path of the orchestrator at which usage is exchanged, by POST of [`Usage`].
pub const PATH: &str = "/internal/quota";
/// Most entries of one exchange; a gateway sends the rest with the next.
pub const MAX_ENTRIES: usize = 1_000;
/// Longest [`Used::first_ago_ns`] that counts, in intervals: what was told later than that counts from then.
pub const MAX_INTERVALS_AGO: u64 = 3;
/// Longest [`Used::key`], in bytes.
pub const MAX_KEY: usize = 64;

/// What one worker of a gateway let pass since it last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// The gateway, all workers of which say the same: at most 64 of `a-z A-Z 0-9 - _`.
    pub gateway: String,
    /// How often it tells, in milliseconds; one that has not told for three times as long is gone.
    pub interval_ms: u64,
    /// By bucket.
    pub used: Vec<Used>,
}

/// What passed at the cost of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// The bucket: a keyed hash, so that nobody learns whose it is.
    pub key: String,
    /// Debt of one unit, in nanoseconds.
    pub emission_ns: u64,
    /// Units that passed; 0 only asks.
    pub units: u64,
    /// How long ago the first of them did, in nanoseconds: they are charged from then on, so that what the
    /// bucket got back meanwhile is not lost.
    #[serde(default)]
    pub first_ago_ns: u64,
}

/// The answer to [`Usage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standings {
    /// Gateways that have told of late, the asking one included.
    pub gateways: u32,
    /// Debt of each bucket that was told of, in the same order, in nanoseconds from now.
    pub debts_ns: Vec<u64>,
}
