//! The end of a proxy: first no more connections, then no more requests, then nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Says that connections are to end with what is under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    token: CancellationToken,
    /// The same, for those who ask often: a token is asked under a lock.
    begun: Arc<AtomicBool>,
}

impl Drain {
    /// Begins it.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Ready when it has begun.
    pub(crate) async fn begun(&self) {
        self.token.cancelled().await;
    }
}
