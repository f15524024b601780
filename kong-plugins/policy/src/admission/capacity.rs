//! Whether a task could begin before its own deadline.
//!
//! The planner gives a step to every agent of a task's type, so a task waits for the slowest of them:
//!
//! ```text
//! wait(agent)  = depth ÷ rate                  where steps ended of late
//!              = age of the oldest step        where none did, and more wait than its consumers have in hand
//!              = 0                             otherwise, and of agents that nobody heard of
//!              = for ever                      where it has no consumer
//! patience     = timeout × (priority + 1) ÷ 11
//! refused      when the longest wait > patience; Retry-After = wait − patience
//! ```
//!
//! So a task of priority 10 is refused when it would begin after its deadline, one of priority 5 when
//! that would be after 6/11 of its time, one of priority 0 after 1/11: when queues grow, low priorities
//! are turned away first and leave room for the others. If nothing else came, the agents would work the
//! difference between wait and patience off in just that time, hence `Retry-After`.

use crate::knowledge::is_idle;
use mesh_protocol::load::{AgentLoad, Loads};
use mesh_protocol::task::MAX_PRIORITY;

/// Steps that a consumer may have in hand at once without being behind: the sidecar's own default.
const IN_HAND: u64 = 16;
/// What a client is told to wait for agents that nobody works for, in seconds: about as long as a
/// sidecar needs to come back.
const RETURN_S: u64 = 10;
/// Longest time that a client is told to wait, in seconds.
const MAX_RETRY_S: u64 = 3_600;

/// What stands in a task's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Late {
    /// The agent that it would wait for.
    pub(super) agent: String,
    /// How long, in milliseconds; none where nobody works.
    pub(super) wait_ms: Option<u64>,
    /// When it may be tried again, in seconds.
    pub(super) retry_after_s: u64,
}

/// Whether a task of this type could begin before its deadline.
///
/// # Errors
/// What stands in its way.
pub(super) fn in_time(
    loads: &Loads,
    task_type: &str,
    priority: u8,
    timeout_s: u32,
) -> Result<(), Late> {
    let named = loads.task_types.get(task_type);
    let agents: &[String] = match (named, &loads.general_agent) {
        (Some(agents), _) => agents,
        (None, Some(general)) => std::slice::from_ref(general),
        // The orchestrator says which types there are.
        (None, None) => &[],
    };
    let patience_ms = u64::from(timeout_s)
        .saturating_mul(1_000)
        .saturating_mul(u64::from(priority).saturating_add(1))
        / (u64::from(MAX_PRIORITY) + 1);
    let mut worst: Option<(&String, u64)> = None;
    for agent in agents {
        let load = loads.agents.get(agent);
        if is_idle(load) {
            return Err(Late {
                agent: agent.clone(),
                wait_ms: None,
                retry_after_s: RETURN_S,
            });
        }
        let wait_ms = load.map_or(0, wait_ms);
        if worst.is_none_or(|(_, longest_ms)| wait_ms > longest_ms) {
            worst = Some((agent, wait_ms));
        }
    }
    match worst {
        Some((agent, wait_ms)) if wait_ms > patience_ms => Err(Late {
            agent: agent.clone(),
            wait_ms: Some(wait_ms),
            retry_after_s: wait_ms
                .saturating_sub(patience_ms)
                .div_ceil(1_000)
                .clamp(1, MAX_RETRY_S),
        }),
        _ => Ok(()),
    }
}

fn wait_ms(load: &AgentLoad) -> u64 {
    match load.rate_per_s {
        // Conversions from floating point end at the bounds of the integer.
        Some(rate) if rate.is_finite() && rate > 0.0 => {
            (load.depth as f64 / rate * 1_000.0).ceil() as u64
        }
        _ if load.depth > IN_HAND.saturating_mul(load.consumers.into()) => load.oldest_ms,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(agents: &[(&str, u32, u64, u64, Option<f64>)]) -> Loads {
        Loads {
            agents: agents
                .iter()
                .map(|(name, consumers, depth, oldest_ms, rate_per_s)| {
                    let load = AgentLoad {
                        consumers: *consumers,
                        depth: *depth,
                        oldest_ms: *oldest_ms,
                        rate_per_s: *rate_per_s,
                    };
                    ((*name).to_owned(), load)
                })
                .collect(),
            task_types: [(
                "both".to_owned(),
                vec!["fast".to_owned(), "slow".to_owned()],
            )]
            .into(),
            general_agent: Some("general".to_owned()),
        }
    }

    #[test]
    fn waits_are_as_the_table_says() {
        for (consumers, depth, oldest_ms, rate, expected_ms) in [
            (1, 0, 0, Some(2.0), 0),
            (1, 10, 0, Some(2.0), 5_000),
            (1, 1, 0, Some(3.0), 334),
            (1, 17, 9_000, None, 9_000),
            (1, 16, 9_000, None, 0),
            (2, 32, 9_000, None, 0),
            (1, 17, 9_000, Some(0.0), 9_000),
            (1, 17, 9_000, Some(-1.0), 9_000),
            (1, 17, 9_000, Some(f64::NAN), 9_000),
            (1, u64::MAX, 9_000, Some(f64::MIN_POSITIVE), u64::MAX),
        ] {
            let load = AgentLoad {
                consumers,
                depth,
                oldest_ms,
                rate_per_s: rate,
            };
            assert_eq!(wait_ms(&load), expected_ms, "{load:?}");
        }
    }

    #[test]
    fn low_priorities_are_turned_away_first() {
        // 60 s behind.
        let loads = loads(&[("general", 1, 60, 0, Some(1.0))]);
        for (timeout_s, lowest) in [(60, Some(10)), (59, None), (110, Some(5)), (660, Some(0))] {
            let passes = (0..=10).find(|p| in_time(&loads, "any", *p, timeout_s).is_ok());
            assert_eq!(passes, lowest, "{timeout_s}");
        }
        let late = in_time(&loads, "any", 4, 110).unwrap_err();
        assert_eq!((late.wait_ms, late.retry_after_s), (Some(60_000), 10));
    }

    #[test]
    fn the_slowest_agent_counts() {
        let busy = loads(&[
            ("fast", 1, 1, 0, Some(10.0)),
            ("slow", 1, 100, 0, Some(1.0)),
        ]);
        assert_eq!(in_time(&busy, "both", 10, 30).unwrap_err().agent, "slow");
        assert_eq!(in_time(&busy, "both", 10, 100), Ok(()));
        let idle = loads(&[("fast", 0, 0, 0, None), ("slow", 1, 0, 0, None)]);
        let late = in_time(&idle, "both", 10, 86_400).unwrap_err();
        assert_eq!((late.wait_ms, late.retry_after_s), (None, RETURN_S));
    }

    #[test]
    fn what_nobody_heard_of_is_not_held_against_a_task() {
        let mut none = loads(&[]);
        assert_eq!(in_time(&none, "both", 0, 1), Ok(()));
        assert_eq!(in_time(&none, "any", 0, 1), Ok(()));
        none.general_agent = None;
        assert_eq!(in_time(&none, "any", 0, 1), Ok(()));
    }

    #[test]
    fn nobody_is_told_to_wait_for_ever() {
        let endless = loads(&[("general", 1, u64::MAX, 0, Some(0.001))]);
        let late = in_time(&endless, "any", 0, 1).unwrap_err();
        assert_eq!(late.retry_after_s, MAX_RETRY_S);
    }
}
