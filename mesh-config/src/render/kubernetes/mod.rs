//! Objects of Kubernetes: a Deployment for each part of ours, its sidecar as a native one, and a kustomization.
//!
//! Native sidecars (`initContainers` with `restartPolicy: Always`) are stable since 1.33 and on since 1.29: they start
//! before what they stand beside and end after it. Broker, store, registry and the rest are somebody's
//! operator: they are referred to by URL and namespace, never rendered.

mod kustomization;
mod network;
mod pod;
mod scale;
mod workload;

use super::{RenderError, Rendered, yaml};
use crate::deploy::{Part, Place, placed};
use crate::mesh::{GATEWAY, Mesh};
use crate::render::compose::own_files;
use crate::secret::Secrets;
use mesh_protocol::names::ORCHESTRATOR;
use serde::Serialize;
use workload::{Role, Workload};

/// The Secret that variables of containers come from where mesh.yaml says `{env: NAME}`; the operator's own.
const ENVIRONMENT: &str = "mesh-environment";

/// Every object, the kustomization with its overlays, and the files that its secretGenerator names.
pub(super) fn files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let mesh = &placed(mesh, Place::Kubernetes);
    let workloads = workloads(mesh)?;
    let mut files = Vec::new();
    for workload in &workloads {
        let mut objects = Documents::default();
        objects.push(&workload.service_account())?;
        objects.push(&workload.deployment(mesh)?)?;
        objects.push(&workload.service())?;
        objects.push(&workload.disruption_budget())?;
        if let Some(scaler) = scale::autoscaler(workload)? {
            objects.push(&scaler)?;
        }
        files.push(objects.file(format!("base/{}.yaml", workload.name)));
    }
    let mut objects = Documents::default();
    objects.push(&pod::gateway_environment(mesh))?;
    files.push(objects.file("base/environment.yaml".to_owned()));
    let mut objects = Documents::default();
    for policy in network::policies(mesh, &workloads)? {
        objects.push(&policy)?;
    }
    files.push(objects.file("base/network-policies.yaml".to_owned()));
    files.extend(kustomization::files(mesh, &workloads)?);
    files.push(Rendered::open("prometheus-adapter.yaml", scale::adapter()?));
    let inside = |file: Rendered| Rendered {
        name: format!("base/secrets/{}", file.name),
        ..file
    };
    files.extend(own_files(mesh, secrets)?.into_iter().map(inside));
    Ok(files)
}

/// Every Deployment: the gateway, the orchestrator, each agent.
fn workloads(mesh: &Mesh) -> Result<Vec<Workload>, RenderError> {
    let parts = &mesh.deploy.parts;
    let mut all = Vec::new();
    if let Some(container) = parts.get(&Part::Gateway) {
        all.push(Workload::new(
            mesh,
            Role::Gateway,
            GATEWAY,
            container.clone(),
        ));
    }
    if let (Some(container), true) = (parts.get(&Part::Orchestrator), mesh.has_orchestrator()) {
        let container = container.clone();
        all.push(Workload::new(
            mesh,
            Role::Orchestrator,
            ORCHESTRATOR,
            container,
        ));
    }
    for agent in &mesh.agents {
        let container = mesh.container_of(agent).map_err(RenderError::Container)?;
        let (role, container) = match container {
            Some(container) => (Role::Agent, container),
            None => (Role::Elsewhere, crate::deploy::named(agent.id.as_str())),
        };
        let mut workload = Workload::new(mesh, role, agent.id.as_str(), container);
        workload.concurrency = agent.concurrency;
        workload.queue = Some(agent.id.task_queue());
        all.push(workload);
    }
    Ok(all)
}

/// Several objects in one file.
#[derive(Default)]
struct Documents(Vec<String>);

impl Documents {
    fn push(&mut self, object: &impl Serialize) -> Result<(), RenderError> {
        self.0.push(yaml("an object of Kubernetes", object)?);
        Ok(())
    }

    fn file(&self, name: String) -> Rendered {
        Rendered::open(name, self.0.join("---\n"))
    }
}
