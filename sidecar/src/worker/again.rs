//! What becomes of a step whose calls all failed: tried again later, or at its end.
//!
//! A step that waits lies in a queue of the broker, so a restart forgets nothing and no place is taken meanwhile.
//! Queues have a length of waiting each, in powers of two; a length between them is waited for in parts, the longest
//! first. What is left after a part stands beside the message, as a length and not as a time of day: clocks jump.

use super::invoke::{Answer, Answered, DEADLINE, POISON};
use super::wire::Step;
use crate::config;
use mesh_bus::Trail;
use mesh_protocol::Timestamp;
use std::time::Duration;

/// When steps are tried again.
#[derive(Debug)]
pub(super) struct Policy {
    settings: config::Delivery,
    /// The lengths that there are queues for, shortest first.
    delays: Vec<u32>,
}

/// What is to be done with a delivery once its answer stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The answer goes out, and that is all.
    Answer,
    /// The answer goes out, and the message is kept as a dead letter of this kind.
    Keep(&'static str),
    /// Nobody hears of it yet: the message comes back.
    Later(Later),
}

/// How a message is put off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Later {
    pub(super) delay_ms: u32,
    pub(super) trail: Trail,
}

impl Policy {
    pub(super) fn new(settings: &config::Delivery) -> Self {
        Self {
            settings: settings.clone(),
            delays: settings.delays(),
        }
    }

    /// Whether a step that ended so many holders is to be handed to the agent no more.
    pub(super) fn is_poison(&self, crashes: u32) -> bool {
        crashes >= self.settings.max_crashes
    }

    /// The next part of a wait that is not over.
    pub(super) fn part(&self, mut trail: Trail) -> Option<Later> {
        let delay_ms = self.longest_within(trail.wait_ms)?;
        trail.wait_ms -= u64::from(delay_ms);
        Some(Later { delay_ms, trail })
    }

    /// What becomes of `step`, of which `answer` came at `now`; `trail` is what befell it before.
    pub(super) fn next(&self, step: &Step, answer: &Answer, trail: &Trail, now: Timestamp) -> Next {
        let Answered::Failed(error) = &answer.answered else {
            return Next::Answer;
        };
        if answer.lasting {
            return if self.settings.keep_refused {
                Next::Keep("refused_by_agent")
            } else {
                Next::Answer
            };
        }
        match error.code.as_str() {
            POISON => return Next::Keep(POISON),
            // Nobody wants it any more, so there is nothing to keep.
            DEADLINE => return Next::Answer,
            _ => {}
        }
        let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
        let wait_ms = self.wait_ms(trail.retries, chance);
        let due = now.plus(Duration::from_millis(wait_ms));
        let in_time = deadline(step, trail).is_none_or(|end| due.millis() < end);
        if trail.retries >= self.settings.delayed_retries || !in_time {
            return Next::Keep("exhausted");
        }
        let mut trail = trail.clone();
        trail.retries += 1;
        trail.calls = answer.attempts;
        trail
            .first_seen_ms
            .get_or_insert(answer.started_at.millis());
        trail.wait_ms = wait_ms;
        trail.note(now.millis(), &error.to_string());
        self.part(trail)
            .map_or(Next::Keep("exhausted"), Next::Later)
    }

    /// How long a step waits that was put off so often before: doubled each time, and between half of that and all of
    /// it by `chance`, in parts for which there are queues.
    fn wait_ms(&self, retries: u32, chance: u32) -> u64 {
        let full = self.settings.longest_wait_ms(retries);
        let part = self.delays.first().copied().map_or(1, u64::from);
        let (least, most) = ((full / 2).div_ceil(part).max(1), (full / part).max(1));
        let more = ((most.saturating_sub(least) + 1) * u64::from(chance)) >> 32;
        (least + more) * part
    }

    fn longest_within(&self, wait_ms: u64) -> Option<u32> {
        let within = |delay: &&u32| u64::from(**delay) <= wait_ms;
        self.delays.iter().rev().find(within).copied()
    }
}

/// `trail` with the calls that brought `answer`.
pub(super) fn last(mut trail: Trail, answer: &Answer) -> Trail {
    trail.calls = answer.attempts.max(trail.calls);
    trail
        .first_seen_ms
        .get_or_insert(answer.started_at.millis());
    trail
}

