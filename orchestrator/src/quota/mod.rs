//! Quotas that all gateways share: one port, over memory and Redis, one contract suite.
//!
//! A gateway decides by itself and tells here, every so often, what it let pass; the answer says how
//! much all of them did. A bucket is one number, the time at which it is full again
//! ([`mesh_protocol::quota`]): what passes moves that time on from when it began to pass or from where it
//! was, whichever is later, and beyond what a gateway allows if several let pass at once. Nothing is refused here.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod memory;
mod redis;

pub use memory::MemoryQuota;
pub use redis::RedisQuota;

use crate::config;
use async_trait::async_trait;
use mesh_protocol::problem::FieldError;
use mesh_protocol::quota::{MAX_ENTRIES, MAX_INTERVALS_AGO, MAX_KEY, Standings, Usage, Used};
use std::sync::Arc;
use std::time::Duration;

/// Longest [`Usage::gateway`], in bytes.
const MAX_GATEWAY: usize = 64;
/// Longest [`Usage::interval_ms`]: whoever tells less often shares nothing.
pub const MAX_INTERVAL_MS: u64 = 3_600_000;
/// How many intervals a gateway may be silent before it is gone.
const SILENT_INTERVALS: u64 = MAX_INTERVALS_AGO;
/// Most gateways that are counted; those that are gone soonest make room.
const MAX_GATEWAYS: usize = 1_024;
/// Most debt of a bucket: a leap year. The longest limits are per day, so nobody pays off more.
pub const MAX_DEBT: Duration = Duration::from_secs(366 * 86_400);
/// Time for one exchange. Gateways tell every second or so, and what they are not told they ask again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The port. Backends are chosen in [`connect`].
#[async_trait]
pub trait Quota: Send + Sync {
    /// Counts what `usage` says, all of it or nothing, and tells where each bucket stands then. The time is
    /// the backend's, so the gateways' clocks do not matter. Usage of a gateway without a name is the
    /// orchestrator's own: no gateway is counted for it.
    ///
    /// Not idempotent: usage whose answer was lost may have been counted, and counts again when it is told
    /// again. Buckets then stand too high, never too low.
    ///
    /// # Errors
    /// [`QuotaError::Unavailable`].
    async fn exchange(&self, usage: &Usage) -> Result<Standings, QuotaError>;
}

/// What can go wrong with a quota.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The backend cannot be reached, or did not answer in time. Try again later.
    #[error("quotas unavailable: {detail}")]
    Unavailable {
        /// What came back; without credentials.
        detail: String,
    },
    /// The configuration cannot work at all.
    #[error("quota configuration: {detail}")]
    Config {
        /// What is wrong; without credentials.
        detail: String,
    },
}

/// The quotas beside the store that `config` names. A server that is not there yet is waited for in the
/// background.
///
/// # Errors
/// [`QuotaError::Config`] when the configuration cannot work at all.
pub fn connect(config: &config::Store) -> Result<Arc<dyn Quota>, QuotaError> {
    match config {
        config::Store::Memory { .. } => Ok(Arc::new(MemoryQuota::new())),
        config::Store::Redis { url, .. } => Ok(Arc::new(RedisQuota::connect(url, PATIENCE)?)),
    }
}

/// What is wrong with `usage`, field by field; empty when nothing is.
pub fn faults(usage: &Usage) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let mut fault = |field: String, code: &str, detail: String| {
        faults.push(FieldError::new(field, code, detail));
    };
    let named = usage
        .gateway
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if usage.gateway.is_empty() || usage.gateway.len() > MAX_GATEWAY || !named {
        let detail = format!("a gateway's name is 1 to {MAX_GATEWAY} of a-z A-Z 0-9 - _");
        fault("gateway".to_owned(), "wrong_name", detail);
    }
    if !(1..=MAX_INTERVAL_MS).contains(&usage.interval_ms) {
        let detail = format!("an interval is 1 to {MAX_INTERVAL_MS} milliseconds");
        fault("interval_ms".to_owned(), "out_of_range", detail);
    }
    if usage.used.len() > MAX_ENTRIES {
        let detail =
            format!("at most {MAX_ENTRIES} entries at a time: tell the rest with the next");
        fault("used".to_owned(), "too_many", detail);
        return faults;
    }
    let longest = nanos(MAX_DEBT);
    for (place, used) in usage.used.iter().enumerate() {
        // The first fault tells as much as a thousand.
        let graphic = used.key.bytes().all(|b| b.is_ascii_graphic());
        if used.key.is_empty() || used.key.len() > MAX_KEY || !graphic {
            let detail = format!("a key is 1 to {MAX_KEY} visible ASCII characters");
            fault(format!("used[{place}].key"), "wrong_key", detail);
            break;
        }
        if !(1..=longest).contains(&used.emission_ns) {
            let detail = format!("a unit costs 1 to {longest} nanoseconds");
            fault(format!("used[{place}].emission_ns"), "out_of_range", detail);
            break;
        }
    }
    faults
}

