//! Pools of targets: which one is next, and which are out.
//!
//! The turn is a smooth weighted round robin: of the targets that may be used the one with the most
//! credit is next; it pays the sum of the weights, and each earns its own. Credits and health belong to
//! the process, not to a worker, so the shares are exact over all workers.

mod health;
mod probe;

pub(crate) use health::Event;
pub(crate) use probe::watch;

use health::{Checks, Health};
use http::header::HeaderValue;
use http::uri::Authority;
use mesh_declarative::Upstream;
use prometheus::IntGaugeVec;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// Port of a target that names none, as in Kong.
const PORT: u16 = 8000;
/// Most targets of one pool: of each request it is remembered which it tried.
const MAX_TARGETS: usize = 1000;

/// One place where requests may go.
#[derive(Debug)]
pub(crate) struct Target {
    /// `address:port`, never a name.
    pub authority: Authority,
    /// The same, as the connection is made.
    pub address: SocketAddr,
    /// `Host` that it receives.
    pub host: HeaderValue,
    weight: i64,
    health: Health,
}

/// Targets of which each request takes one.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    pub targets: Vec<Target>,
    credits: Mutex<Vec<i64>>,
    checks: Checks,
    /// Least healthy part of the weight, in per cent.
    threshold: f64,
}

impl Target {
    /// Reads `host[:port]`. Nothing here asks a name server: a name that could change hands is no
    /// address.
    fn read(text: &str, host: Option<&HeaderValue>, weight: u16) -> Result<Self, String> {
        let (name, port) =
            split(text).ok_or_else(|| format!("{text} is no address with a port"))?;
        let address = address(name).ok_or_else(|| format!("host {name} is no address"))?;
        let shown = match port {
            80 => name.to_owned(),
            port => format!("{name}:{port}"),
        };
        Self::new(SocketAddr::new(address, port), &shown, host, weight)
    }

    fn new(
        address: SocketAddr,
        shown: &str,
        host: Option<&HeaderValue>,
        weight: u16,
    ) -> Result<Self, String> {
        let wrong = |_| format!("{shown} is no address");
        Ok(Self {
            authority: address.to_string().parse().map_err(wrong)?,
            address,
            host: match host {
                Some(host) => host.clone(),
                None => HeaderValue::from_str(shown).map_err(|_| format!("{shown} is no host"))?,
            },
            weight: weight.into(),
            health: Health::default(),
        })
    }

    /// Whether requests may go there.
    pub(crate) fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }
}

/// The host, brackets included, and the port of `host[:port]`.
fn split(text: &str) -> Option<(&str, u16)> {
    let port = text.rsplit_once(':').filter(|(host, _)| {
        // The colons of an IPv6 address stand within brackets.
        host.ends_with(']') || !host.contains(':')
    });
    match port {
        Some((host, port)) => Some((host, port.parse().ok().filter(|p| *p > 0)?)),
        // Without brackets nobody knows which of its colons goes before the port.
        None if text.contains(':') && !text.ends_with(']') => None,
        None => Some((text, PORT)),
    }
}

/// The address of a host that is one; `localhost` is 127.0.0.1.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    match host.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        bare => bare.parse().ok(),
    }
}

impl Pool {
    /// A pool of one target without any checks: a service that says itself where it is.
    pub(crate) fn of_one(name: &str, target: Target) -> Self {
        Self::with(name, vec![target], Checks::default(), 0.0)
    }

    /// The one target of a service at `address`, which receives `host`.
    pub(crate) fn one(name: &str, address: SocketAddr, host: &str) -> Result<Self, String> {
        Ok(Self::of_one(name, Target::new(address, host, None, 1)?))
    }

