//! Tokens that were verified, by SHA-256, so that a signature is paid once per token.
//!
//! Only verified tokens enter: without one, nobody can push another's out. Two generations bound it:
//! when the young one is full, the old one is dropped whole and the young one takes its place; an
//! entry that is used moves to the young one. So what is dropped has not been used for at least
//! [`GENERATION`] insertions, and no operation walks the table. An entry that has expired leaves
//! by the same way: until then its token is refused at the price of its hash.

use super::answer::Fault;
use super::keys::Key;
use super::mint::Minted;
use std::collections::HashMap;
use std::sync::Weak;

/// Entries per generation. Twice this many at about 1 kB (at most 8 kB) each: 4 MB, at most 32 MB
/// per worker, for more callers than one worker serves within a token's life.
pub(super) const GENERATION: usize = 2048;

/// A verified token and the assertion that stands for it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) minted: Minted,
    pub(super) life: Life,
    /// Place of the issuer.
    pub(super) issuer: usize,
    /// The key that verified it, as long as the issuer has it.
    pub(super) key: Weak<Key>,
}

/// When a token is good, leeway left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) begins_ms: u64,
    pub(super) ends_ms: u64,
    /// Why it is no good after that.
    pub(super) ends_as: Fault,
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
