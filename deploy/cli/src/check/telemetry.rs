//! Whether what the mesh tells of itself is heard: traces, metrics, alerts.

use super::alerts::{self, Mine};
use super::finding::{Finding, Group};
use super::outside;
use crate::load::{Loaded, addresses, environment};
use mesh_config::Mesh;
use reqwest::Url;
use std::collections::BTreeSet;

/// Where the environment names the Prometheus that watches this mesh; else `telemetry.grafana.prometheus` does.
const PROMETHEUS: &str = "PROMETHEUS_URL";

pub async fn check(loaded: &Loaded, pre: bool) -> Group {
    let group = Group::new("telemetry").with(outside::traces(&loaded.mesh).await);
    let url = match prometheus(&loaded.mesh) {
        None => return group.with(Finding::pass("no Prometheus is named that would watch it")),
        Some(Ok(url)) => url,
        Some(Err(())) => {
            let what = format!(
                "{PROMETHEUS}, or telemetry.grafana.prometheus, is no http:// or https:// URL without more"
            );
            let finding = Finding::fail("metrics_url", what);
            return group.with(finding.mend("write http://HOST:9090, or unset it"));
        }
    };
    let mine = Mine {
        mesh: &loaded.mesh.name,
        addresses: known(loaded),
    };
    let mut found = alerts::check(&url, &mine).await;
    if pre {
        // Of a mesh that does not run there is no more to say than that somebody will look.
        found.truncate(1);
    }
    let mut group = group;
    group.findings.extend(found);
    group
}

/// The Prometheus of this mesh, or that what names one is no URL. The environment wins: mesh.yaml may name it as
/// containers reach it.
fn prometheus(mesh: &Mesh) -> Option<Result<Url, ()>> {
    let grafana = &mesh.telemetry.grafana;
    let named = grafana.prometheus_named.then(|| grafana.prometheus.clone());
    let text = environment(PROMETHEUS).filter(|text| !text.trim().is_empty());
    let url = Url::parse(text.or(named)?.trim()).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            // It is printed.
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    });
    Some(url.ok_or(()))
}

/// `HOST:PORT` of every part's metrics, as far as they are known here.
fn known(loaded: &Loaded) -> BTreeSet<String> {
    let Ok(found) = addresses(loaded) else {
        return BTreeSet::new();
    };
    let mut known = BTreeSet::from([found.orchestrator.to_string()]);
    let beside = [
        found.gateway_status,
        found.gateway_sidecar,
        found.orchestrator_sidecar,
    ];
    known.extend(beside.into_iter().flatten().map(|at| at.to_string()));
    known.extend(found.agents.iter().map(|agent| agent.admin.to_string()));
    known
}
