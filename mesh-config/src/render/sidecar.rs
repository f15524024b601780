//! A sidecar's configuration.

use super::RenderError;
use super::orchestrator::{bus, millis};
use crate::mesh::{Agent, Mesh};
use crate::secret::Secrets;
use mesh_sidecar::config::{Config, Worker};
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
        agent: agent.id.clone(),
        agent_url: endpoint,
        admin_listen: agent
            .admin_listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        bus: bus(mesh, secrets)?,
        queue_kind: mesh.messaging.queue_kind,
        worker: Worker {
            concurrency: agent.concurrency,
            timeout_ms: millis(agent.timeout),
            max_attempts: agent.attempts,
            retry_base_ms: millis(agent.pause),
            ..Worker::default()
        },
    })
}
