//! What is said of every service alike: the sidecar beside it, its health, and how it is called.

use super::gateway::filled;
use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::values;
use crate::finding::Finding;
use mesh_sidecar::config::{Health, HealthCheck, Settings};
use std::net::SocketAddr;
use std::time::Duration;

/// `sidecar:` of the gateway, the orchestrator or an agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sidecar {
    /// Where peers connect.
    pub listen: Option<At<SocketAddr>>,
    /// Where they are told to connect.
    pub advertise: Option<At<SocketAddr>>,
    /// Where the program sends its requests.
    pub outbound: Option<At<SocketAddr>>,
    /// Where health and metrics are served.
    pub admin_listen: Option<At<SocketAddr>>,
}

/// Which listeners a sidecar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// Beside a gateway: nobody of the mesh calls it.
    Out,
    /// Beside the orchestrator: it calls nobody.
    In,
    /// Beside an agent.
    Both,
}

pub(super) fn sidecar(ways: Ways) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<Sidecar> {
    move |reader, spot| {
        let mut f = reader.fields(spot)?;
        let mut sidecar = Sidecar::default();
        if ways != Ways::Out {
            sidecar.listen = f.optional(reader, "listen", values::listen);
            sidecar.advertise = f.optional(reader, "advertise", values::listen);
        }
        if ways != Ways::In {
            sidecar.outbound = f.optional(reader, "outbound", values::listen);
        }
        sidecar.admin_listen = f.optional(reader, "admin_listen", values::listen);
        f.finish(reader);
        Some(sidecar)
    }
}

/// `health:` of an agent.
pub(super) fn health(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Health> {
    let usual = Health::default();
    let mut f = reader.fields(spot)?;
    let times = || values::duration(Duration::from_millis(10)..=DAY);
    let path = f.optional(reader, "path", health_path);
    let tcp = f.optional(reader, "tcp", values::boolean);
    let command = f.optional(reader, "command", |r, s| filled(r, s, values::text));
    let health = Health {
        interval_ms: millis(f.optional(reader, "interval", times()), usual.interval_ms),
        timeout_ms: millis(f.optional(reader, "timeout", times()), usual.timeout_ms),
        healthy_after: number(
            f.optional(reader, "healthy_after", values::integer(1..=100)),
            usual.healthy_after,
        ),
        unhealthy_after: number(
            f.optional(reader, "unhealthy_after", values::integer(1..=100)),
            usual.unhealthy_after,
        ),
        check: usual.check,
    };
    f.finish(reader);
    let tcp = tcp.filter(|tcp| tcp.value);
    let given =
        usize::from(path.is_some()) + usize::from(tcp.is_some()) + usize::from(command.is_some());
    if given > 1 {
        let message = format!("{} asks in more than one way", spot.path);
        let finding = Finding::error("conflict", spot.node.place, spot.path, message);
        reader.push(finding.hint("keep one of path, tcp and command"));
        return None;
    }
    let check = match (path, tcp, command) {
        (Some(path), _, _) => HealthCheck::Http { path: path.value },
        (_, Some(_), _) => HealthCheck::Tcp,
        (_, _, Some(command)) => HealthCheck::Command {
            command: command.value.into_iter().map(|word| word.value).collect(),
        },
        _ => health.check,
    };
    Some(Health { check, ..health })
}

fn health_path(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no path", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader.push(finding.hint("write a path of the agent, such as /health"));
    None
}

/// What `traffic:` says otherwise than what it stands on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    connect_timeout: Option<u64>,
    response_timeout: Option<u64>,
    idle_timeout: Option<u64>,
    retries: Option<u32>,
    retry_budget: Option<u32>,
    retry_body: Option<usize>,
    decay: Option<u64>,
    slow_start: Option<u64>,
    prefer_local: Option<bool>,
    failures: Option<u32>,
    ejection: Option<u64>,
    max_ejection: Option<u64>,
    max_ejected: Option<u32>,
    max_requests: Option<u32>,
    failure_percent: Option<u32>,
    min_requests: Option<u32>,
    window: Option<u64>,
    open: Option<u64>,
}

