//! Leases in Redis: one key with a life for each replica, judged by the server's clock, and the score of the
//! index of the unfinished says whose each run is.
//!
//! Results that are handed over lie in the hash of their run, so that whoever runs it next finds them. The
//! replica that runs it now hears by PUBLISH, which may get lost, and so also by what its renewals tell.

use super::log::HOLDER;
use super::{RedisStore, UNFINISHED, codec::json, unavailable};
use crate::redis_link;
use crate::store::{Claim, HandedOver, Held, Hold, Leases, ReplicaId, StoreError};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mesh_protocol::TaskId;
use mesh_protocol::outcome::StepResult;

/// Results that were handed over and are not settled, as `<run>/<step>`, scored by replica.
pub(super) const HANDED: &str = "tasks:handed";
/// Names this life of the store.
pub(super) const EPOCH: &str = "orchestrators:epoch";
/// By how much each replica's clock is behind the server's.
const CLOCKS: &str = "orchestrators:clocks";
/// Most handed-over results that one renewal tells of; the next tells of more.
const MAX_TOLD: usize = 1000;

fn lease_of(replica: ReplicaId) -> String {
    format!("orchestrators:lease:{replica}")
}

#[async_trait]
impl Leases for RedisStore {
    async fn hold(&self, hold: &Hold) -> Result<Held, StoreError> {
        let mut script = self.hold.prepare_invoke();
        script
            .key(lease_of(hold.replica))
            .key(UNFINISHED)
            .key(HANDED)
            .key(EPOCH)
            .key(CLOCKS)
            .arg(hold.replica.to_string())
            .arg(u64::try_from(hold.lease.as_millis()).unwrap_or(u64::MAX))
            .arg(hold.claim)
            .arg(hold.now.millis())
            .arg(ReplicaId::random().to_string())
            .arg(MAX_TOLD)
            .arg(u8::from(hold.all));
        let answer: (String, u8, Rows, Rows, Vec<String>) = self.call(&script).await?;
        let (epoch, had, claimed, all, handed) = answer;
        Ok(Held {
            epoch,
            lapsed: had == 0,
            claimed: claims(claimed),
            all: claims(all),
            handed: handed.iter().filter_map(|id| id.parse().ok()).collect(),
        })
    }

    async fn release(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut script = self.release.prepare_invoke();
        script
            .key(lease_of(replica))
            .key(HOLDER)
            .arg(replica.to_string());
        self.call::<u8>(&script).await.map(drop)
    }

    async fn hand_over(&self, result: &StepResult) -> Result<HandedOver, StoreError> {
        let mut script = self.hand_over.prepare_invoke();
        script
            .key(result.task_id.redis_key())
            .key(UNFINISHED)
            .key(HANDED)
            .arg(result.task_id.as_str())
            .arg(result.step_id.as_str())
            .arg(json(result));
        match self.call::<u8>(&script).await? {
            0 => Ok(HandedOver::Kept),
            1 => Ok(HandedOver::Gone),
            _ => Ok(HandedOver::Ended),
        }
    }

    async fn listen(
        &self,
        replica: ReplicaId,
    ) -> Result<BoxStream<'static, StepResult>, StoreError> {
        let messages = redis_link::listen(&self.client, &format!("orchestrators:handed:{replica}"))
            .await
            .map_err(unavailable)?;
        // What is no result was written by nobody here.
        let results = messages.filter_map(|message| {
            let result = serde_json::from_slice(message.get_payload_bytes()).ok();
            std::future::ready(result)
        });
        Ok(results.boxed())
    }
}

/// Runs as the script tells of them: id, fencing token, by how much the clock is ahead.
type Rows = Vec<redis::Value>;

fn claims(rows: Rows) -> Vec<Claim> {
    rows.chunks(3)
        .filter_map(|row| {
            let [id, fence, ahead] = row else { return None };
            let text: String = redis::from_redis_value(id.clone()).ok()?;
            let ahead: String = redis::from_redis_value(ahead.clone()).ok()?;
            Some(Claim {
                run: text.parse::<TaskId>().ok()?,
                fence: redis::from_redis_value(fence.clone()).ok()?,
                ahead_ms: ahead.parse().unwrap_or(0),
            })
        })
        .collect()
}
