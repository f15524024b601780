//! What one replica has asked for: renews it, hears of grants, asks again for what the store forgot.
//!
//! ```text
//!  ask ─▶ Stake (dropped: forgotten, or given back) and a future of the grant
//!  every RENEW: all claims ─▶ granted ─▶ the future      gone ─▶ asked again      superseded ─▶ forgotten
//!  listen ─▶ granted ─▶ the future
//! ```
//!
//! A grant that nobody waits for any more is given back at once.

use super::{Amounts, Arbiter, Ask, Asked, Claim, Grant, Key, Standing, Times};
use crate::metrics::Metrics;
use crate::store::ReplicaId;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often claims are renewed: several times within a life.
const RENEW: Duration = Duration::from_secs(2);
/// Claims in one call: it holds the store for some milliseconds.
const PART: usize = 500;
/// Pause before listening again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// Under which name.
    pub key: Key,
    /// All of this.
    pub needs: Amounts,
    /// 0 to 10.
    pub priority: u8,
    /// How long the lease lasts without being renewed; the desk's own time where it renews.
    pub ttl: Option<Duration>,
    /// Whether the work goes on already.
    pub running: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// It is granted.
    Granted {
        /// The fencing token.
        token: u64,
    },
    /// There is not so much, or no such resource.
    TooMuch,
    /// Somebody else has it by now.
    Superseded,
}

/// The asker of one replica.
pub struct Desk {
    arbiter: Arc<dyn Arbiter>,
    capacity: Amounts,
    times: Times,
    owner: ReplicaId,
    metrics: Arc<Metrics>,
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    want: Want,
    since: Instant,
    got: watch::Sender<Option<Got>>,
}

/// What becomes of a stake that is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrop {
    /// It stays in the store until it expires: another replica has it, or will have.
    Forget,
    /// It is given back.
    GiveBack,
}

/// Something that was asked for: the desk looks after it as long as this is there.
pub struct Stake {
    desk: Arc<Desk>,
    key: Key,
    on_drop: OnDrop,
}

impl Stake {
    /// Returns what it has, or leaves the queue.
    pub fn give_back(mut self) {
        self.on_drop = OnDrop::GiveBack;
    }

    /// Leaves what was granted to whom it was granted to.
    pub fn leave(mut self) {
        self.on_drop = OnDrop::Forget;
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        self.desk.forget(&self.key);
        if self.on_drop == OnDrop::GiveBack {
            let (desk, key) = (Arc::clone(&self.desk), self.key.clone());
            desk.return_later(key);
        }
    }
}

