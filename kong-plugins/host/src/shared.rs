//! What all VMs of a process share: metrics, and values that change by compare and swap.

use crate::metrics::MetricStore;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Largest shared value, in bytes: a real Kong keeps no larger one whole.
pub(crate) const MAX_VALUE: usize = 16;
/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = 256;
/// Most values, about as many as a real Kong's 12 MB hold. What comes on top takes the place of another,
/// as it does there.
const MAX_VALUES: usize = 97_600;
/// Locks, so that workers rarely wait for one another.
const SHARDS: usize = 64;

/// What all VMs of a process share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Metrics that filters define.
    pub metrics: MetricStore,
    pub(crate) values: Values,
}

impl Shared {
    /// How many values filters keep.
    pub fn values(&self) -> usize {
        self.values.len()
    }
}

/// Shared values and their versions.
#[derive(Debug)]
pub(crate) struct Values {
    shards: Vec<Mutex<Shard>>,
    hash: RandomState,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
        }
    }
}

/// Values and their versions by key.
type Shard = HashMap<Box<[u8]>, (Bytes, u32)>;

impl Values {
    fn shard(&self, key: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        let shards = u64::try_from(self.shards.len()).unwrap_or(1).max(1);
        let place = usize::try_from(self.hash.hash_one(key) % shards).unwrap_or(0);
        let shard = self.shards.get(place)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value under `key` and its version.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        self.shard(key)?.get(key).cloned()
    }

    /// Sets or removes the value under `key` if its version is `seen`, 0 for one that is not there;
    /// whether it did. Versions are never 0.
    pub(crate) fn set(&self, key: &[u8], value: Option<Bytes>, seen: u32) -> bool {
        let Some(mut shard) = self.shard(key) else {
            return false;
        };
        if value.is_some() && shard.len() >= MAX_VALUES / SHARDS && !shard.contains_key(key) {
            let other = shard.keys().next().cloned();
            other.and_then(|key| shard.remove(&key));
        }
        match (shard.entry(key.into()), value) {
            (Entry::Occupied(mut entry), Some(value)) if entry.get().1 == seen => {
                let next = seen.wrapping_add(1).max(1);
                entry.insert((value, next));
                true
            }
            (Entry::Occupied(entry), None) if entry.get().1 == seen => {
                entry.remove();
                true
            }
            (Entry::Vacant(entry), Some(value)) if seen == 0 => {
                entry.insert((value, 1));
                true
            }
            _ => false,
        }
    }

    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: Bytes = Bytes::from_static(b"0123456789abcdef");

    #[test]
    fn a_value_changes_only_for_who_saw_it() {
        let values = Values::default();
        assert!(!values.set(b"a", Some(VALUE), 1), "nothing is there yet");
        assert!(values.set(b"a", Some(VALUE), 0));
        assert!(!values.set(b"a", Some(VALUE), 0), "it is there now");
        let (value, version) = values.get(b"a").unwrap();
        assert_eq!(value, VALUE);
        assert!(values.set(b"a", Some(VALUE), version));
        assert!(!values.set(b"a", Some(VALUE), version));
        assert!(!values.set(b"a", None, version));
        assert!(values.set(b"a", None, version + 1));
        assert_eq!(values.get(b"a"), None);
        assert!(!values.set(b"a", None, 0));
    }

    #[test]
    fn their_number_is_bounded() {
        let values = Values::default();
        for number in 0..(MAX_VALUES as u32 * 2) {
            assert!(values.set(&number.to_le_bytes(), Some(VALUE), 0));
        }
        assert!(values.len() <= MAX_VALUES);
        assert!(values.len() > MAX_VALUES * 9 / 10);
    }

    #[test]
    fn workers_count_exactly() {
        let values = std::sync::Arc::new(Values::default());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let values = std::sync::Arc::clone(&values);
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        loop {
                            let (count, seen) = match values.get(b"count") {
                                Some((value, seen)) => {
                                    (u32::from_le_bytes(value[..4].try_into().unwrap()), seen)
                                }
                                None => (0, 0),
                            };
                            let next = Bytes::copy_from_slice(&(count + 1).to_le_bytes());
                            if values.set(b"count", Some(next), seen) {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        let (value, _) = values.get(b"count").unwrap();
        assert_eq!(&value[..], 4000u32.to_le_bytes());
    }
}
