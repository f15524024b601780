//! One moment of the mesh in figures.

use super::metrics::{Histogram, Page};
use super::watch::{Heard, Kind, Watch, heard};
use mesh_protocol::load::AgentLoad;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a gateway refuses with: who is calling, how much, and not now.
const REFUSALS: [&str; 6] = ["401", "403", "413", "422", "429", "503"];

/// One moment. Times are in milliseconds, rates in events a second over the last ten seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    pub mesh: String,
    pub gateway: Gateway,
    pub orchestrator: Orchestrator,
    pub agents: Vec<Agent>,
}

/// The gateway. What is not known is `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Gateway {
    /// `up`, `unknown`, or what is wrong.
    pub state: String,
    pub connections: Option<f64>,
    pub requests: Option<f64>,
    pub requests_per_s: Option<f64>,
    pub refusals: Option<f64>,
    pub refusals_per_s: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// The orchestrator.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Orchestrator {
    pub state: String,
    /// Tasks that have not ended.
    pub runs: Option<f64>,
    pub tasks_per_s: Option<f64>,
    pub completed: Option<f64>,
    pub failed: Option<f64>,
    pub cancelled: Option<f64>,
    /// Plans by who made them.
    pub plans: BTreeMap<String, f64>,
    pub plan_p50_ms: Option<f64>,
    pub plan_p99_ms: Option<f64>,
}

/// An agent, by what its sidecar says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agent {
    pub name: String,
    pub state: String,
    /// Steps that its sidecar has.
    pub in_flight: Option<f64>,
    /// Steps that were sent and that nobody has yet.
    pub queued: Option<f64>,
    /// Age of the oldest step that has not ended.
    pub oldest_ms: Option<f64>,
    pub steps_per_s: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub completed: Option<f64>,
    pub errors: Option<f64>,
    /// Calls beyond a step's first, and waits before another delivery.
    pub retries: Option<f64>,
    /// `open` while it is sent nothing, else `closed`.
    pub breaker: Option<&'static str>,
}

/// What is known of the mesh now.
pub fn of(mesh: &str, watch: &Watch) -> Picture {
    let mut picture = Picture {
        mesh: mesh.to_owned(),
        gateway: Gateway::default(),
        orchestrator: Orchestrator::default(),
        agents: Vec::new(),
    };
    let loads = watch
        .sources
        .iter()
        .find_map(|(_, of)| heard(of).loads.clone());
    for (source, of) in &watch.sources {
        let heard = heard(of);
        let state = state(source.url.is_some(), &heard);
        let seen = Seen::of(&heard);
        match source.kind {
            Kind::Gateway => picture.gateway = gateway(state, seen.as_ref()),
            Kind::Orchestrator => picture.orchestrator = orchestrator(state, seen.as_ref()),
            Kind::Agent => {
                let load = loads
                    .as_ref()
                    .and_then(|loads| loads.agents.get(&source.name));
                let agent = agent(&source.name, state, seen.as_ref(), load);
                picture.agents.push(agent);
            }
        }
    }
    picture
}

fn state(known: bool, heard: &Heard) -> String {
    match &heard.state {
        _ if !known => "unknown".to_owned(),
        None => "asked".to_owned(),
        Some(Ok(())) => "up".to_owned(),
        Some(Err(why)) => why.clone(),
    }
}

/// The latest page, and the earliest that is kept.
struct Seen<'a> {
    now: &'a Page,
    then: &'a Page,
    seconds: f64,
}

impl<'a> Seen<'a> {
    fn of(heard: &'a Heard) -> Option<Self> {
        let (begun, then) = heard.pages.front()?;
        let (ended, now) = heard.pages.back()?;
        Some(Self {
            now,
            then,
            seconds: ended.duration_since(*begun).as_secs_f64(),
        })
    }

    /// How much a sum rose in a second; `None` with one page, and when its process began anew.
    fn rate(&self, sum: impl Fn(&Page) -> Option<f64>) -> Option<f64> {
        let (now, then) = (sum(self.now)?, sum(self.then).unwrap_or(0.0));
        (self.seconds > 0.0 && now >= then).then(|| (now - then) / self.seconds)
    }

