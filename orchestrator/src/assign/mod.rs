//! Which agent takes a step that is bound to a capability and to nobody.
//!
//! ```text
//!  draft: capability, no agent ─▶ Assigner ─▶ choose ─▶ agent, and why, into the plan
//!                                    ▲
//!   broker: how long queues are ─────┤ (at most a second old, never waited for long)
//!   results: time, success ─▶ Scores ┘
//! ```
//!
//! [`choose`] is pure. What is learnt is each replica's own: all see results of the same agents, and the queues, which all
//! of them fill, are the broker's word. So nothing is asked of a store while a client waits for its plan.

mod choose;
mod scores;

pub use choose::{Choice, Known, USABLE, choose};
pub use scores::{Lesson, Scores};

use crate::load::Load;
use crate::metrics::Metrics;
use crate::planner::draft::{Draft, DraftStep};
use crate::planner::{Catalog, Originator};
use mesh_protocol::AgentId;
use mesh_protocol::plan::{Assignment, Candidate, Why};
use mesh_protocol::task::TaskRequest;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Longest key by which tasks stick to an agent, in bytes: it is a name, not a document. More of it does not count.
const MAX_STICKY: usize = 256;

/// Finds agents for steps.
pub struct Assigner {
    load: Arc<Load>,
    metrics: Arc<Metrics>,
    turn: AtomicU64,
}

impl Assigner {
    /// One that knows what `load` does.
    pub fn new(load: Arc<Load>, metrics: Arc<Metrics>) -> Self {
        Self {
            load,
            metrics,
            turn: AtomicU64::new(0),
        }
    }

    /// Gives each step of `draft` that names a capability and no agent to one of those who can do it, and take steps on
    /// behalf of `originator`; where none does, to one of them all the same, which refuses it and says why. A capability
    /// that nobody has is left to the check.
    pub async fn assign(
        &self,
        draft: &mut Draft,
        request: &TaskRequest,
        originator: &Originator,
        catalog: &Catalog,
    ) {
        for step in &mut draft.steps {
            if !step.agent.is_empty() {
                continue;
            }
            let Some(capability) = step.capability.clone() else {
                continue;
            };
            let mut able: Vec<&crate::config::Agent> = catalog.capable(&capability).collect();
            let takes = |agent: &&crate::config::Agent| originator.reaches(agent);
            if able.iter().any(takes) {
                able.retain(takes);
            }
            if able.is_empty() {
                continue;
            }
            let known = self.known(&able).await;
            let sticky = sticky(step, request);
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(choice) = choose(&known, sticky.as_deref(), turn) else {
                continue;
            };
            let Some(chosen) = known.get(choice.place).map(|k| k.agent.clone()) else {
                continue;
            };
            self.load.promise(&chosen);
            self.metrics.assigned(&chosen, choice.why.as_str());
            step.agent = chosen.as_str().to_owned();
            step.assignment = Some(told(capability, chosen, &known, &choice));
        }
    }

    async fn known(&self, able: &[&crate::config::Agent]) -> Vec<Known> {
        let glance = if able.len() > 1 {
            self.load.glance().await
        } else {
            Arc::default()
        };
        let now = Instant::now();
        let known = able.iter().map(|agent| {
            let there = glance.queues.get(&agent.id);
            let learnt = self.load.scores().of(&agent.id, now);
            Known {
                agent: agent.id.clone(),
                consumers: there.map(|d| d.consumers),
                concurrency: agent.concurrency,
                queue: self.load.queue(&agent.id, &glance),
                service: learnt.service,
                quiet: learnt.quiet,
                score: learnt.score,
            }
        });
        known.collect()
    }
}

/// The key by which the step sticks to an agent: its own, or that of the task's payload (`sticky`, or `options.sticky`).
fn sticky(step: &DraftStep, request: &TaskRequest) -> Option<String> {
    let of = |payload: &Map<String, Value>| {
        let nested = payload.get("options").and_then(|o| o.get("sticky"));
        match payload.get("sticky").or(nested)? {
            Value::String(key) if !key.is_empty() => Some(key.clone()),
            Value::Number(key) => Some(key.to_string()),
            _ => None,
        }
    };
    let key = step
        .sticky
        .clone()
        .or_else(|| step.payload.as_ref().and_then(of))
        .or_else(|| of(&request.payload))?;
    let end = (0..=MAX_STICKY.min(key.len()))
        .rev()
        .find(|&n| key.is_char_boundary(n));
    key.get(..end?).map(str::to_owned)
}

fn told(capability: String, chosen: AgentId, known: &[Known], choice: &Choice) -> Assignment {
    let mut order: Vec<usize> = (0..known.len()).collect();
    // The chosen one first, whatever the reason; others as they were reckoned.
    order.sort_by(|&a, &b| {
        let key = |place: usize| (place != choice.place, choice.costs.get(place).copied());
        let ((a_not, a_cost), (b_not, b_cost)) = (key(a), key(b));
        let costs = a_cost
            .unwrap_or(f64::MAX)
            .total_cmp(&b_cost.unwrap_or(f64::MAX));
        a_not.cmp(&b_not).then(costs)
    });
    let most = match choice.why {
        Why::Only => 0,
        _ => Assignment::MAX_CANDIDATES,
    };
    let candidates = order.into_iter().take(most);
    let candidates = candidates.filter_map(|place| {
        let known = known.get(place)?;
        let expected = choice.expected.get(place).copied().flatten();
        Some(Candidate {
            agent: known.agent.clone(),
            expected_ms: expected.map(whole),
            queue: known.queue,
            score: (known.score * 100.0).round() / 100.0,
        })
    });
    Assignment {
        capability,
        chosen,
        why: choice.why,
        candidates: candidates.collect(),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is never negative"
)]
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(step: Option<&str>, payload: Value) -> Option<String> {
        let mut request = TaskRequest::from_json(br#"{"task":"x"}"#).unwrap();
        request.payload = payload.as_object().cloned().unwrap();
        let step = DraftStep {
            sticky: step.map(str::to_owned),
            ..DraftStep::default()
        };
        sticky(&step, &request)
    }

    #[test]
    fn the_nearest_key_counts() {
        assert_eq!(key(Some("a"), json!({"sticky": "b"})).as_deref(), Some("a"));
        assert_eq!(key(None, json!({"sticky": "b"})).as_deref(), Some("b"));
        assert_eq!(key(None, json!({"sticky": 7})).as_deref(), Some("7"));
        let nested = json!({"options": {"sticky": "c"}});
        assert_eq!(key(None, nested).as_deref(), Some("c"));
        for none in [
            json!({}),
            json!({"sticky": true}),
            json!({"sticky": ""}),
            json!({"options": 1}),
        ] {
            assert_eq!(key(None, none), None);
        }
        let long = key(None, json!({"sticky": "ü".repeat(1000)})).unwrap();
        assert_eq!(long.len(), MAX_STICKY);
    }
}
