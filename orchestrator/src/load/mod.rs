//! How busy the agents are, for the gateways' filters ([`mesh_protocol::load`]).
//!
//! ```text
//!  runs ──sent, ended──▶ Load ◀──look── broker: consumers
//!                         └──▶ GET /internal/load
//! ```
//!
//! Only the agents of the configuration are known here, so that the memory is bounded by them and by the
//! steps under way.

mod consumers;
mod figures;
mod glance;

pub use glance::Glance;

use crate::assign::{Lesson, Scores};
use crate::metrics::Metrics;
use crate::run::machine::StepStatus;
use crate::store::StepRecord;
use consumers::Consumers;
use figures::Figures;
use mesh_bus::Bus;
use mesh_protocol::load::AgentLoad;
use mesh_protocol::{AgentId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How busy each agent is.
pub struct Load {
    figures: Mutex<HashMap<AgentId, Figures>>,
    consumers: Consumers,
    glances: glance::Glances,
    scores: Scores,
}

impl Load {
    /// Nothing is under way at `agents`.
    pub fn new(bus: Arc<dyn Bus>, agents: Vec<AgentId>, metrics: Arc<Metrics>) -> Self {
        let figures = agents.iter().cloned().map(|a| (a, Figures::default()));
        Self {
            figures: Mutex::new(figures.collect()),
            glances: glance::Glances::default(),
            scores: Scores::new(&agents),
            consumers: Consumers::new(bus, agents, metrics),
        }
    }

    /// How busy each agent is now, without those of which the broker tells nothing.
    pub async fn look(&self) -> BTreeMap<String, AgentLoad> {
        let consumers = self.consumers.count().await;
        let (now, clock) = (Timestamp::now(), Instant::now());
        let mut figures = self.lock();
        let loads = consumers.into_iter().filter_map(|(agent, consumers)| {
            let figures = figures.get_mut(&agent)?;
            let load = AgentLoad {
                consumers,
                depth: figures.depth(),
                oldest_ms: millis(figures.oldest(now)),
                rate_per_s: figures.rate(clock),
            };
            Some((agent.to_string(), load))
        });
        loads.collect()
    }

    /// Steps that were sent from here and have not ended, by agent.
    pub fn depths(&self) -> BTreeMap<AgentId, u64> {
        let figures = self.lock();
        figures
            .iter()
            .map(|(agent, f)| (agent.clone(), f.depth()))
            .collect()
    }

    /// Steps that one more step of `agent` would wait for: what waited at the broker as of `glance`, whoever sent it, with
    /// what came and went here since; at least what is under way here; and what is planned here and not sent yet.
    pub fn queue(&self, agent: &AgentId, glance: &Glance) -> u64 {
        let figures = self.lock();
        let (depth, promised) = figures
            .get(agent)
            .map_or((0, 0), |f| (f.depth(), f.promised()));
        let waiting = glance
            .queues
            .get(agent)
            .map_or(0, |d| u64::from(d.messages));
        let before = glance.under_way.get(agent).copied().unwrap_or(depth);
        let waiting = (waiting + depth).saturating_sub(before);
        waiting.max(depth) + promised
    }

    /// Hears that a step is planned for `agent`.
    pub fn promise(&self, agent: &AgentId) {
        if let Some(figures) = self.lock().get_mut(agent) {
            figures.promise();
        }
    }

    /// What is under way by agent, at the moment at which promises are forgotten.
    fn begin_anew(&self) -> BTreeMap<AgentId, u64> {
        let mut figures = self.lock();
        figures.values_mut().for_each(Figures::forget_promises);
        let depths = figures.iter().map(|(agent, f)| (agent.clone(), f.depth()));
        depths.collect()
    }

    /// What results taught of the agents.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Figures>> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What one run has under way. When it is dropped, nothing of it is any more.
pub struct UnderWay {
    load: Arc<Load>,
    /// Agent and time of each step that was sent and has not ended.
    steps: HashMap<usize, (AgentId, Timestamp)>,
}

impl UnderWay {
    /// Nothing is under way yet.
    pub fn new(load: Arc<Load>) -> Self {
        Self {
            load,
            steps: HashMap::new(),
        }
    }

    /// Hears that the step at `place` is now as `step` says.
    pub fn see(&mut self, place: usize, step: &StepRecord) {
        let now = Instant::now();
        match (step.status, step.dispatched_at) {
            (StepStatus::Dispatched, Some(sent)) if !self.steps.contains_key(&place) => {
                if let Some(figures) = self.load.lock().get_mut(&step.agent) {
                    figures.sent(sent, now);
                    self.steps.insert(place, (step.agent.clone(), sent));
                }
            }
            (status, _) if status.is_settled() => {
                if let Some((agent, sent)) = self.steps.remove(&place)
                    && let Some(figures) = self.load.lock().get_mut(&agent)
                {
                    // Others' time was up, or they were called off.
                    let answered = step.attempts.is_some_and(|times| times > 0);
                    let late = step.error.as_ref();
                    if !answered && late.is_some_and(|e| e.code == "deadline_exceeded") {
                        let lesson = Lesson::Failed;
                        self.load.scores.learn(&agent, lesson, now.into());
                    }
                    figures.ended(sent, answered, now);
                }
            }
            _ => {}
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut figures = self.load.lock();
        for (agent, sent) in self.steps.values() {
            if let Some(figures) = figures.get_mut(agent) {
                figures.ended(*sent, false, now);
            }
        }
    }
}