    /// The times of late, or where there were none those since its begin; in milliseconds.
    fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let all: Histogram = self.now.histogram(histogram);
        let late = all.since(&self.then.histogram(histogram));
        let of = if late.count() > 0.0 { late } else { all };
        of.quantile(share).map(|seconds| seconds * 1_000.0)
    }
}

fn gateway(state: String, seen: Option<&Seen<'_>>) -> Gateway {
    const REQUESTS: &str = "gateway_requests_total";
    const TIMES: &str = "gateway_request_duration_seconds";
    let Some(seen) = seen else {
        return Gateway {
            state,
            ..Gateway::default()
        };
    };
    // A counter that nothing was counted in is not on the page.
    let all = |page: &Page| Some(page.sum(REQUESTS).unwrap_or(0.0));
    let refused = |page: &Page| {
        let refused = page.sum_of(REQUESTS, |l| REFUSALS.contains(&l.get("status")));
        Some(refused.unwrap_or(0.0))
    };
    Gateway {
        state,
        connections: seen.now.sum("gateway_connections"),
        requests: all(seen.now),
        requests_per_s: seen.rate(all),
        refusals: refused(seen.now),
        refusals_per_s: seen.rate(refused),
        p50_ms: seen.quantile(TIMES, 0.5),
        p99_ms: seen.quantile(TIMES, 0.99),
    }
}

fn orchestrator(state: String, seen: Option<&Seen<'_>>) -> Orchestrator {
    const TASKS: &str = "orchestrator_tasks_total";
    const PLANS: &str = "orchestrator_plan_duration_seconds";
    let Some(seen) = seen else {
        return Orchestrator {
            state,
            ..Orchestrator::default()
        };
    };
    let ended = |outcome: &str| {
        let ended = seen.now.sum_of(TASKS, |l| l.get("outcome") == outcome);
        Some(ended.unwrap_or(0.0))
    };
    Orchestrator {
        state,
        runs: seen.now.sum("orchestrator_tasks_in_flight"),
        tasks_per_s: seen.rate(|page| Some(page.sum(TASKS).unwrap_or(0.0))),
        completed: ended("completed"),
        failed: ended("failed"),
        cancelled: ended("cancelled"),
        plans: seen.now.by(&format!("{PLANS}_count"), "source"),
        plan_p50_ms: seen.quantile(PLANS, 0.5),
        plan_p99_ms: seen.quantile(PLANS, 0.99),
    }
}

fn agent(name: &str, state: String, seen: Option<&Seen<'_>>, load: Option<&AgentLoad>) -> Agent {
    const STEPS: &str = "agent_tasks_processed_total";
    const TIMES: &str = "agent_task_duration_seconds";
    let oldest = load.map(|load| load.oldest_ms);
    #[allow(clippy::cast_precision_loss)] // figures for people
    let (depth, oldest_ms) = (
        load.map(|load| load.depth as f64),
        oldest.map(|ms| ms as f64),
    );
    let Some(seen) = seen else {
        return Agent {
            name: name.to_owned(),
            state,
            queued: depth,
            oldest_ms,
            ..Agent::default()
        };
    };
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let sum = seen.now.sum_of(STEPS, |l| wanted(l.get("outcome")));
        Some(sum.unwrap_or(0.0))
    };
    let in_flight = seen.now.sum("agent_tasks_in_flight");
    let again = seen.now.sum("sidecar_agent_retries_total");
    let delayed = seen.now.sum("sidecar_delays_total");
    let breaker = seen
        .now
        .sum_of("sidecar_breaker_open", |l| l.get("direction") == "inbound");
    Agent {
        name: name.to_owned(),
        state,
        in_flight,
        queued: depth.map(|depth| (depth - in_flight.unwrap_or(0.0)).max(0.0)),
        oldest_ms,
        steps_per_s: seen.rate(|page| Some(page.sum(STEPS).unwrap_or(0.0))),
        p50_ms: seen.quantile(TIMES, 0.5),
        p99_ms: seen.quantile(TIMES, 0.99),
        completed: of(&|outcome| outcome == "completed"),
        errors: of(&|outcome| outcome != "completed"),
        retries: again.map(|again| again + delayed.unwrap_or(0.0)),
        breaker: breaker.map(|open| if open > 0.0 { "open" } else { "closed" }),
    }
}
