//! What a sidecar reads; `mesh-config` writes it from mesh.yaml.

use mesh_bus::{BusConfig, QueueKind};
use mesh_protocol::AgentId;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The sidecar's configuration file (JSON or YAML of the same shape).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The agent beside which this sidecar stands.
    pub agent: AgentId,
    /// Base URL of the agent, such as `http://127.0.0.1:8080`.
    pub agent_url: String,
    /// Where health and metrics are served; loopback unless said otherwise.
    pub admin_listen: SocketAddr,
    /// The broker. `RABBITMQ_URL` in the environment overrides it.
    pub bus: BusConfig,
    /// How queues are declared; as the orchestrator declares them.
    #[serde(default)]
    pub queue_kind: QueueKind,
    /// How steps are handed over.
    #[serde(default)]
    pub worker: Worker,
}

/// How steps are handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Most steps at the agent at the same time; also the prefetch.
    pub concurrency: u16,
    /// Time limit of one call, in milliseconds.
    pub timeout_ms: u64,
    /// Most calls for one step: 408, 429, 5xx, timeouts and refused connections are tried again.
    pub max_attempts: u32,
    /// Pause before the second call, in milliseconds; doubled for each further one, with jitter.
    pub retry_base_ms: u64,
    /// Longest answer that is read, in bytes.
    pub max_answer_bytes: usize,
    /// How long a drain waits for steps at the agent, in milliseconds; what is left goes back.
    pub drain_ms: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: 16,
            timeout_ms: 60_000,
            max_attempts: 3,
            retry_base_ms: 100,
            max_answer_bytes: 4 * 1024 * 1024,
            drain_ms: 30_000,
        }
    }
}

/// Longest time that can be configured, in milliseconds: as long as a task can last.
const MAX_MILLIS: u64 = 86_400_000;

/// What [`Config::check`] makes of the texts in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Where steps are posted: the agent's URL with `/process`.
    pub(crate) process_uri: http::Uri,
    /// Where the agent listens.
    pub(crate) agent_address: SocketAddr,
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

    /// What a serving sidecar needs beyond the shape.
    pub(crate) fn check(&self) -> Result<Checked, Vec<String>> {
        let mut faults = Vec::new();
        let worker = &self.worker;
        for (field, zero) in [
            ("concurrency", worker.concurrency == 0),
            ("timeout_ms", worker.timeout_ms == 0),
            ("max_attempts", worker.max_attempts == 0),
            ("max_answer_bytes", worker.max_answer_bytes == 0),
        ] {
            if zero {
                faults.push(format!("worker.{field} must be at least 1"));
            }
        }
        for (field, millis) in [
            ("timeout_ms", worker.timeout_ms),
            ("retry_base_ms", worker.retry_base_ms),
            ("drain_ms", worker.drain_ms),
        ] {
            if millis > MAX_MILLIS {
                faults.push(format!(
                    "worker.{field} must be at most {MAX_MILLIS}, a day"
                ));
            }
        }
        let agent = agent_uri(&self.agent_url).map_err(|e| faults.push(e)).ok();
        match agent {
            Some((process_uri, agent_address)) if faults.is_empty() => Ok(Checked {
                process_uri,
                agent_address,
            }),
            _ => Err(faults),
        }
    }
}

/// An agent stands beside its sidecar, so its host is an address or `localhost`: no name is resolved,
/// and a step cannot be sent elsewhere by whoever answers for a name.
fn agent_uri(text: &str) -> Result<(http::Uri, SocketAddr), String> {
    let fault = |why: &str| format!("agent_url {why}, such as http://127.0.0.1:8080");
    let mut url = url::Url::parse(text).map_err(|_| fault("must be a URL"))?;
    if url.scheme() != "http" {
        return Err(fault("must begin with http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(fault("must hold neither credentials nor a query"));
    }
    let ip = match url.host() {
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(url::Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return Err(fault("must name the agent by address or as localhost")),
    };
    url.set_ip_host(ip)
        .map_err(|()| fault("must have a host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    url.set_path(&format!("{}/process", url.path().trim_end_matches('/')));
    url.set_fragment(None);
    let uri = url.as_str().parse().map_err(|_| fault("must be a URL"))?;
    Ok((uri, SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
agent: data-processor
agent_url: http://localhost:8080/base/
admin_listen: 127.0.0.1:0
bus: {backend: rabbitmq, url: 'amqp://u:secret@127.0.0.1:5672/%2f'}
worker: {concurrency: 2}
";

    #[test]
    fn yaml_and_json_are_read() {
        let config = Config::from_text(FILE).unwrap();
        let checked = config.check().unwrap();
        assert_eq!(checked.process_uri, "http://127.0.0.1:8080/base/process");
        assert_eq!(config.worker.max_attempts, 3);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(Config::from_text(&json).unwrap(), config);
    }

    #[test]
    fn every_fault_is_named() {
        for (from, to, wanted) in [
            ("concurrency: 2", "concurrency: 0", "concurrency"),
            ("concurrency: 2", "max_attempts: 0", "max_attempts"),
            ("concurrency: 2", "drain_ms: 86400001", "drain_ms"),
            ("concurrency: 2", "surprise: 2", "surprise"),
            ("localhost:8080", "agent.example", "by address"),
            ("localhost:8080", "u:p@127.0.0.1", "credentials"),
            ("http://localhost", "https://localhost", "http://"),
        ] {
            let faults = Config::from_text(&FILE.replace(from, to)).unwrap_err();
            assert!(faults.join(" ").contains(wanted), "{to}: {faults:?}");
        }
        let two = FILE.replace("concurrency: 2", "concurrency: 0, timeout_ms: 0");
        assert_eq!(Config::from_text(&two).unwrap_err().len(), 2);
    }

    #[test]
    fn the_password_is_in_no_text() {
        let config = Config::from_text(FILE).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
