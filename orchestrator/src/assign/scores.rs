//! What results teach of each agent: how long a step takes it, and how well its last steps went.
//!
//! Both are averages in which the latest weigh most. A bad score is forgiven by time, half of it in half a minute, so that
//! an agent that failed is tried again, first with little. Known are only the agents of the configuration.

use mesh_protocol::AgentId;
use mesh_protocol::outcome::{Outcome, StepError, StepResult};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Weight of the latest result in the score: two failures in a row are below [`USABLE`](super::USABLE).
const SCORE_WEIGHT: f64 = 0.3;
/// Weight of the latest result in the time.
const TIME_WEIGHT: f64 = 0.2;
/// Half of what a score lacks is forgiven after this.
const FORGIVEN: Duration = Duration::from_secs(30);
/// A measured time is at most this: clocks of other machines may be set.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What one step taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// It was done, in that time.
    Done(Duration),
    /// The agent failed.
    Failed,
}

impl Lesson {
    /// What `result` teaches of its agent; nothing where the fault was the step's own.
    pub fn of(result: &StepResult) -> Option<Self> {
        match &result.outcome {
            Outcome::Completed { .. } => {
                let took = result.finished_at.since(result.started_at);
                Some(Self::Done(took.min(LONGEST)))
            }
            Outcome::Failed { error } => is_the_agents(error).then_some(Self::Failed),
        }
    }
}

/// Whether an agent is to blame: it was not there, too late or broken, or said that it could not. What it refuses (4xx)
/// others would refuse as well.
fn is_the_agents(error: &StepError) -> bool {
    match error.code.as_str() {
        "agent_unreachable" | "agent_timeout" | "agent_answer" | "poison" | "deadline_exceeded" => {
            true
        }
        "agent_status" => {
            let status = error.detail.strip_prefix("agent answered ");
            let status = status.and_then(|s| s.get(..3)?.parse::<u16>().ok());
            status.is_none_or(|s| s >= 500 || matches!(s, 408 | 429))
        }
        _ => false,
    }
}

/// The scores of all agents.
#[derive(Debug)]
pub struct Scores(Mutex<HashMap<AgentId, Score>>);

#[derive(Debug, Clone, Copy)]
struct Score {
    value: f64,
    at: Instant,
    service: Option<f64>,
    answered: Instant,
}

/// What is known of an agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learnt {
    /// 0 to 1.
    pub score: f64,
    /// Milliseconds of a step.
    pub service: Option<f64>,
    /// How long ago that was measured last.
    pub quiet: Duration,
}

impl Score {
    fn at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        let kept = 0.5_f64.powf(since.as_secs_f64() / FORGIVEN.as_secs_f64());
        1.0 - (1.0 - self.value) * kept
    }
}

impl Scores {
    /// Nothing is known of `agents`, which counts as good.
    pub fn new(agents: &[AgentId]) -> Self {
        let now = Instant::now();
        let unknown = Score {
            value: 1.0,
            at: now,
            service: None,
            answered: now,
        };
        Self(Mutex::new(
            agents.iter().map(|a| (a.clone(), unknown)).collect(),
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Score>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from one step.
    pub fn learn(&self, agent: &AgentId, lesson: Lesson, now: Instant) {
        let mut scores = self.lock();
        let Some(score) = scores.get_mut(agent) else {
            return;
        };
        let outcome = match lesson {
            Lesson::Done(took) => {
                let took = took.as_secs_f64() * 1000.0;
                let mixed = score.service.map(|s| s + TIME_WEIGHT * (took - s));
                score.service = Some(mixed.unwrap_or(took));
                score.answered = now;
                1.0
            }
            Lesson::Failed => 0.0,
        };
        let before = score.at(now);
        score.value = (before + SCORE_WEIGHT * (outcome - before)).clamp(0.0, 1.0);
        score.at = now;
    }

    /// What is known of `agent`.
    pub fn of(&self, agent: &AgentId, now: Instant) -> Learnt {
        let score = self.lock().get(agent).copied();
        score.map_or(
            Learnt {
                score: 1.0,
                service: None,
                quiet: Duration::ZERO,
            },
            |score| Learnt {
                score: score.at(now),
                service: score.service,
                quiet: now.saturating_duration_since(score.answered),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::USABLE;

    const MS: Duration = Duration::from_millis(1);

    fn one() -> (Scores, AgentId, Instant) {
        let agent: AgentId = "a".parse().unwrap();
        (
            Scores::new(std::slice::from_ref(&agent)),
            agent,
            Instant::now(),
        )
    }

    #[test]
    fn failures_in_a_row_exclude_and_time_forgives() {
        let (scores, a, now) = one();
        assert_eq!(scores.of(&a, now).score, 1.0);
        scores.learn(&a, Lesson::Failed, now);
        assert!(scores.of(&a, now).score >= USABLE);
        scores.learn(&a, Lesson::Failed, now);
        assert!(scores.of(&a, now).score < USABLE);
        for _ in 0..1000 {
            scores.learn(&a, Lesson::Failed, now);
        }
        // However often it failed, half a minute later it is tried again; should it fail, less soon than at first.
        let later = now + FORGIVEN + MS;
        assert!(scores.of(&a, later - FORGIVEN / 2).score < USABLE);
        assert!(scores.of(&a, later).score >= USABLE);
        scores.learn(&a, Lesson::Failed, later);
        assert!(scores.of(&a, later + FORGIVEN / 4).score < USABLE);
        let mut good = later + FORGIVEN;
        for _ in 0..10 {
            scores.learn(&a, Lesson::Done(MS), good);
            good += MS;
        }
        assert!(scores.of(&a, good).score > 0.98);
    }

    #[test]
    fn times_follow_what_is_measured() {
        let (scores, a, now) = one();
        assert_eq!(scores.of(&a, now).service, None);
        scores.learn(&a, Lesson::Done(100 * MS), now);
        assert_eq!(scores.of(&a, now).service, Some(100.0));
        for _ in 0..40 {
            scores.learn(&a, Lesson::Done(10 * MS), now);
        }
        assert!((scores.of(&a, now).service.unwrap() - 10.0).abs() < 0.1);
        // A failure says nothing of the time.
        scores.learn(&a, Lesson::Failed, now + 50 * MS);
        assert_eq!(scores.of(&a, now + 50 * MS).quiet, 50 * MS);
        let stranger: AgentId = "stranger".parse().unwrap();
        scores.learn(&stranger, Lesson::Failed, now);
        assert_eq!(scores.of(&stranger, now).score, 1.0);
    }

    #[test]
    fn what_a_step_is_to_blame_for_teaches_nothing() {
        let blamed = |code: &str, detail: &str| is_the_agents(&StepError::new(code, detail));
        for (code, detail) in [
            ("agent_unreachable", ""),
            ("agent_timeout", ""),
            ("deadline_exceeded", ""),
            ("agent_status", "agent answered 503 Service Unavailable"),
            (
                "agent_status",
                "agent answered 429 Too Many Requests: slow down",
            ),
            ("agent_status", "odd"),
        ] {
            assert!(blamed(code, detail), "{code} {detail}");
        }
        for (code, detail) in [
            ("agent_status", "agent answered 422 Unprocessable Entity"),
            ("not_allowed", ""),
            ("step_too_large", ""),
            ("cancelled", ""),
        ] {
            assert!(!blamed(code, detail), "{code} {detail}");
        }
    }
}
