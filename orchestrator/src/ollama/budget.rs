//! Tokens that a consumer may use within a time.
//!
//! A budget is a bucket of the [`Quota`] port, so replicas share it wherever they share Redis: each token is
//! debt, time pays it off, and a debt beyond the budget's own time leaves nothing. What a call costs is known
//! only after it, so calls under way may go beyond the budget by what they use; the next ones wait for it.
//!
//! A quota that cannot be asked lets calls through: a budget keeps order among those who belong here, and an
//! order that cannot be kept for a moment is no reason to do no work.

use crate::config::{Budget, Budgets};
use crate::quota::{Quota, QuotaError};
use mesh_protocol::quota::{Usage, Used};
use std::sync::Arc;
use std::time::Duration;

/// The buckets' names begin with it; gateways' have no such beginning.
const PREFIX: &str = "model:";

/// The budgets of all consumers.
pub struct Ledger {
    budgets: Budgets,
    quota: Arc<dyn Quota>,
}

impl Ledger {
    /// Keeps `budgets` in `quota`.
    pub fn new(budgets: Budgets, quota: Arc<dyn Quota>) -> Self {
        Self { budgets, quota }
    }

    /// The budget of `consumer`, if it has one.
    fn budget(&self, consumer: &str) -> Option<Budget> {
        let own = self.budgets.consumers.get(consumer).copied();
        own.or(self.budgets.default).filter(|b| b.tokens > 0)
    }

    /// How long until `consumer` may use tokens again; `None` when it may now.
    ///
    /// # Errors
    /// [`QuotaError::Unavailable`].
    pub async fn exhausted(&self, consumer: &str) -> Result<Option<Duration>, QuotaError> {
        let Some(budget) = self.budget(consumer) else {
            return Ok(None);
        };
        let debt = self.exchange(consumer, budget, 0).await?;
        let token = Duration::from_nanos(emission(budget));
        let over = (debt + token).saturating_sub(Duration::from_secs(budget.per_s));
        Ok((!over.is_zero()).then_some(over))
    }

    /// Counts what `consumer` used.
    ///
    /// # Errors
    /// [`QuotaError::Unavailable`]; then it may not have been counted.
    pub async fn used(&self, consumer: &str, tokens: u64) -> Result<(), QuotaError> {
        let Some(budget) = self.budget(consumer).filter(|_| tokens > 0) else {
            return Ok(());
        };
        self.exchange(consumer, budget, tokens).await.map(|_| ())
    }

    async fn exchange(
        &self,
        consumer: &str,
        budget: Budget,
        units: u64,
    ) -> Result<Duration, QuotaError> {
        let usage = Usage {
            // No gateway: it does not count as one.
            gateway: String::new(),
            interval_ms: 1_000,
            used: vec![Used {
                key: format!("{PREFIX}{consumer}"),
                emission_ns: emission(budget),
                units,
                first_ago_ns: 0,
            }],
        };
        let standings = self.quota.exchange(&usage).await?;
        let debt = standings.debts_ns.first().copied().unwrap_or(0);
        Ok(Duration::from_nanos(debt))
    }
}

/// What a token costs, in nanoseconds.
fn emission(budget: Budget) -> u64 {
    (budget.per_s.saturating_mul(1_000_000_000) / budget.tokens.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::MemoryQuota;

    fn ledger(budgets: serde_json::Value) -> Ledger {
        let budgets = serde_json::from_value(budgets).unwrap();
        Ledger::new(budgets, Arc::new(MemoryQuota::new()))
    }

    #[tokio::test]
    async fn what_is_used_up_comes_back_with_time() {
        let ledger = ledger(serde_json::json!({
            "default": {"tokens": 100, "per_s": 3600},
            "consumers": {"rich": {"tokens": 1_000_000, "per_s": 3600}},
        }));
        assert_eq!(ledger.exhausted("a").await.unwrap(), None);
        ledger.used("a", 99).await.unwrap();
        assert_eq!(ledger.exhausted("a").await.unwrap(), None);
        ledger.used("a", 21).await.unwrap();
        let wait = ledger.exhausted("a").await.unwrap().unwrap();
        // Twenty of them and the next one are missing, at 36 s each.
        assert!((750..=757).contains(&wait.as_secs()), "{wait:?}");
        // Each for itself.
        assert_eq!(ledger.exhausted("b").await.unwrap(), None);
        ledger.used("rich", 5_000).await.unwrap();
        assert_eq!(ledger.exhausted("rich").await.unwrap(), None);
    }

    #[tokio::test]
    async fn without_a_budget_nothing_is_counted() {
        let ledger = ledger(serde_json::json!({}));
        ledger.used("a", u64::MAX).await.unwrap();
        assert_eq!(ledger.exhausted("a").await.unwrap(), None);
    }
}