/// What `used` adds to its bucket's debt, in microseconds: rounded up, at most [`MAX_DEBT`].
///
/// Microseconds since 1970 are whole numbers in a double, which nanoseconds are not, and Redis' scripts
/// know nothing else.
fn cost_us(used: &Used) -> u64 {
    let cost = u128::from(used.units) * u128::from(used.emission_ns);
    u64::try_from(cost.div_ceil(1_000)).map_or(max_debt_us(), |us| us.min(max_debt_us()))
}

fn max_debt_us() -> u64 {
    nanos(MAX_DEBT) / 1_000
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long ago what `used` tells of began, in microseconds, as far as it counts: no longer than a gateway
/// may be silent.
fn ago_us(used: &Used, usage: &Usage) -> u64 {
    (used.first_ago_ns / 1_000).min(life_us(usage))
}

/// How long a gateway counts after it told, in microseconds.
fn life_us(usage: &Usage) -> u64 {
    usage
        .interval_ms
        .min(MAX_INTERVAL_MS)
        .saturating_mul(SILENT_INTERVALS * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(gateway: &str, key: &str, emission_ns: u64) -> Usage {
        Usage {
            gateway: gateway.to_owned(),
            interval_ms: 1_000,
            used: vec![
                Used {
                    key: "good".to_owned(),
                    emission_ns: 1,
                    units: 0,
                    first_ago_ns: 0,
                },
                Used {
                    key: key.to_owned(),
                    emission_ns,
                    units: 1,
                    first_ago_ns: 0,
                },
            ],
        }
    }

    fn places(usage: &Usage) -> Vec<String> {
        faults(usage).into_iter().map(|f| f.field).collect()
    }

    #[test]
    fn faults_name_their_place() {
        assert_eq!(places(&usage("gw-1_A", &"k".repeat(64), 1)), [""; 0]);
        for name in ["", "a b", "a{b}", "ü", &"x".repeat(65)] {
            assert_eq!(places(&usage(name, "k", 1)), ["gateway"], "{name:?}");
        }
        for key in ["", "a b", "a\n", "ü", &"x".repeat(65)] {
            assert_eq!(places(&usage("g", key, 1)), ["used[1].key"], "{key:?}");
        }
        for emission in [0, u64::MAX] {
            assert_eq!(places(&usage("g", "k", emission)), ["used[1].emission_ns"]);
        }
        for interval in [0, MAX_INTERVAL_MS + 1] {
            let wrong = Usage {
                interval_ms: interval,
                ..usage("g", "k", 1)
            };
            assert_eq!(places(&wrong), ["interval_ms"]);
        }
        let mut many = usage("g", "k", 1);
        many.used = vec![many.used[0].clone(); MAX_ENTRIES + 1];
        assert_eq!(places(&many), ["used"]);
        many.used.pop();
        assert_eq!(places(&many), [""; 0]);
    }

    #[test]
    fn costs_are_rounded_up_and_bounded() {
        let cost = |emission_ns, units| {
            cost_us(&Used {
                key: "k".to_owned(),
                emission_ns,
                units,
                first_ago_ns: 0,
            })
        };
        assert_eq!(cost(1, 0), 0);
        assert_eq!(cost(1, 1), 1);
        assert_eq!(cost(1_000, 1), 1);
        assert_eq!(cost(1_001, 1), 2);
        assert_eq!(cost(3_333, 3), 10);
        assert_eq!(cost(u64::MAX, u64::MAX), max_debt_us());
    }
}