impl Desk {
    /// A desk that has asked for nothing.
    pub fn new(
        arbiter: Arc<dyn Arbiter>,
        capacity: Amounts,
        times: Times,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            arbiter,
            capacity,
            times,
            owner: ReplicaId::random(),
            metrics,
            entries: Mutex::default(),
        }
    }

    /// What is declared.
    pub fn capacity(&self) -> &Amounts {
        &self.capacity
    }

    /// Who grants.
    pub fn arbiter(&self) -> &dyn Arbiter {
        &*self.arbiter
    }

    /// Asks; the future ends with the answer, and may take for ever.
    pub fn ask(
        self: &Arc<Self>,
        want: Want,
        on_drop: OnDrop,
    ) -> (Stake, impl Future<Output = Got> + Send + use<>) {
        let (sender, mut heard) = watch::channel(None);
        let key = want.key.clone();
        let entry = Entry {
            want,
            since: Instant::now(),
            got: sender,
        };
        self.lock().insert(key.id.clone(), entry);
        let stake = Stake {
            desk: Arc::clone(self),
            key: key.clone(),
            on_drop,
        };
        let desk = Arc::clone(self);
        let future = async move {
            desk.ask_for(&key).await;
            // The stake is gone with the sender: nobody asks any more.
            match heard.wait_for(Option::is_some).await.map(|got| *got) {
                Ok(Some(got)) => got,
                _ => std::future::pending().await,
            }
        };
        (stake, future)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, key: &Key) {
        let mut entries = self.lock();
        if entries.get(&key.id).is_some_and(|e| e.want.key == *key) {
            entries.remove(&key.id);
        }
    }

    /// Asks for what `key` names here, once; whatever fails is asked again with the next renewal.
    async fn ask_for(self: &Arc<Self>, key: &Key) {
        let ask = {
            let entries = self.lock();
            let Some(entry) = entries.get(&key.id).filter(|e| e.want.key == *key) else {
                return;
            };
            let held = matches!(*entry.got.borrow(), Some(Got::Granted { .. }));
            Ask {
                key: key.clone(),
                owner: self.owner,
                needs: entry.want.needs.clone(),
                priority: entry.want.priority,
                ttl: entry.want.ttl.unwrap_or(self.times.life),
                waited: entry.since.elapsed(),
                running: entry.want.running || held,
            }
        };
        let got = match self.arbiter.ask(&ask).await {
            Ok(Asked::Granted { token }) => Got::Granted { token },
            Ok(Asked::TooMuch) => Got::TooMuch,
            Ok(Asked::Superseded) => Got::Superseded,
            Ok(Asked::Waiting | Asked::Full) => return,
            Err(error) => {
                self.metrics.resources.errors.inc();
                tracing::warn!(lease = key.id, %error, "resources cannot be asked for, trying again");
                return;
            }
        };
        self.resolve(key, got);
    }

    fn resolve(self: &Arc<Self>, key: &Key, got: Got) {
        let entries = self.lock();
        if let Some(entry) = entries.get(&key.id).filter(|e| e.want.key == *key) {
            let before = entry.got.send_replace(Some(got));
            if before.is_none() && matches!(got, Got::Granted { .. }) && !entry.want.running {
                self.metrics
                    .resources
                    .granted(&entry.want.needs, entry.since.elapsed());
            }
            return;
        }
        drop(entries);
        // Called off meanwhile.
        if matches!(got, Got::Granted { .. }) {
            Arc::clone(self).return_later(key.clone());
        }
    }

    fn return_later(self: Arc<Self>, key: Key) {
        // Let go while the process ends: it expires.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            // What is not returned expires.
            for _ in 0..3 {
                match self.arbiter.give_back(&key).await {
                    Ok(_) => return,
                    Err(error) => {
                        self.metrics.resources.errors.inc();
                        tracing::debug!(lease = key.id, %error, "a lease is not given back, trying again");
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// Renews, until `halt`.
    pub async fn keep(self: Arc<Self>, halt: CancellationToken) {
        loop {
            let sent = Instant::now();
            let work = async {
                self.renew_all().await;
                self.measure().await;
            };
            if halt.run_until_cancelled(work).await.is_none() {
                return;
            }
            let next = tokio::time::sleep_until(sent + RENEW);
            if halt.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    async fn renew_all(self: &Arc<Self>) {
        let claims: Vec<Claim> = self
            .lock()
            .values()
            .filter_map(|entry| {
                let held = match *entry.got.borrow() {
                    Some(Got::Granted { .. }) => true,
                    None => false,
                    Some(Got::TooMuch | Got::Superseded) => return None,
                };
                let key = entry.want.key.clone();
                Some(Claim { key, held })
            })
            .collect();
        let mut gone: Vec<&Claim> = Vec::new();
        // At least once, since it also sets a store going that nobody asks.
        let parts = claims
            .chunks(PART)
            .chain(claims.is_empty().then_some(&[][..]));
        for part in parts {
            let renewed = match self.arbiter.renew(part, self.times.life).await {
                Ok(renewed) => renewed,
                Err(error) => {
                    self.metrics.resources.errors.inc();
                    tracing::warn!(%error, "leases on resources are not renewed, trying again");
                    return;
                }
            };
            for grant in &renewed.granted {
                self.told(grant);
            }
            let of = |id: &String| part.iter().find(|claim| claim.key.id == *id);
            for claim in renewed.superseded.iter().filter_map(of) {
                self.resolve(&claim.key, Got::Superseded);
            }
            gone.extend(renewed.gone.iter().filter_map(of));
        }
        // What is held counts before anyone is granted anything.
        gone.sort_by_key(|claim| !claim.held);
        for claim in gone {
            self.ask_for(&claim.key).await;
        }
    }

    fn told(self: &Arc<Self>, grant: &Grant) {
        let key = self.lock().get(&grant.id).map(|e| e.want.key.clone());
        let token = grant.token;
        match key {
            Some(key) if key.generation == grant.generation => {
                self.resolve(&key, Got::Granted { token });
            }
            Some(_) => {}
            // Of a step that was called off; who an outside agent's was, is not known any more: it expires.
            None => {
                let key = Key {
                    id: grant.id.clone(),
                    holder: String::new(),
                    generation: grant.generation,
                };
                Arc::clone(self).return_later(key);
            }
        }
    }

    async fn measure(&self) {
        match self.arbiter.look().await {
            Ok(Standing {
                resources, expired, ..
            }) => self.metrics.resources.stand(&resources, expired),
            Err(error) => tracing::debug!(%error, "how resources stand is not known"),
        }
    }

    /// Hears of grants, until `halt`.
    pub async fn listen(self: Arc<Self>, halt: CancellationToken) {
        loop {
            match halt
                .run_until_cancelled(self.arbiter.listen(self.owner))
                .await
            {
                None => return,
                Some(Ok(mut grants)) => loop {
                    match halt.run_until_cancelled(grants.next()).await {
                        None => return,
                        Some(Some(grant)) => self.told(&grant),
                        Some(None) => break,
                    }
                },
                Some(Err(error)) => {
                    self.metrics.resources.errors.inc();
                    tracing::warn!(%error, "cannot listen for grants, trying again");
                }
            }
            let pause = tokio::time::sleep(AGAIN);
            if halt.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
