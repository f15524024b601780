//! kustomization.yaml: what belongs together, the Secrets made of the rendered files, two overlays.

use super::workload::{Role, Workload};
use crate::mesh::Mesh;
use crate::render::{RenderError, Rendered, yaml};
use serde::Serialize;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kustomization {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    resources: Vec<String>,
    /// Their names get a hash of what they hold: who reads a changed file is started anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secret_generator: Vec<Generated>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<Replicas>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    patches: Vec<Patch>,
}

#[derive(Serialize)]
struct Generated {
    name: String,
    /// `KEY=FILE`.
    files: Vec<String>,
}

#[derive(Serialize)]
struct Replicas {
    name: String,
    count: u16,
}

#[derive(Serialize)]
struct Patch {
    target: Target,
    patch: String,
}

#[derive(Serialize)]
struct Target {
    kind: &'static str,
}

fn kustomization(mesh: &Mesh) -> Kustomization {
    Kustomization {
        api_version: "kustomize.config.k8s.io/v1beta1",
        kind: "Kustomization",
        namespace: mesh.name.clone(),
        ..Kustomization::default()
    }
}

pub(super) fn files(mesh: &Mesh, workloads: &[Workload]) -> Result<Vec<Rendered>, RenderError> {
    const PART: &str = "kustomization.yaml";
    let mut resources = vec![
        "environment.yaml".to_owned(),
        "network-policies.yaml".to_owned(),
    ];
    resources.extend(
        workloads
            .iter()
            .map(|workload| format!("{}.yaml", workload.name)),
    );
    let base = Kustomization {
        resources,
        secret_generator: workloads.iter().flat_map(generated).collect(),
        ..kustomization(mesh)
    };
    let above = || Kustomization {
        resources: vec!["../../base".to_owned()],
        ..kustomization(mesh)
    };
    // One of each, and none by need: a cluster without prometheus-adapter.
    let small = Kustomization {
        patches: vec![Patch {
            target: Target {
                kind: "HorizontalPodAutoscaler",
            },
            patch: "$patch: delete\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n\
                    metadata:\n  name: any\n"
                .to_owned(),
        }],
        ..above()
    };
    // Gateways and orchestrators take over from each other: two of each at least.
    let replicated = workloads
        .iter()
        .filter(|workload| matches!(workload.role, Role::Gateway | Role::Orchestrator));
    let large = Kustomization {
        replicas: replicated
            .map(|workload| Replicas {
                name: workload.name.clone(),
                count: workload.container.replicas.max(2),
            })
            .collect(),
        ..above()
    };
    Ok(vec![
        Rendered::open("base/kustomization.yaml", yaml(PART, &base)?),
        Rendered::open("overlays/small/kustomization.yaml", yaml(PART, &small)?),
        Rendered::open(
            "overlays/replicated/kustomization.yaml",
            yaml(PART, &large)?,
        ),
    ])
}

/// The Secrets of a workload: its sidecar's, and its own where it reads one.
fn generated(workload: &Workload) -> Vec<Generated> {
    let of = &workload.of;
    let mut all = vec![Generated {
        name: format!("{of}-sidecar"),
        files: vec![format!("sidecar.json=secrets/sidecar-{of}.secret.json")],
    }];
    let name = &workload.container.name;
    let secrets = workload.container.secrets.keys();
    let mut files: Vec<String> = secrets
        .map(|key| format!("{key}=secrets/{name}-{key}.secret.txt"))
        .collect();
    match workload.role {
        Role::Gateway => files.push("kong.yml=secrets/kong.secret.yml".to_owned()),
        Role::Orchestrator => {
            files.push("orchestrator.json=secrets/orchestrator.secret.json".to_owned());
        }
        Role::Agent | Role::Elsewhere => {}
    }
    if !files.is_empty() {
        all.push(Generated {
            name: of.clone(),
            files,
        });
    }
    all
}
