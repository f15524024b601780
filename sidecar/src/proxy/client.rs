//! A client's connection, as its requests and its time limits see it.

use super::tunnel::Tunnel;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A client's connection. Everything in it is a hint for one task, so no order among its parts is needed.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Requests that have begun.
    begun: AtomicU64,
    /// Requests that are under way.
    open: AtomicUsize,
    /// Whether part of a head has come.
    within_head: AtomicBool,
    /// What the connection becomes when it has ended as HTTP.
    tunnel: Mutex<Option<Tunnel>>,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Open<'a>(&'a Client);

impl Client {
    /// Counts a request for as long as what is returned lives.
    pub(crate) fn begin(&self) -> Open<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    /// Requests so far; `None` while one is under way.
    pub(crate) fn idle_after(&self) -> Option<u64> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed))
    }

    /// Says whether part of a head has come.
    pub(crate) fn within_head(&self, within: bool) {
        self.within_head.store(within, Ordering::Relaxed);
    }

    /// Whether part of a head has come, and not all of it.
    pub(crate) fn is_within_head(&self) -> bool {
        self.within_head.load(Ordering::Relaxed)
    }

    /// Leaves a tunnel, which begins when the answer is out.
    pub(crate) fn leave(&self, tunnel: Tunnel) {
        *self.slot() = Some(tunnel);
    }

    /// The tunnel that was left.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Tunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