    /// Reads an upstream; what is wrong with it goes into `problems`.
    pub(crate) fn read(upstream: &Upstream, problems: &mut Vec<String>) -> Self {
        let name = &upstream.name;
        let mut wrong = |text: String| problems.push(format!("upstream {name}: {text}"));
        match upstream.algorithm.as_deref() {
            None | Some("round-robin") => {}
            Some(other) => wrong(format!(
                "algorithm {other} is not supported; round-robin is"
            )),
        }
        for (field, given) in [
            ("hash_on", &upstream.hash_on),
            ("hash_fallback", &upstream.hash_fallback),
        ] {
            if given.as_deref().is_some_and(|by| by != "none") {
                wrong(format!("{field} is not supported"));
            }
        }
        if upstream.use_srv_name == Some(true) {
            wrong("use_srv_name is not supported: no name is looked up".to_owned());
        }
        if upstream.targets.len() > MAX_TARGETS {
            wrong(format!("more than {MAX_TARGETS} targets"));
        }
        let host = upstream.host_header.as_deref().and_then(|host| {
            let value = HeaderValue::from_str(host).ok();
            if value.is_none() {
                wrong("host_header is no host".to_owned());
            }
            value
        });
        let mut targets: Vec<Target> = Vec::new();
        for target in upstream.targets.iter().take(MAX_TARGETS) {
            match Target::read(&target.target, host.as_ref(), target.weight) {
                Ok(read) if targets.iter().any(|t| t.address == read.address) => {
                    wrong(format!("target {} is there twice", target.target));
                }
                Ok(read) => targets.push(read),
                Err(problem) => wrong(format!("target {problem}")),
            }
        }
        let given = upstream.healthchecks.clone().unwrap_or_default();
        let threshold = given.threshold.unwrap_or_default();
        if !(0.0..=100.0).contains(&threshold) {
            wrong("healthchecks.threshold is not from 0 to 100".to_owned());
        }
        let checks = Checks::read(&given, &mut wrong);
        Self::with(name, targets, checks, threshold)
    }

    fn with(name: &str, targets: Vec<Target>, checks: Checks, threshold: f64) -> Self {
        Self {
            name: name.to_owned(),
            credits: Mutex::new(vec![0; targets.len()]),
            targets,
            checks,
            threshold,
        }
    }

    /// The target whose turn it is, among those that may be used and are not in `tried`; None when
    /// there is none.
    pub(crate) fn next(&self, tried: &[usize]) -> Option<(usize, &Target)> {
        if let ([target], []) = (&*self.targets, tried) {
            return (target.weight > 0 && target.is_healthy()).then_some((0, target));
        }
        if !self.is_enough() {
            return None;
        }
        let mut credits = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |index: &usize, target: &Target| {
            target.weight > 0 && target.is_healthy() && !tried.contains(index)
        };
        let mut sum = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, (target, credit)) in self.targets.iter().zip(credits.iter_mut()).enumerate() {
            if !usable(&index, target) {
                continue;
            }
            sum += target.weight;
            *credit += target.weight;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        *credits.get_mut(index)? -= sum;
        Some((index, self.targets.get(index)?))
    }

    /// Whether as much of the weight is healthy as the pool asks for.
    fn is_enough(&self) -> bool {
        if self.threshold <= 0.0 {
            return true;
        }
        let (mut healthy, mut all) = (0i32, 0i32);
        for target in &self.targets {
            let weight = i32::try_from(target.weight).unwrap_or(i32::MAX);
            all = all.saturating_add(weight);
            if target.is_healthy() {
                healthy = healthy.saturating_add(weight);
            }
        }
        all > 0 && f64::from(healthy) * 100.0 >= f64::from(all) * self.threshold
    }

    /// What a client's request showed of the target.
    pub(crate) fn saw(&self, index: usize, event: Event) {
        if let (Some(passive), Some(target)) = (&self.checks.passive, self.targets.get(index)) {
            self.note(target, passive.judge(event, &target.health));
        }
    }

    /// What the gateway's own question showed of the target.
    fn probed(&self, target: &Target, event: Event) {
        if let Some(active) = &self.checks.active {
            self.note(target, active.rules.judge(event, &target.health));
        }
    }

    fn note(&self, target: &Target, change: Option<bool>) {
        if let Some(healthy) = change {
            tracing::warn!(upstream = self.name, target = %target.authority, healthy, "health changed");
        }
    }

    /// Writes the health of all targets into `gauge`, labels `upstream` and `target`.
    pub(crate) fn show(&self, gauge: &IntGaugeVec) {
        for target in &self.targets {
            gauge
                .with_label_values(&[&*self.name, target.authority.as_str()])
                .set(target.is_healthy().into());
        }
    }
}

#[cfg(test)]
mod tests;
