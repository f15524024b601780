//! What a filter knows of the agents: asked of the orchestrator on every tick, kept, and believed for a
//! stated time.

use crate::config::{Load, WhenStale};
use crate::fetch::Service;
use crate::{ConfigError, Fetch, Fetched, Host};
use mesh_protocol::load::{self, AgentLoad, Loads};
use std::cell::RefCell;

/// The only call that is made.
const ID: u32 = 1;
/// How often may be asked, in milliseconds.
const INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=600_000;
/// How many intervals what is known may be believed.
const STALE_AFTER: std::ops::RangeInclusive<u32> = 1..=1_000;

/// What is known, and how it is learned.
pub(crate) struct Knowledge {
    asked: Fetch,
    interval_ms: u32,
    stale_after_ns: u64,
    when_stale: WhenStale,
    // A filter instance runs on one thread; decisions share the policy, hence the cell.
    learned: RefCell<Option<Learned>>,
}

struct Learned {
    at_ns: u64,
    loads: Loads,
}

// Written by hand: the call holds a token.
impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knowledge")
            .field("authority", &self.asked.authority)
            .field("interval_ms", &self.interval_ms)
            .finish_non_exhaustive()
    }
}

impl Knowledge {
    pub(crate) fn compile(
        config: &Load,
        path: &str,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let before = faults.len();
        let (at, host, token) = (&config.authority, &config.host, &config.token);
        let service = Service::compile(at, host, token, path, faults);
        let mut wrong = |field: &str, what: String| {
            faults.push(ConfigError::new(format!("{path}.{field}"), what));
        };
        if !INTERVAL_MS.contains(&config.interval_ms) {
            let (low, high) = (INTERVAL_MS.start(), INTERVAL_MS.end());
            wrong("interval_ms", format!("must be from {low} to {high}"));
        }
        if !STALE_AFTER.contains(&config.stale_after) {
            let (low, high) = (STALE_AFTER.start(), STALE_AFTER.end());
            wrong("stale_after", format!("must be from {low} to {high}"));
        }
        let mut asked = service.get(ID, load::PATH);
        asked
            .headers
            .push(("accept", "application/json".to_owned()));
        (faults.len() == before).then(|| Self {
            asked,
            interval_ms: config.interval_ms,
            stale_after_ns: u64::from(config.interval_ms)
                .saturating_mul(config.stale_after.into())
                .saturating_mul(1_000_000),
            when_stale: config.when_stale,
            learned: RefCell::default(),
        })
    }

    pub(crate) fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    pub(crate) fn when_stale(&self) -> WhenStale {
        self.when_stale
    }

    pub(crate) fn tick(&self) -> Vec<Fetch> {
        vec![self.asked.clone()]
    }

    /// Takes in an answer; one that is none leaves what was known, to grow stale.
    pub(crate) fn fetched(&self, id: u32, fetched: &Fetched, host: &dyn Host) {
        let Fetched::Answer { status: 200, body } = fetched else {
            return;
        };
        if id != ID {
            return;
        }
        if let Ok(loads) = serde_json::from_slice(body)
            && let Ok(at_ns) = host.now_ns()
            && let Ok(mut learned) = self.learned.try_borrow_mut()
        {
            *learned = Some(Learned { at_ns, loads });
        }
    }

    /// Shows `look` what is known at `now_ns`; none when that is stale, or nothing.
    pub(crate) fn at<T>(&self, now_ns: u64, look: impl FnOnce(&Loads) -> T) -> Option<T> {
        let learned = self.learned.try_borrow().ok()?;
        let learned = learned.as_ref()?;
        let age_ns = now_ns.saturating_sub(learned.at_ns);
        (age_ns <= self.stale_after_ns).then(|| look(&learned.loads))
    }
}

/// Whether an agent has nobody who works; of one that is not heard of nobody knows.
pub(crate) fn is_idle(load: Option<&AgentLoad>) -> bool {
    load.is_some_and(|load| load.consumers == 0)
}
