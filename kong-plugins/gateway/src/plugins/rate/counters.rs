//! Counters of the process, bounded in number.
//!
//! A counter is known by a keyed hash of 128 bits of its place and identifier: nobody outside can find two
//! that collide, and long identifiers cost no memory. When a shard is full, what belongs to past windows
//! goes; when that is not enough, an arbitrary counter is forgotten, as Kong's dictionary forgets under
//! pressure.

use super::windows::{Period, Windows};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Shards, each with its lock; far more than workers.
const SHARDS: usize = 64;
/// Counters of one shard: 100,000 in all, of about 150 bytes each.
const PER_SHARD: usize = 1_563;

/// What one identifier has used.
#[derive(Debug)]
struct Entry {
    /// When the last of the windows ends, in seconds since 1970.
    until_s: i64,
    /// Window and count, per limit of the plugin.
    counts: Vec<(i64, u64)>,
}

type Key = (u64, u64);

/// The counters of all rate-limiting plugins.
#[derive(Debug)]
pub(crate) struct Counters {
    keys: (RandomState, RandomState),
    shards: Vec<Mutex<HashMap<Key, Entry>>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            keys: (RandomState::new(), RandomState::new()),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

/// What was used before the request: period, limit, what is left.
pub(super) struct Usage {
    pub periods: Vec<(Period, u64, u64)>,
}

impl Usage {
    /// The longest period of which nothing was left; the request was not counted then.
    pub(super) fn stopped(&self) -> Option<Period> {
        let mut spent = self.periods.iter().filter(|(_, _, left)| *left == 0);
        spent.next_back().map(|(period, _, _)| *period)
    }
}

impl Counters {
    /// Counts one request, unless a limit is used up.
    pub(super) fn count(
        &self,
        scope: &str,
        identifier: (&str, &[u8]),
        limits: &[(Period, u64)],
        windows: &Windows,
    ) -> Usage {
        let subject = (scope, identifier, limits.len());
        let key = (self.keys.0.hash_one(subject), self.keys.1.hash_one(subject));
        let shard = usize::try_from(key.0 % (SHARDS as u64)).unwrap_or_default();
        let Some(shard) = self.shards.get(shard) else {
            return Usage {
                periods: Vec::new(),
            };
        };
        let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= PER_SHARD && !entries.contains_key(&key) {
            make_room(&mut entries, windows);
        }
        let entry = entries.entry(key).or_insert_with(|| Entry {
            until_s: 0,
            counts: vec![(0, 0); limits.len()],
        });
        entry.until_s = limits.iter().fold(0, |until, (period, _)| {
            until.max(windows.start_s(*period) + period.length_s())
        });
        let mut used = Vec::with_capacity(limits.len());
        for ((period, limit), (start, count)) in limits.iter().zip(entry.counts.iter_mut()) {
            let now = windows.start_s(*period);
            if *start != now {
                (*start, *count) = (now, 0);
            }
            used.push((*period, *limit, limit.saturating_sub(*count)));
        }
        let usage = Usage { periods: used };
        if usage.stopped().is_none() {
            for (_, count) in &mut entry.counts {
                *count += 1;
            }
        }
        usage
    }
}

#[cfg(test)]
impl Counters {
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}

/// Forgets counters: those whose windows have ended, else any one.
fn make_room(entries: &mut HashMap<Key, Entry>, windows: &Windows) {
    entries.retain(|_, entry| entry.until_s > windows.now_s());
    if entries.len() >= PER_SHARD
        && let Some(key) = entries.keys().next().copied()
    {
        entries.remove(&key);
    }
}
