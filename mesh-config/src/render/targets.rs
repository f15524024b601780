//! What can be rendered: one entry for each target of `mesh render`.

use super::{
    RenderError, Rendered, compose, consul, environment, grafana, kong, kubernetes, orchestrator,
    prometheus, rabbitmq, sidecars,
};
use crate::deploy::Place;
use crate::mesh::Mesh;
use crate::secret::Secrets;
use serde::Serialize;

/// One target of `mesh render`.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and its directory under `all`.
    pub name: &'static str,
    /// What is written for it, for people.
    pub writes: &'static str,
    /// The files. A pure function: the same mesh gives the same files in the same order. Made with
    /// [`Rendered::veiled`] are those that hold secrets' values when they are known, with [`Rendered::open`]
    /// those that never do. A name may lead into directories (`rules/mesh.yml`); it is the target's own and
    /// taken from nowhere else than checked names.
    pub render: fn(&Mesh, &Secrets) -> Result<Vec<Rendered>, RenderError>,
    /// Where its containers run; the secrets are then those of the mesh as it is there.
    pub place: Option<Place>,
}

/// All of them, in the order in which `all` writes them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "kong",
        writes: "kong.yml and the environment of Kong",
        render: kong_files,
        place: None,
    },
    Target {
        name: "sidecar",
        writes: "sidecar-SERVICE.json, one per agent, gateway and orchestrator",
        render: sidecar_files,
        place: None,
    },
    Target {
        name: "orchestrator",
        writes: "orchestrator.json",
        render: orchestrator_files,
        place: None,
    },
    Target {
        name: "prometheus",
        writes: "prometheus.yml, rules/mesh-records.yml and rules/mesh-alerts.yml",
        render: prometheus,
        place: None,
    },
    Target {
        name: "grafana",
        writes: "dashboards/*.json and provisioning/ for them and their data sources",
        render: grafana,
        place: None,
    },
    Target {
        name: "rabbitmq",
        writes: "rabbitmq.json, the broker's definitions",
        render: rabbitmq_files,
        place: None,
    },
    Target {
        name: "consul",
        writes: "consul.d/mesh.json for its agent, consul.d-intentions/SERVICE.json for `consul config write`",
        render: consul_files,
        place: None,
    },
    Target {
        name: "compose",
        writes: "docker-compose.yml and what it mounts",
        render: compose::files,
        place: Some(Place::Compose),
    },
    Target {
        name: "kubernetes",
        writes: "objects with a kustomization, two overlays, a rule for prometheus-adapter",
        render: kubernetes::files,
        place: Some(Place::Kubernetes),
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn kong_files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let text = kong(mesh, secrets)?.to_yaml();
    let text = text.map_err(|error| RenderError::Write {
        part: "kong.yml",
        detail: error.to_string(),
    })?;
    Ok(vec![
        Rendered::veiled(secrets, "kong", "yml", text),
        Rendered::open("kong.env", environment(mesh, &mesh.gateway.filters_path)),
    ])
}

fn sidecar_files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let all = sidecars(mesh, secrets)?.into_iter().map(|config| {
        let text = json("sidecar.json", &config)?;
        let name = format!("sidecar-{}", config.service);
        Ok(Rendered::veiled(secrets, &name, "json", text))
    });
    all.collect()
}

fn orchestrator_files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let text = json("orchestrator.json", &orchestrator(mesh, secrets)?)?;
    Ok(vec![Rendered::veiled(
        secrets,
        "orchestrator",
        "json",
        text,
    )])
}

fn rabbitmq_files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let text = json("rabbitmq.json", &rabbitmq(mesh, secrets)?)?;
    Ok(vec![Rendered::veiled(secrets, "rabbitmq", "json", text)])
}

/// Nothing of it is secret.
fn consul_files(mesh: &Mesh, _: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let text = json("consul.d/mesh.json", &consul(mesh)?)?;
    let mut files = vec![Rendered::open("consul.d/mesh.json", text)];
    for entry in consul::intentions(mesh)? {
        let name = format!("consul.d-intentions/{}.json", entry.name);
        let text = json("consul.d-intentions", &entry)?;
        files.push(Rendered::open(&name, text));
    }
    Ok(files)
}

/// A reader's type as JSON that people can read and compare: keys by the alphabet, whatever order their type has.
pub(super) fn json(part: &'static str, value: &impl Serialize) -> Result<String, RenderError> {
    let text = serde_json::to_value(value).and_then(|value| serde_json::to_string_pretty(&value));
    text.map(|text| text + "\n")
        .map_err(|error| RenderError::Write {
            part,
            detail: error.to_string(),
        })
}

/// A reader's type as YAML. Lines are not folded: an expression must be found by searching for it.
pub(super) fn yaml(part: &'static str, value: &impl Serialize) -> Result<String, RenderError> {
    let options = serde_saphyr::ser_options! {
        min_fold_chars: usize::MAX,
        folded_wrap_chars: usize::MAX,
    };
    let text = serde_saphyr::to_string_with_options(value, options);
    text.map_err(|error| RenderError::Write {
        part,
        detail: error.to_string(),
    })
}
