//! What all VMs of a process share: metrics, and values that change by compare and swap.

use crate::metrics::MetricStore;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Largest shared value, in bytes: a real Kong keeps no larger one whole.
pub(crate) const MAX_VALUE: usize = 16;
/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = 256;
/// Most values, of about 120 bytes each: a real Kong's 64 MB hold about as many. What comes on top takes the
/// place of another, as it does there.
const MAX_VALUES: usize = 524_288;
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
}

impl Default for Values {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

/// Values and their versions by key. A value lies in the table itself: there is one look less into memory
/// that no cache holds when there are many.
type Shard = HashMap<Box<[u8]>, (Value, u32)>;

/// A shared value, of at most [`MAX_VALUE`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    bytes: [u8; MAX_VALUE],
    length: u8,
}

impl Value {
    /// None for what is too long.
    pub(crate) fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_VALUE];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        let length = u8::try_from(value.len()).ok()?;
        Some(Self { bytes, length })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }
}

/// Spreads keys over the shards (FNV-1a). Whoever aims at one shard makes its values leave sooner, which a
/// filter's own keyed hash is against.
fn place(key: &[u8]) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash >> 40).unwrap_or(0)
}

impl Values {
    fn shard(&self, key: &[u8]) -> Option<MutexGuard<'_, Shard>> {
        let shard = self.shards.get(place(key) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value under `key` and its version.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Value, u32)> {
        self.shard(key)?.get(key).copied()
    }

    /// Sets or removes the value under `key` if its version is `seen`, 0 for one that is not there;
    /// whether it did. Versions are never 0.
    pub(crate) fn set(&self, key: &[u8], value: Option<Value>, seen: u32) -> bool {
        let Some(mut shard) = self.shard(key) else {
            return false;
        };
        if value.is_some() && shard.len() >= MAX_VALUES / SHARDS && !shard.contains_key(key) {
            let other = shard.keys().next().cloned();
            other.and_then(|key| shard.remove(&key));
        }
        let there = shard.get_mut(key);
        match (there, value) {
            (Some(there), Some(value)) if there.1 == seen => {
                *there = (value, seen.wrapping_add(1).max(1));
                true
            }
            (Some(there), None) if there.1 == seen => shard.remove(key).is_some(),
            (None, Some(value)) if seen == 0 => {
                shard.insert(key.into(), (value, 1));
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

    const VALUE: Value = Value {
        bytes: *b"0123456789abcdef",
        length: 16,
    };

    #[test]
    fn a_value_keeps_its_length() {
        for length in 0..=MAX_VALUE {
            let bytes = &VALUE.as_bytes()[..length];
            assert_eq!(Value::new(bytes).unwrap().as_bytes(), bytes);
        }
        assert_eq!(Value::new(&[0; MAX_VALUE + 1]), None);
    }

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
                                Some((value, seen)) => (
                                    u32::from_le_bytes(value.as_bytes()[..4].try_into().unwrap()),
                                    seen,
                                ),
                                None => (0, 0),
                            };
                            let next = Value::new(&u32::to_le_bytes(count + 1)).unwrap();
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
        assert_eq!(value.as_bytes(), 4000u32.to_le_bytes());
    }
}