impl Traffic {
    /// These settings, and `base` where they say nothing.
    pub fn over(&self, base: &Settings) -> Settings {
        let mut all = base.clone();
        set(&mut all.connect_timeout_ms, self.connect_timeout);
        set(&mut all.response_timeout_ms, self.response_timeout);
        set(&mut all.idle_timeout_ms, self.idle_timeout);
        set(&mut all.retries.max, self.retries);
        set(&mut all.retries.budget_percent, self.retry_budget);
        set(&mut all.retries.max_body_bytes, self.retry_body);
        set(&mut all.balance.decay_ms, self.decay);
        set(&mut all.balance.slow_start_ms, self.slow_start);
        set(&mut all.balance.prefer_local, self.prefer_local);
        set(&mut all.outlier.consecutive_failures, self.failures);
        set(&mut all.outlier.ejection_ms, self.ejection);
        set(&mut all.outlier.max_ejection_ms, self.max_ejection);
        set(&mut all.outlier.max_ejected_percent, self.max_ejected);
        set(&mut all.breaker.max_requests, self.max_requests);
        set(&mut all.breaker.failure_percent, self.failure_percent);
        set(&mut all.breaker.min_requests, self.min_requests);
        set(&mut all.breaker.window_ms, self.window);
        set(&mut all.breaker.open_ms, self.open);
        all
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// `traffic:` of the mesh or of an agent: how it is called.
pub(super) fn traffic(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Traffic> {
    let mut f = reader.fields(spot)?;
    let times = || values::duration(Duration::from_millis(1)..=DAY);
    let or_none = || values::duration(Duration::ZERO..=DAY);
    let percent = || values::integer(0..=100);
    let mut out = Traffic {
        connect_timeout: ms(f.optional(reader, "connect_timeout", times())),
        response_timeout: ms(f.optional(reader, "response_timeout", times())),
        idle_timeout: ms(f.optional(reader, "idle_timeout", or_none())),
        ..Traffic::default()
    };
    f.optional(reader, "retries", |reader, spot| {
        let mut f = reader.fields(spot)?;
        out.retries = plain(f.optional(reader, "max", values::integer(0..=10)));
        out.retry_budget = plain(f.optional(reader, "budget_percent", percent()));
        let bodies = values::size(0..=16 * 1024 * 1024);
        out.retry_body = plain(f.optional(reader, "max_body", bodies));
        f.finish(reader);
        Some(())
    });
    f.optional(reader, "balance", |reader, spot| {
        let mut f = reader.fields(spot)?;
        out.decay = ms(f.optional(reader, "decay", times()));
        out.slow_start = ms(f.optional(reader, "slow_start", or_none()));
        out.prefer_local = plain(f.optional(reader, "prefer_local", values::boolean));
        f.finish(reader);
        Some(())
    });
    f.optional(reader, "outlier", |reader, spot| {
        let mut f = reader.fields(spot)?;
        let failures = values::integer(1..=10_000);
        out.failures = plain(f.optional(reader, "consecutive_failures", failures));
        out.ejection = ms(f.optional(reader, "ejection", times()));
        out.max_ejection = ms(f.optional(reader, "max_ejection", times()));
        out.max_ejected = plain(f.optional(reader, "max_ejected_percent", percent()));
        f.finish(reader);
        Some(())
    });
    f.optional(reader, "breaker", |reader, spot| {
        let mut f = reader.fields(spot)?;
        let many = || values::integer(1..=1_000_000);
        out.max_requests = plain(f.optional(reader, "max_requests", many()));
        out.failure_percent = plain(f.optional(reader, "failure_percent", percent()));
        out.min_requests = plain(f.optional(reader, "min_requests", many()));
        out.window = ms(f.optional(reader, "window", times()));
        out.open = ms(f.optional(reader, "open", times()));
        f.finish(reader);
        Some(())
    });
    f.finish(reader);
    Some(out)
}

fn plain<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

fn ms(at: Option<At<Duration>>) -> Option<u64> {
    at.and_then(|at| u64::try_from(at.value.as_millis()).ok())
}

fn millis(at: Option<At<Duration>>, usual: u64) -> u64 {
    ms(at).unwrap_or(usual)
}

fn number<T>(at: Option<At<T>>, usual: T) -> T {
    at.map_or(usual, |at| at.value)
}
