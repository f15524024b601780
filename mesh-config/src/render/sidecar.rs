//! A sidecar's configuration.

use super::RenderError;
use super::orchestrator::{bus, millis};
use crate::mesh::{Agent, Mesh};
use crate::secret::Secrets;
use mesh_sidecar::config::{App, Config, Health, Identity, Policy, Registry, ServiceName, Worker};
use std::net::{Ipv4Addr, SocketAddr};

/// Renders the configuration of the sidecar beside `agent`.
///
/// A builtin without an endpoint has its address only when it runs; until then it is port 0.
///
/// # Errors
/// [`RenderError::Secret`] for a broker URL that is none.
pub fn sidecar(mesh: &Mesh, agent: &Agent, secrets: &Secrets) -> Result<Config, RenderError> {
    let endpoint = agent.endpoint.as_ref().map_or_else(
        || "http://127.0.0.1:0".to_owned(),
        |url| url.as_str().trim_end_matches('/').to_owned(),
    );
    Ok(Config {
        service: ServiceName::from(&agent.id),
        app: Some(App {
            url: endpoint,
            health: Health::default(),
        }),
        admin_listen: agent
            .admin_listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        drain_ms: 30_000,
        identity: Identity::default(),
        registry: Registry::default(),
        inbound: None,
        outbound: None,
        policy: Policy::default(),
        traces: mesh_trace::Config::default(),
        threads: 1,
        worker: Some(Worker {
            bus: bus(mesh, secrets)?,
            queue_kind: mesh.messaging.queue_kind,
            concurrency: agent.concurrency,
            timeout_ms: millis(agent.timeout),
            max_attempts: agent.attempts,
            retry_base_ms: millis(agent.pause),
            ..Worker::default()
        }),
    })
}