/// When `step` has to be done, in milliseconds since 1970. Who replays a dead letter wants it done now, whenever it
/// was wanted first.
pub(super) fn deadline(step: &Step, trail: &Trail) -> Option<u64> {
    step.deadline_ms.filter(|_| trail.replays == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_protocol::outcome::StepError;

    fn policy() -> Policy {
        Policy::new(&config::Delivery::default())
    }

    fn step(deadline_ms: Option<u64>) -> Step {
        let text = r#"{"task_id":"t","step_id":"s","agent":"a","action":"x","role":"r"}"#;
        let mut step = super::super::wire::read(text.as_bytes(), &"a".parse().unwrap()).unwrap();
        step.deadline_ms = deadline_ms;
        step
    }

    fn failed(code: &str, lasting: bool) -> Answer {
        Answer {
            answered: Answered::Failed(StepError::new(code, "why")),
            lasting,
            ..Answer::completed(bytes::Bytes::new())
        }
    }

    fn patient() -> Policy {
        Policy::new(&config::Delivery {
            delayed_retries: 6,
            ..config::Delivery::default()
        })
    }

    #[test]
    fn waits_double_within_their_bounds_and_differ_by_chance() {
        // No more queues than the retries need.
        assert_eq!(policy().delays, [500, 1_000, 2_000, 4_000]);
        let policy = patient();
        assert_eq!(policy.delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
        for (retries, least, most) in [
            (0, 500, 1_000),
            (1, 1_000, 2_000),
            (3, 4_000, 8_000),
            (5, 15_000, 30_000),
            (200, 15_000, 30_000),
        ] {
            assert_eq!(policy.wait_ms(retries, 0), least);
            assert_eq!(policy.wait_ms(retries, u32::MAX), most);
        }
    }

    #[test]
    fn a_wait_is_made_up_of_parts() {
        let policy = patient();
        let mut trail = Trail {
            wait_ms: 15_500,
            ..Trail::default()
        };
        let mut parts = Vec::new();
        while let Some(later) = policy.part(trail.clone()) {
            parts.push(later.delay_ms);
            trail = later.trail;
        }
        assert_eq!(parts, [8_000, 4_000, 2_000, 1_000, 500]);
        assert_eq!(trail.wait_ms, 0);
    }

    #[test]
    fn what_may_pass_comes_again_until_its_tries_or_its_time_are_used_up() {
        let (policy, now) = (policy(), Timestamp::from_millis(10_000));
        let answer = failed("agent_status", false);
        let mut trail = Trail::default();
        for retries in 1..=3 {
            match policy.next(&step(None), &answer, &trail, now) {
                Next::Later(later) => trail = later.trail,
                other => panic!("{other:?}"),
            }
            assert_eq!(
                (trail.retries, trail.history.len()),
                (retries, retries as usize)
            );
        }
        let next = policy.next(&step(None), &answer, &trail, now);
        assert_eq!(next, Next::Keep("exhausted"));
        // No time for the shortest wait; but whoever replays it gives it time.
        let late = step(Some(10_400));
        let fresh = Trail::default();
        assert_eq!(
            policy.next(&late, &answer, &fresh, now),
            Next::Keep("exhausted")
        );
        let replayed = Trail {
            replays: 1,
            ..Trail::default()
        };
        let next = policy.next(&late, &answer, &replayed, now);
        assert!(matches!(next, Next::Later(_)), "{next:?}");
    }

    #[test]
    fn what_is_final_is_answered() {
        let (policy, now) = (policy(), Timestamp::from_millis(0));
        let next = |answer| policy.next(&step(None), &answer, &Trail::default(), now);
        assert_eq!(next(failed("agent_status", true)), Next::Answer);
        assert_eq!(next(failed(DEADLINE, false)), Next::Answer);
        assert_eq!(next(failed(POISON, false)), Next::Keep(POISON));
        let keeping = Policy::new(&config::Delivery {
            keep_refused: true,
            ..config::Delivery::default()
        });
        let refused = failed("agent_status", true);
        let kept = keeping.next(&step(None), &refused, &Trail::default(), now);
        assert_eq!(kept, Next::Keep("refused_by_agent"));
    }
}
