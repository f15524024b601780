//! What a sidecar reads; `mesh-config` writes it from mesh.yaml.
//!
//! Each part of a sidecar has a section of its own, and a part without a section is not there: beside the
//! gateway there is only a way out, beside the orchestrator only a way in, beside an agent all of it.

pub(crate) mod app;
mod identity;
mod name;
mod policy;
mod proxy;
mod registry;
mod worker;

pub(crate) use app::Place;
pub use app::{App, Health, HealthCheck};
pub use identity::{Identity, IdentitySource};
pub use name::{NameError, ServiceName};
pub use policy::{Action, AssertionRule, Callers, From, Intention, Policy};
pub use proxy::{
    Balance, Between, Breaker, ConnectionLimits, Inbound, Outbound, Outlier, Retries, Settings,
};
pub use registry::{Advertised, Consul, Registration, Registry, Secret};
pub use worker::{Delivery, Worker};

use mesh_bus::{BrokerUrl, BusConfig};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The sidecar's configuration file (JSON or YAML of the same shape).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The service beside which this sidecar stands: an agent's id, `gateway` or `orchestrator`.
    pub service: ServiceName,
    /// Where health and metrics are served; loopback unless said otherwise.
    pub admin_listen: SocketAddr,
    /// How long a drain waits for what is under way, in milliseconds; what is left goes back or is cut.
    #[serde(default = "drain_ms")]
    pub drain_ms: u64,
    /// The program itself; without one nothing is handed to it (beside a gateway).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// Takes the agent's steps off the bus; needs `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
    /// Who this service is, and whom it believes.
    #[serde(default)]
    pub identity: Identity,
    /// Where services are found.
    #[serde(default)]
    pub registry: Registry,
    /// mTLS in, to `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Plain HTTP from `app` on loopback, mTLS out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    /// Who may call.
    #[serde(default)]
    pub policy: Policy,
    /// Spans over OTLP.
    #[serde(default)]
    pub traces: mesh_trace::Config,
    /// Threads of the proxies; 1 costs least for each request, more serve more of them at once.
    #[serde(default = "one")]
    pub threads: u16,
}

fn drain_ms() -> u64 {
    30_000
}

fn one() -> u16 {
    1
}

/// Longest time that can be configured, in milliseconds: as long as a task can last.
pub(crate) const MAX_MILLIS: u64 = 86_400_000;

/// What [`Config::check`] makes of the texts in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Where the program is.
    pub(crate) app: Option<app::Place>,
}

/// Collects what is wrong with one section; every field is named with its path.
pub(crate) struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn push(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    /// A time in milliseconds: not 0 unless it may be, and at most a day.
    pub(crate) fn millis(&mut self, field: &str, millis: u64, may_be_zero: bool) {
        if millis == 0 && !may_be_zero {
            self.push(format!("{field} must be at least 1"));
        }
        if millis > MAX_MILLIS {
            self.push(format!("{field} must be at most {MAX_MILLIS}, a day"));
        }
    }

    /// A number that must not be 0.
    pub(crate) fn some(&mut self, field: &str, number: u64) {
        if number == 0 {
            self.push(format!("{field} must be at least 1"));
        }
    }
}

impl Config {
    /// Reads a configuration from YAML, and so from JSON.
    ///
    /// # Errors
    /// Every fault, in words.
    pub fn from_text(text: &str) -> Result<Self, Vec<String>> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| vec![e.to_string()])?;
        config.check().map(|_| config)
    }

    /// Applies what the environment says; it wins over the file. An empty variable counts as unset.
    ///
    /// `RABBITMQ_URL`, `CONSUL_URL`, `CONSUL_HTTP_TOKEN`, `MESH_ADVERTISE`, `OTEL_EXPORTER_OTLP_ENDPOINT` and `_PROTOCOL`.
    ///
    /// # Errors
    /// Every variable that cannot be used, in words and without its value.
    pub fn apply(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Vec<String>> {
        let get = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let mut faults = Vec::new();
        if let (Some(url), Some(worker)) = (get("RABBITMQ_URL"), &mut self.worker) {
            match BrokerUrl::try_from(url) {
                Ok(url) => worker.bus = BusConfig::Rabbitmq { url },
                Err(why) => faults.push(format!("RABBITMQ_URL: {why}")),
            }
        }
        if let Some(url) = get("CONSUL_URL") {
            self.registry.use_consul_at(url);
        }
        if let (Some(token), Some(consul)) = (get("CONSUL_HTTP_TOKEN"), self.registry.consul_mut())
        {
            consul.token = Some(Secret::from(token));
        }
        if let Some(text) = get("MESH_ADVERTISE") {
            match text.trim().to_owned().try_into() {
                Ok(address) => self.registry.registration.address = Some(address),
                Err(why) => faults.push(format!("MESH_ADVERTISE: {why}")),
            }
        }
        faults.extend(self.traces.apply(environment).err());
        if faults.is_empty() {
            return self.check().map(|_| ());
        }
        Err(faults)
    }

    /// The same without its secrets, to be shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        let hidden = || Secret::from("***".to_owned());
        let mut shown = self.clone();
        if let Some(worker) = &mut shown.worker
            && let BusConfig::Rabbitmq { url } = &mut worker.bus
        {
            *url = url.masked();
        }
        if let Some(consul) = shown.registry.consul_mut() {
            consul.token = consul.token.take().map(|_| hidden());
        }
        if let IdentitySource::Vault { token, .. } = &mut shown.identity.source {
            *token = token.take().map(|_| hidden());
        }
        shown
    }

    /// What a serving sidecar needs beyond the shape.
    pub(crate) fn check(&self) -> Result<Checked, Vec<String>> {
        let mut faults = Faults(Vec::new());
        faults.millis("drain_ms", self.drain_ms, true);
        if self.threads == 0 || self.threads > 256 {
            faults.push("threads must be 1 to 256");
        }
        let app = self.app.as_ref().and_then(|app| app.check(&mut faults));
        if let Some(worker) = &self.worker {
            worker.check(&mut faults);
            if self.app.is_none() {
                faults.push("worker has nobody to hand steps to: add app");
            }
        }
        if let Some(inbound) = &self.inbound {
            inbound.check(&self.registry.registration, &mut faults);
            if self.app.is_none() {
                faults.push("inbound leads nowhere: add app");
            }
        }
        if let Some(outbound) = &self.outbound {
            outbound.check(&mut faults);
        }
        self.identity.check(&self.registry, &mut faults);
        self.registry.check(&mut faults);
        self.policy.check(self.inbound.as_ref(), &mut faults);
        if let Err(why) = self.traces.check() {
            faults.push(format!("traces: {why}"));
        }
        if faults.0.is_empty() {
            Ok(Checked { app })
        } else {
            Err(faults.0)
        }
    }
}

#[cfg(test)]
mod tests;
