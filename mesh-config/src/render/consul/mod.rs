//! What Consul holds of a mesh, in the forms that `consul agent -config-dir` and `consul config write` read.
//!
//! - Services: what mesh.yaml lists under `services`, with their checks; and every sidecar whose ports are known before
//!   it starts, as it registers itself then: equal, so that whichever of the two comes later changes nothing.
//! - Config entries: the mesh's own services speak HTTP.
//! - Intentions: who may call whom, as the sidecars have it. Consul is told what it can express; what it cannot (whom an
//!   assertion names) it lets pass, and the sidecar beside the callee decides.

mod intentions;
mod services;

pub use intentions::{
    Decision, HttpMatch, Intention, Permission, ServiceIntentions, Way, intentions,
};
pub use services::{Check, ServiceDefinition, Weights};

use super::RenderError;
use super::sidecar::sidecars;
use crate::mesh::{GATEWAY, Mesh};
use crate::secret::Secrets;
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::ServiceName;
use serde::Serialize;
use std::collections::BTreeMap;

/// Key of the meta that says which mesh a service, a config entry or an intention belongs to.
pub const OWNER: &str = "mesh";

/// What an agent of Consul reads from a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agent {
    /// What it registers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceDefinition>,
    /// What a server that has no entries yet begins with.
    pub config_entries: Bootstrap,
}

/// Config entries of a server that has none yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bootstrap {
    /// The entries.
    pub bootstrap: Vec<ServiceDefaults>,
}

/// Config entry `service-defaults`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceDefaults {
    /// `service-defaults`.
    pub kind: &'static str,
    /// The service.
    pub name: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// Whose it is.
    pub meta: BTreeMap<&'static str, String>,
}

/// Renders the file of the agent.
///
/// # Errors
/// [`RenderError`] as the sidecars' configurations have it.
pub fn consul(mesh: &Mesh) -> Result<Agent, RenderError> {
    let mut services = services::fronted(mesh);
    // What is registered holds no secret.
    let sidecars = sidecars(mesh, &Secrets::none())?;
    let sidecars: Vec<_> = sidecars
        .into_iter()
        .filter(|_| mesh.has_orchestrator())
        .collect();
    let known = sidecars.iter().filter_map(mesh_sidecar::to_be_registered);
    services.extend(known.map(|registered| services::sidecar(&registered)));
    Ok(Agent {
        services,
        config_entries: Bootstrap {
            bootstrap: service_defaults(mesh),
        },
    })
}

/// The definitions of what mesh.yaml lists under `services`.
pub fn fronted_services(mesh: &Mesh) -> Vec<ServiceDefinition> {
    services::fronted(mesh)
}

/// The config entries of the mesh's own services.
pub fn service_defaults(mesh: &Mesh) -> Vec<ServiceDefaults> {
    let entry = |name: ServiceName| ServiceDefaults {
        kind: "service-defaults",
        name: name.as_str().to_owned(),
        protocol: "http",
        meta: owner(mesh),
    };
    own(mesh).into_iter().map(entry).collect()
}

/// The services that have a sidecar, in the order of mesh.yaml.
fn own(mesh: &Mesh) -> Vec<ServiceName> {
    // A mesh without an orchestrator is a gateway before services, and has no sidecars.
    let fixed = [GATEWAY, ORCHESTRATOR];
    let fixed = fixed.map(|name| name.parse().ok().filter(|_| mesh.has_orchestrator()));
    let agents = mesh.agents.iter().map(|agent| ServiceName::from(&agent.id));
    fixed.into_iter().flatten().chain(agents).collect()
}

fn owner(mesh: &Mesh) -> BTreeMap<&'static str, String> {
    BTreeMap::from([(OWNER, mesh.name.clone())])
}
