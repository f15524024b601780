//! Tokens that were verified, by SHA-256, so that a signature is paid once per token.
//!
//! Only verified tokens enter: without one, nobody can push another's out. Two generations bound it:
//! when the young one is full, the old one is dropped whole and the young one takes its place; an
//! entry that is used moves to the young one. So what is dropped has not been used for at least
//! [`GENERATION`] insertions, no operation walks the table, and an expired entry leaves by the same way.

use crate::Caller;
use std::collections::HashMap;

/// Entries per generation. Twice this many at about 0.7 kB (at most 4 kB) each: 3 MB, at most 16 MB
/// per worker, for more callers than one worker serves within a token's life.
pub(super) const GENERATION: usize = 2048;

/// A verified token and the assertion that stands for it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) caller: Caller,
    pub(super) not_before_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) assertion: String,
    pub(super) signed_at_s: u64,
    pub(super) assertion_ends_s: u64,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<[u8; 32], Entry>,
    old: HashMap<[u8; 32], Entry>,
}

impl Cache {
    pub(super) fn get_mut(&mut self, hash: &[u8; 32]) -> Option<&mut Entry> {
        if let Some(entry) = self.old.remove(hash) {
            self.insert(*hash, entry);
        }
        self.young.get_mut(hash)
    }

    pub(super) fn insert(&mut self, hash: [u8; 32], entry: Entry) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
