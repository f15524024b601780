//! Resources in this process: for one-process meshes and tests. Nothing is held after a restart.

use super::book::Book;
use super::{
    Amounts, Arbiter, ArbiterError, Ask, Asked, Claim, Grant, Key, Renewed, Standing, Times,
};
use crate::store::ReplicaId;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Grants that wait for a listener; more are told when it renews.
const TOLD: usize = 256;

/// The arbiter.
pub struct MemoryArbiter {
    begun: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    book: Book,
    listeners: HashMap<ReplicaId, mpsc::Sender<Grant>>,
}

impl MemoryArbiter {
    /// All of `capacity` is free.
    pub fn new(capacity: Amounts, times: Times) -> Self {
        Self {
            begun: Instant::now(),
            inner: Mutex::new(Inner {
                book: Book::new(capacity, times.life),
                listeners: HashMap::new(),
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Book, Duration) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut inner.book, self.begun.elapsed());
        for (owner, grant) in inner.book.fresh() {
            if let Some(listener) = inner.listeners.get(&owner) {
                // No room, or nobody listens any more: told with the next renewal.
                let _told = listener.try_send(grant);
            }
        }
        done
    }
}

#[async_trait]
impl Arbiter for MemoryArbiter {
    async fn ask(&self, ask: &Ask) -> Result<Asked, ArbiterError> {
        Ok(self.with(|book, now| book.ask(ask, now)))
    }

    async fn renew(&self, claims: &[Claim], ttl: Duration) -> Result<Renewed, ArbiterError> {
        Ok(self.with(|book, now| book.renew(claims, ttl, now)))
    }

    async fn give_back(&self, key: &Key) -> Result<bool, ArbiterError> {
        Ok(self.with(|book, now| book.give_back(key, now)))
    }

    async fn look(&self) -> Result<Standing, ArbiterError> {
        Ok(self.with(Book::look))
    }

    async fn listen(&self, owner: ReplicaId) -> Result<BoxStream<'static, Grant>, ArbiterError> {
        let (sender, mut receiver) = mpsc::channel(TOLD);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.listeners.retain(|_, listener| !listener.is_closed());
        inner.listeners.insert(owner, sender);
        Ok(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn passes_the_contract() {
        super::super::contract::all(async |capacity, times| {
            Arc::new(MemoryArbiter::new(capacity, times)) as Arc<dyn Arbiter>
        })
        .await;
    }
}
