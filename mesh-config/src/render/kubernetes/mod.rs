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
use mesh_protocol::names::ORCHESTRATOR;
use serde::Serialize;
use workload::{Role, Workload};

/// The Secret that variables of containers come from where mesh.yaml says `{env: NAME}`; the operator's own.
const ENVIRONMENT: &str = "mesh-environment";

/// Renders every object, and the kustomization with its overlays. The files that its secretGenerator names are
/// those of [`secret_files`].
///
/// # Errors
/// [`RenderError::Container`] for an agent that no image is named for.
pub fn kubernetes(mesh: &Mesh) -> Result<Vec<Rendered>, RenderError> {
    let mesh = &placed(mesh, Place::Kubernetes);
    let workloads = workloads(mesh)?;
    let mut files = Vec::new();
    for workload in &workloads {
        let mut objects = Documents::default();
        objects.push(&workload.service_account())?;
        objects.push(&workload.deployment(mesh)?)?;
        objects.push(&workload.service())?;
        objects.push(&workload.disruption_budget())?;
        if let Some(scaler) = scale::autoscaler(workload) {
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
    files.push(open("prometheus-adapter.yaml", scale::adapter()?));
    Ok(files)
}

/// The files that hold secrets, named as the kustomization names them.
///
/// # Errors
/// [`RenderError`] for a value that is of no use.
pub fn secret_files(
    mesh: &Mesh,
    secrets: &crate::secret::Secrets,
) -> Result<Vec<Rendered>, RenderError> {
    let files = super::compose::own_files(&placed(mesh, Place::Kubernetes), secrets)?;
    let inside = |file: Rendered| Rendered {
        name: format!("base/secrets/{}", file.name),
        ..file
    };
    Ok(files.into_iter().map(inside).collect())
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
        open(&name, self.0.join("---\n"))
    }
}

fn open(name: &str, text: String) -> Rendered {
    Rendered {
        name: name.to_owned(),
        text,
        secret: false,
    }
}
