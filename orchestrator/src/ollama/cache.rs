//! Plans that are used again: for another task of the same originator and type, whose payload has the same keys and
//! types, while the agents, the model and what it is told are the same.
//!
//! Of the same originator alone: a payload may talk the model into a plan, and nobody is to plan for others in that way,
//! or to have others' plans given up by tasks that fail.
//!
//! A plan is kept when a run of it completed, and forgotten when one failed for what may be the plan's fault. A
//! plan that repeats values of its payload ([`shape::speaks_of`]) is not kept, since it is none for another.

use super::metrics::Metrics;
use super::shape;
use crate::config;
use crate::planner::check::Bounds;
use crate::planner::{Catalog, CheckedPlan, prompt};
use crate::run::dag::Dag;
use crate::store::{End, Owner, RunRecord, TaskStatus};
use lru::LruCache;
use mesh_protocol::outcome::StepError;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::TaskRequest;
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a plan out of the cache says among its risks.
pub const RISK: &str = "planned from the plan cache: the model made this plan for an earlier task of this type \
     and of this shape of payload";
/// Why runs fail that any plan could have failed with: of these none is given up.
const NOT_THE_PLANS: [&str; 7] = [
    "agent_unreachable",
    "agent_timeout",
    "broker_refused",
    "cancelled",
    "not_accepted",
    "corrupt",
    "lost",
];

type Key = [u8; 32];

/// The plans.
#[derive(Debug)]
pub struct PlanCache {
    /// Hash of everything but the task: agents, bounds, model, prompt.
    version: Key,
    plans: Mutex<LruCache<Key, Kept>>,
    life: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Kept {
    plan: Arc<CheckedPlan>,
    until: Instant,
}

impl PlanCache {
    /// An empty cache; `None` where `config` keeps none.
    pub fn new(
        config: &config::Ollama,
        catalog: &Catalog,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Option<Arc<Self>> {
        let entries = NonZeroUsize::new(config.cache.entries)?;
        let mut version = Sha256::new();
        shape::text(&config.model, &mut version);
        shape::text(prompt::VERSION, &mut version);
        // What the model is told of agents and bounds, word for word.
        let schema = prompt::schema(catalog, bounds);
        shape::text(&prompt::system(catalog, bounds, &schema), &mut version);
        Some(Arc::new(Self {
            version: version.finalize().into(),
            plans: Mutex::new(LruCache::new(entries)),
            life: Duration::from_secs(config.cache.ttl_s),
            metrics,
        }))
    }

    // Every change leaves it whole.
    fn plans(&self) -> MutexGuard<'_, LruCache<Key, Kept>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, request: &TaskRequest, owner: Option<&Owner>) -> Key {
        let mut key = Sha256::new();
        key.update(self.version);
        match owner {
            None => key.update([0]),
            Some(owner) => {
                key.update([1]);
                shape::text(&owner.origin, &mut key);
                shape::text(&owner.sub, &mut key);
            }
        }
        shape::text(&request.task_type, &mut key);
        shape::hash(&request.payload, &mut key);
        key.finalize().into()
    }

    /// A plan for `request` of `owner`, which says where it is from.
    pub fn find(&self, request: &TaskRequest, owner: Option<&Owner>) -> Option<CheckedPlan> {
        let key = self.key(request, owner);
        let found = {
            let mut plans = self.plans();
            match plans.get(&key) {
                Some(kept) if kept.until > Instant::now() => Some(Arc::clone(&kept.plan)),
                Some(_) => {
                    plans.pop(&key);
                    None
                }
                None => None,
            }
        };
        self.metrics
            .cache(if found.is_some() { "hit" } else { "miss" });
        let mut plan = (*found?).clone();
        plan.plan.risks.push(RISK.to_owned());
        Some(plan)
    }

    /// A run ended.
    pub fn ended(&self, run: &RunRecord, end: &End, dag: &Dag) {
        // A collaboration is asked for otherwise, and of other agents: it is no plan for a task of its type.
        if run.plan.collaboration.is_some() {
            return;
        }
        let owner = run.owner.as_ref();
        match end.status {
            TaskStatus::Completed => {
                let plan = CheckedPlan {
                    plan: run.plan.clone(),
                    dag: dag.clone(),
                };
                self.completed(&run.request, owner, plan);
            }
            TaskStatus::Failed => self.failed(&run.request, owner, end.error.as_ref()),
            TaskStatus::Cancelled | TaskStatus::Pending | TaskStatus::InProgress => {}
        }
    }

    /// A run of `plan` completed.
    fn completed(&self, request: &TaskRequest, owner: Option<&Owner>, plan: CheckedPlan) {
        let made = plan.plan.source == PlanSource::Ollama;
        if !made || plan.plan.risks.iter().any(|risk| risk == RISK) {
            return;
        }
        // Agents that were chosen by how busy they were then are no choice for now.
        let mut steps = plan.plan.execution_plan.iter();
        let chosen = steps.any(|step| step.assignment.is_some());
        if chosen || shape::speaks_of(&plan.plan, &request.payload) {
            self.metrics.cache("not_kept");
            return;
        }
        let kept = Kept {
            plan: Arc::new(plan),
            until: Instant::now() + self.life,
        };
        let key = self.key(request, owner);
        self.plans().put(key, kept);
        self.metrics.cache("kept");
    }

    /// A run of a plan for `request` failed.
    fn failed(&self, request: &TaskRequest, owner: Option<&Owner>, error: Option<&StepError>) {
        if error.is_some_and(|e| NOT_THE_PLANS.contains(&e.code.as_str())) {
            return;
        }
        let key = self.key(request, owner);
        if self.plans().pop(&key).is_some() {
            self.metrics.cache("dropped");
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
