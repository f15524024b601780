//! What a decision may use besides the request: the gateway's clock, the state that all workers of a
//! gateway share, and what an earlier filter found out about this request.
//!
//! Shared state is a table of cells of one size, because that is what a real Kong keeps whole: larger
//! values were read torn, values that change size corrupted its heap. A cell changes by compare and
//! swap alone.

use mesh_protocol::Timestamp;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The one size of a shared value.
pub type Cell = [u8; 16];

/// The version of a cell, as the gateway counts it; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u32);

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// The cell holds the new value.
    Written,
    /// Another worker was there first: read again.
    Changed,
}

/// The gateway did not do what it was asked, so nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway's shared state cannot be used")]
pub struct Unshared;

/// The gateway around a filter.
pub trait Host {
    /// Its wall clock, in nanoseconds since 1970.
    ///
    /// # Errors
    /// [`crate::Unreadable`], which is a reason to refuse.
    fn now_ns(&self) -> Result<u64, crate::Unreadable>;

    /// The cell under `key`; none where there is none, or one of another size.
    ///
    /// # Errors
    /// [`Unshared`].
    fn cell(&self, key: &str) -> Result<Option<(Cell, Version)>, Unshared>;

    /// Writes the cell under `key`, if it still is of the version `seen`; none: if it is not there.
    ///
    /// # Errors
    /// [`Unshared`].
    fn swap(&self, key: &str, cell: Cell, seen: Option<Version>) -> Result<Swapped, Unshared>;

    /// 16 random bytes.
    ///
    /// # Errors
    /// [`crate::Unreadable`].
    fn random(&self) -> Result<[u8; 16], crate::Unreadable>;

    /// What an earlier filter of this request left under `name`; clients cannot write there.
    fn found(&self, name: &str) -> Option<Vec<u8>>;

    /// The clock as other parts write time.
    ///
    /// # Errors
    /// [`crate::Unreadable`], which is a reason to refuse.
    fn now(&self) -> Result<Timestamp, crate::Unreadable> {
        Ok(Timestamp::from_millis(self.now_ns()? / 1_000_000))
    }
}

/// A gateway in memory: for tests, dry runs and the differential suite. Clones are its workers.
#[derive(Debug, Clone, Default)]
pub struct MemoryHost {
    now_ns: u64,
    cells: Arc<Mutex<BTreeMap<String, (Cell, u32)>>>,
    found: RefCell<BTreeMap<String, Vec<u8>>>,
    random: u128,
}

impl MemoryHost {
    /// A gateway without state, at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now_ns: now.millis().saturating_mul(1_000_000),
            ..Self::default()
        }
    }

    /// Moves the clock.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Sets what comes of chance.
    pub fn set_random(&mut self, random: u128) {
        self.random = random;
    }

    /// Leaves something for later filters, as the gateway does for [`crate::Pass::leave`].
    pub fn leave(&self, name: &str, value: impl Into<Vec<u8>>) {
        self.found
            .borrow_mut()
            .insert(name.to_owned(), value.into());
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Cell, u32)>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for MemoryHost {
    fn now_ns(&self) -> Result<u64, crate::Unreadable> {
        Ok(self.now_ns)
    }

    fn cell(&self, key: &str) -> Result<Option<(Cell, Version)>, Unshared> {
        Ok(self
            .table()
            .get(key)
            .map(|(cell, version)| (*cell, Version(*version))))
    }

    fn swap(&self, key: &str, cell: Cell, seen: Option<Version>) -> Result<Swapped, Unshared> {
        let mut table = self.table();
        let version = table.get(key).map(|(_, version)| *version);
        if version != seen.map(|v| v.0) {
            return Ok(Swapped::Changed);
        }
        let next = version.unwrap_or(0).wrapping_add(1).max(1);
        table.insert(key.to_owned(), (cell, next));
        Ok(Swapped::Written)
    }

    fn random(&self) -> Result<[u8; 16], crate::Unreadable> {
        Ok(self.random.to_le_bytes())
    }

    fn found(&self, name: &str) -> Option<Vec<u8>> {
        self.found.borrow().get(name).cloned()
    }
}
