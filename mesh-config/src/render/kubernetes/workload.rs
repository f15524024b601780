//! One part of ours in Kubernetes: Deployment, Service, ServiceAccount, PodDisruptionBudget.

use super::pod;
use crate::deploy::{ADMIN_PORT, Container, GATEWAY_PORT, GATEWAY_STATUS_PORT};
use crate::mesh::Mesh;
use crate::render::RenderError;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, Service, ServiceAccount, ServicePort, ServiceSpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// What a workload is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Kong.
    Gateway,
    /// The orchestrator.
    Orchestrator,
    /// An agent.
    Agent,
    /// The sidecar of an agent that runs elsewhere, by itself.
    Elsewhere,
}

/// One Deployment.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    /// What it is.
    pub role: Role,
    /// Name of its objects; the plan's host name where it has one.
    pub name: String,
    /// Its service in the mesh, as certificates and intentions name it.
    pub of: String,
    /// The mesh.
    pub mesh: String,
    /// What runs.
    pub container: Container,
    /// Steps at the same time.
    pub concurrency: u16,
    /// The queue whose length says how many are needed.
    pub queue: Option<String>,
}

impl Workload {
    pub(super) fn new(mesh: &Mesh, role: Role, of: &str, container: Container) -> Self {
        Self {
            role,
            name: container.name.clone(),
            of: of.to_owned(),
            mesh: mesh.name.clone(),
            container,
            concurrency: 1,
            queue: None,
        }
    }

    /// What finds its pods.
    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        selector(&self.mesh, &self.of)
    }

    pub(super) fn metadata(&self) -> ObjectMeta {
        metadata(&self.name, self.selector())
    }

    pub(super) fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.metadata(),
            // Nothing here asks the API of Kubernetes.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    pub(super) fn deployment(&self, mesh: &Mesh) -> Result<Deployment, RenderError> {
        // What scales is not set back at every apply.
        let scaled = super::scale::most(self).is_some();
        Ok(Deployment {
            metadata: self.metadata(),
            spec: Some(DeploymentSpec {
                replicas: (!scaled).then(|| self.container.replicas.max(1).into()),
                revision_history_limit: Some(3),
                selector: self.label_selector(),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(1)),
                        max_unavailable: Some(IntOrString::Int(0)),
                    }),
                }),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(self.selector()),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(pod::spec(self, mesh)?),
                },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        })
    }

    /// Where clients reach the gateway, and Prometheus the metrics of each.
    pub(super) fn service(&self) -> Service {
        let port = |name: &str, port: u16, target: u16| ServicePort {
            name: Some(name.to_owned()),
            port: port.into(),
            target_port: Some(IntOrString::Int(target.into())),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        };
        let mut ports = vec![port("sidecar-metrics", ADMIN_PORT, ADMIN_PORT)];
        match self.role {
            Role::Gateway => {
                ports.insert(0, port("http", 80, GATEWAY_PORT));
                ports.push(port("status", GATEWAY_STATUS_PORT, GATEWAY_STATUS_PORT));
            }
            Role::Orchestrator | Role::Agent => {
                // An agent that listens on loopback alone is not reached here, whatever this says.
                let own = self.container.ports.iter().filter(|port| !port.udp);
                ports.extend(own.map(|own| {
                    port(
                        &format!("port-{}", own.container),
                        own.container,
                        own.container,
                    )
                }));
            }
            Role::Elsewhere => {}
        }
        Service {
            metadata: self.metadata(),
            spec: Some(ServiceSpec {
                selector: Some(self.selector()),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    pub(super) fn disruption_budget(&self) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: self.metadata(),
            spec: Some(PodDisruptionBudgetSpec {
                // A minimum of one would keep a node with the only pod from being drained for ever.
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(self.label_selector()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }

    pub(super) fn label_selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector()),
            ..LabelSelector::default()
        }
    }
}

/// What finds the pods of a service of the mesh.
pub(super) fn selector(mesh: &str, of: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", of),
        ("app.kubernetes.io/part-of", mesh),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

pub(super) fn metadata(name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}
