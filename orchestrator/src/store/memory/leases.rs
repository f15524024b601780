//! Leases in this process: for orchestrators that share a memory store.

use super::MemoryStore;
use crate::store::{Claim, HandedOver, Held, Hold, Leases, ReplicaId, StoreError};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mesh_protocol::outcome::StepResult;
use std::collections::{BTreeSet, HashMap};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Results that wait for a listener; more are told by its next renewal.
const TOLD: usize = 256;

/// What replicas share.
#[derive(Default)]
pub(super) struct Replicas {
    leases: HashMap<ReplicaId, Instant>,
    listeners: HashMap<ReplicaId, mpsc::Sender<StepResult>>,
}

impl Replicas {
    fn holds(&self, replica: ReplicaId, now: Instant) -> bool {
        self.leases.get(&replica).is_some_and(|until| now < *until)
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn hold(&self, hold: &Hold) -> Result<Held, StoreError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let now = Instant::now();
        let lapsed = !inner.replicas.holds(hold.replica, now);
        inner.replicas.leases.retain(|_, until| now < *until);
        inner.replicas.leases.insert(hold.replica, now + hold.lease);
        let mut held = Held {
            // It lives as long as the process, and forgets nothing.
            epoch: "memory".to_owned(),
            lapsed,
            ..Held::default()
        };
        let mut handed = BTreeSet::new();
        for (id, replica) in &mut inner.unfinished {
            let Some(run) = inner.runs.get_mut(id) else {
                continue;
            };
            let claimed = !inner.replicas.holds(*replica, now) && held.claimed.len() < hold.claim;
            if claimed {
                *replica = hold.replica;
                run.fence += 1;
            }
            if *replica == hold.replica {
                // One process has one clock.
                let claim = Claim {
                    run: id.clone(),
                    fence: run.fence,
                    ahead_ms: 0,
                };
                if hold.all {
                    held.all.push(claim.clone());
                }
                if claimed {
                    held.claimed.push(claim);
                } else if !run.handed.is_empty() {
                    handed.insert(id.clone());
                }
            }
        }
        held.handed = handed.into_iter().collect();
        Ok(held)
    }

    async fn release(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.replicas.leases.remove(&replica);
        inner.replicas.listeners.remove(&replica);
        inner.log.give_up_turn(replica);
        Ok(())
    }

    async fn hand_over(&self, result: &StepResult) -> Result<HandedOver, StoreError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(run) = inner.runs.get_mut(&result.task_id) else {
            return Ok(HandedOver::Gone);
        };
        if run.status.is_ended() {
            return Ok(HandedOver::Ended);
        }
        run.handed.retain(|r| r.step_id != result.step_id);
        run.handed.push(result.clone());
        let replica = inner.unfinished.get(&result.task_id);
        if let Some(listener) = replica.and_then(|r| inner.replicas.listeners.get(r)) {
            // No room, or nobody listens any more: the next renewal tells.
            let _told = listener.try_send(result.clone());
        }
        Ok(HandedOver::Kept)
    }

    async fn listen(
        &self,
        replica: ReplicaId,
    ) -> Result<BoxStream<'static, StepResult>, StoreError> {
        let (sender, mut receiver) = mpsc::channel(TOLD);
        self.lock().replicas.listeners.insert(replica, sender);
        Ok(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed())
    }
}
