//! The orchestrator's configuration.

use super::{RenderError, url_of};
use crate::derive::{self, derived};
use crate::mesh::{GATEWAY, Mesh};
use crate::secret::{Secrets, Source, signing_key};
use crate::trust::Intention;
use mesh_bus::{BrokerUrl, BusConfig};
use mesh_orchestrator::config::{
    Agent, Config, InternalToken, Originators, Planner, Steps, Store, StoreUrl,
};
use mesh_orchestrator::coordination::socket::Settings as Coordination;
use mesh_protocol::assertion::{AssertionKey, Assertions};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::{Action, From, ServiceName};
use std::time::Duration;

/// Renders the orchestrator's configuration.
///
/// # Errors
/// [`RenderError::Secret`] for a secret that is no URL or no key.
pub fn orchestrator(mesh: &Mesh, secrets: &Secrets) -> Result<Config, RenderError> {
    let from = &mesh.orchestrator;
    let agents = mesh.agents.iter().map(|agent| Agent {
        id: agent.id.clone(),
        capabilities: agent.capabilities.clone(),
        description: agent.description.clone(),
        queue_kind: Some(agent.queue_kind).filter(|&kind| kind != mesh.messaging.queue_kind),
        concurrency: agent.concurrency,
        resources: agent.resources.clone(),
        originators: originators(mesh, &ServiceName::from(&agent.id)),
    });
    Ok(Config {
        listen: from.listen,
        agents: agents.collect(),
        resources: from.resources.clone(),
        planner: Planner {
            rules: from.rules.clone(),
            general_agent: from.general_agent.clone(),
            ollama: from.ollama.clone(),
            max_steps: from.max_steps,
            max_width: from.max_width,
        },
        limits: from.limits.clone(),
        steps: Steps {
            timeout_ms: millis(from.step_timeout),
            on_failure: from.on_failure,
        },
        bus: bus(mesh, secrets)?,
        queue_kind: mesh.messaging.queue_kind,
        max_queue_length: mesh.messaging.max_length,
        store: store(mesh, secrets)?,
        assertions: assertions(mesh, secrets)?,
        internal_token: Some(internal_token(mesh, secrets)?),
        // There always is one, and it says so.
        peers_by_certificate: true,
        coordination: Coordination::default(),
        traces: mesh.trust.traces.clone(),
    })
}

/// On whose behalf `agent` takes steps, as its sidecar decides: each is a `POST /process` of the orchestrator. Nothing
/// where it takes everybody's.
fn originators(mesh: &Mesh, agent: &ServiceName) -> Option<Vec<Originators>> {
    let intentions = mesh.trust.intentions.as_ref()?;
    let of_steps = |i: &&Intention| {
        let from = match &i.from {
            From::Any => true,
            From::Services(services) => services.iter().any(|s| s.as_str() == ORCHESTRATOR),
        };
        let whole = |path: &String| matches!(path.trim_end_matches('/'), "" | "/process");
        from && i.leads_to(agent)
            && (i.methods.is_empty() || i.methods.iter().any(|method| method == "POST"))
            && (i.paths.is_empty() || i.paths.iter().any(whole))
    };
    let of_steps: Vec<Originators> = intentions
        .iter()
        .filter(of_steps)
        .map(|i| Originators {
            denied: i.action == Action::Deny,
            callers: i.callers.clone(),
        })
        .collect();
    let open =
        of_steps.iter().any(|of| of.callers.is_none()) && of_steps.iter().all(|of| !of.denied);
    (!open).then_some(of_steps)
}

/// Whom everyone behind the gateway believes.
pub(super) fn assertions(mesh: &Mesh, secrets: &Secrets) -> Result<Assertions, RenderError> {
    Ok(Assertions {
        audience: mesh.name.clone(),
        keys: vec![AssertionKey {
            kid: GATEWAY.to_owned(),
            x: public_half(&mesh.gateway.assertion_key, secrets)?,
        }],
    })
}

fn internal_token(mesh: &Mesh, secrets: &Secrets) -> Result<InternalToken, RenderError> {
    let text = derived(&mesh.gateway.assertion_key, secrets, derive::INTERNAL_TOKEN)?;
    if !secrets.are_known() {
        return Ok(InternalToken::shown_as(text));
    }
    InternalToken::try_from(text).map_err(|detail| RenderError::Write {
        part: "orchestrator.json",
        detail,
    })
}

/// The bus that the orchestrator and every sidecar use.
pub(super) fn bus(mesh: &Mesh, secrets: &Secrets) -> Result<BusConfig, RenderError> {
    let Some(source) = &mesh.messaging.rabbitmq else {
        return Ok(BusConfig::Memory);
    };
    let url = BrokerUrl::try_from(url_of(secrets, source, "amqp")).map_err(|problem| {
        RenderError::Secret {
            path: "messaging.url".to_owned(),
            problem,
        }
    })?;
    Ok(BusConfig::Rabbitmq { url })
}

fn store(mesh: &Mesh, secrets: &Secrets) -> Result<Store, RenderError> {
    let retention_s = mesh.store.retention.as_secs();
    let Some(source) = &mesh.store.redis else {
        return Ok(Store::Memory { retention_s });
    };
    let url = StoreUrl::try_from(url_of(secrets, source, "redis")).map_err(|problem| {
        RenderError::Secret {
            path: "store.url".to_owned(),
            problem,
        }
    })?;
    Ok(Store::Redis { url, retention_s })
}

fn public_half(source: &Source, secrets: &Secrets) -> Result<String, RenderError> {
    let Some(text) = secrets.value(source) else {
        return Ok(format!("public half of {}", source.reference()));
    };
    signing_key(text)
        .map(|key| mesh_protocol::assertion::public_half(&key))
        .map_err(|problem| RenderError::Secret {
            path: "gateway.auth.assertion.key".to_owned(),
            problem: problem.to_owned(),
        })
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
