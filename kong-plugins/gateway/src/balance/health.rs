//! When a target is out, and when it is back: Kong's counters.
//!
//! Each kind of failure has its counter; a success sets the failures back, and a failure the successes.
//! A counter that reaches its threshold changes the state; a threshold of 0 switches the counter off.

use mesh_declarative::{Active, Healthchecks, Healthy, Passive, Unhealthy};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What was seen of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Status(u16),
    /// No connection, or it broke off.
    Tcp,
    Timeout,
}

/// The state of one target.
#[derive(Debug, Default)]
pub(super) struct Health {
    out: AtomicBool,
    counters: Mutex<Counters>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    successes: u8,
    http: u8,
    tcp: u8,
    timeouts: u8,
}

impl Health {
    pub(super) fn is_healthy(&self) -> bool {
        !self.out.load(Ordering::Relaxed)
    }
}

/// How health is found out.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub active: Option<Probe>,
    pub passive: Option<Rules>,
}

/// What counts, and for how much.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    healthy_statuses: Vec<u16>,
    unhealthy_statuses: Vec<u16>,
    successes: u8,
    http_failures: u8,
    tcp_failures: u8,
    timeouts: u8,
}

/// The gateway's own questions.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub rules: Rules,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
    pub concurrency: usize,
    /// Between two questions to a healthy target; None: never.
    pub healthy: Option<Duration>,
    /// Between two questions to one that is out; None: never.
    pub unhealthy: Option<Duration>,
}

impl Checks {
    pub(super) fn read(given: &Healthchecks, wrong: &mut impl FnMut(String)) -> Self {
        Self {
            active: given.active.as_ref().and_then(|a| Probe::read(a, wrong)),
            passive: given.passive.as_ref().and_then(|p| passive(p, wrong)),
        }
    }
}

fn passive(given: &Passive, wrong: &mut impl FnMut(String)) -> Option<Rules> {
    kind("passive", given.kind.as_deref(), wrong);
    let healthy = given.healthy.clone().unwrap_or_default();
    let unhealthy = given.unhealthy.clone().unwrap_or_default();
    if healthy.interval.is_some() || unhealthy.interval.is_some() {
        wrong("healthchecks.passive has no interval".to_owned());
    }
    let statuses: Vec<u16> = (200..=208).chain([226]).chain(300..=308).collect();
    let rules = Rules::read(&healthy, &unhealthy, &statuses, &[429, 500, 503]);
    rules.is_on().then_some(rules)
}

fn kind(which: &str, given: Option<&str>, wrong: &mut impl FnMut(String)) {
    if given.is_some_and(|kind| kind != "http") {
        wrong(format!(
            "healthchecks.{which}.type: http is the one that is supported"
        ));
    }
}

impl Rules {
    fn read(healthy: &Healthy, unhealthy: &Unhealthy, well: &[u16], ill: &[u16]) -> Self {
        let statuses = |given: &Option<Vec<u16>>, default: &[u16]| {
            given.clone().unwrap_or_else(|| default.to_vec())
        };
        Self {
            healthy_statuses: statuses(&healthy.http_statuses, well),
            unhealthy_statuses: statuses(&unhealthy.http_statuses, ill),
            successes: healthy.successes.unwrap_or_default(),
            http_failures: unhealthy.http_failures.unwrap_or_default(),
            tcp_failures: unhealthy.tcp_failures.unwrap_or_default(),
            timeouts: unhealthy.timeouts.unwrap_or_default(),
        }
    }

    fn is_on(&self) -> bool {
        let failures = [self.http_failures, self.tcp_failures, self.timeouts];
        self.successes > 0 || failures.iter().any(|f| *f > 0)
    }

    /// Counts an event; returns the new state when it has changed.
    pub(super) fn judge(&self, event: Event, health: &Health) -> Option<bool> {
        let healthy = health.is_healthy();
        let well = matches!(event, Event::Status(s) if self.healthy_statuses.contains(&s));
        if let Event::Status(status) = event
            && !well
            && !self.unhealthy_statuses.contains(&status)
        {
            return None;
        }
        let mut counters = health
            .counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What a healthy target answers well, with no failure before it, changes nothing.
        let reached = if well {
            let successes = counters.successes.saturating_add(1);
            *counters = Counters {
                successes,
                ..Counters::default()
            };
            self.successes > 0 && successes >= self.successes && !healthy
        } else {
            counters.successes = 0;
            let (counter, threshold) = match event {
                Event::Status(_) => (&mut counters.http, self.http_failures),
                Event::Tcp => (&mut counters.tcp, self.tcp_failures),
                Event::Timeout => (&mut counters.timeouts, self.timeouts),
            };
            *counter = counter.saturating_add(1);
            threshold > 0 && *counter >= threshold && healthy
        };
        if !reached {
            return None;
        }
        *counters = Counters::default();
        health.out.store(!well, Ordering::Relaxed);
        Some(well)
    }
}

impl Probe {
    fn read(given: &Active, wrong: &mut impl FnMut(String)) -> Option<Self> {
        kind("active", given.kind.as_deref(), wrong);
        let healthy = given.healthy.clone().unwrap_or_default();
        let unhealthy = given.unhealthy.clone().unwrap_or_default();
        let path = given.http_path.clone().unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            wrong("healthchecks.active.http_path is no path".to_owned());
        }
        let mut headers = Vec::new();
        for (name, values) in &given.headers {
            for value in values {
                let name_is_one = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
                if !name_is_one || http::HeaderValue::from_str(value).is_err() {
                    wrong(format!("healthchecks.active.headers: {name} is no header"));
                }
                headers.push((name.clone(), value.clone()));
            }
        }
        let concurrency = given.concurrency.unwrap_or(10);
        if concurrency == 0 {
            wrong("healthchecks.active.concurrency is 0".to_owned());
        }
        let mut seconds = |field: &str, given: Option<f64>| match given {
            Some(s) if !(0.0..=65535.0).contains(&s) => {
                wrong(format!(
                    "healthchecks.active.{field} is not from 0 to 65535"
                ));
                None
            }
            Some(s) if s > 0.0 => Some(Duration::from_secs_f64(s)),
            _ => None,
        };
        let timeout = seconds("timeout", given.timeout).unwrap_or(Duration::from_secs(1));
        let well = seconds("healthy.interval", healthy.interval);
        let ill = seconds("unhealthy.interval", unhealthy.interval);
        let failures = [429, 404, 500, 501, 502, 503, 504, 505];
        Some(Self {
            rules: Rules::read(&healthy, &unhealthy, &[200, 302], &failures),
            path,
            headers,
            timeout,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX).max(1),
            healthy: well,
            unhealthy: ill,
        })
        .filter(|probe| probe.healthy.is_some() || probe.unhealthy.is_some())
    }
}
