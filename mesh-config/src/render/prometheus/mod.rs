//! prometheus.yml and the rules that lie beside it.
//!
//! What is written is read by Prometheus 2.24 (Debian 11) and everything newer, 3 included: nothing younger is used, and
//! nothing that 3 took away.

mod alerts;
mod config;
mod jobs;
mod rules;

use super::targets::yaml;
use super::{RenderError, Rendered};
use crate::mesh::Mesh;
use crate::secret::Secrets;
use config::{Alerting, Config, Global};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use config::duration;

/// Longest wait for one target's answer, as Prometheus has it where nobody says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Renders prometheus.yml, `rules/mesh-records.yml` and `rules/mesh-alerts.yml`.
///
/// prometheus.yml holds a secret only where the registry asks for a token: Prometheus takes Consul's from nowhere else.
///
/// # Errors
/// [`RenderError::Write`] for what YAML cannot hold.
pub fn prometheus(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let telemetry = &mesh.telemetry;
    let jobs = jobs::jobs(mesh, secrets);
    let managers = &telemetry.alertmanagers;
    let names: Vec<&str> = jobs.iter().map(|job| job.job_name.as_str()).collect();
    let records = rules::records(mesh, &names);
    let alerts = alerts::groups(mesh, &names);
    let config = Config {
        global: Global {
            scrape_interval: duration(telemetry.scrape_interval),
            scrape_timeout: duration(telemetry.scrape_interval.min(TIMEOUT)),
            evaluation_interval: duration(telemetry.evaluation_interval),
            external_labels: BTreeMap::from([("mesh", mesh.name.clone())]),
        },
        alerting: (!managers.is_empty()).then(|| Alerting::to(managers.clone())),
        rule_files: vec!["rules/*.yml"],
        scrape_configs: jobs,
    };
    let text = yaml("prometheus.yml", &config)?;
    let consul = mesh.trust.registry.consul.as_ref();
    let main = match consul.and_then(|consul| consul.token.as_ref()) {
        Some(_) => Rendered::veiled(secrets, "prometheus", "yml", text),
        None => Rendered::open("prometheus.yml", text),
    };
    Ok(vec![
        main,
        Rendered::open(
            "rules/mesh-records.yml",
            yaml("mesh-records.yml", &records)?,
        ),
        Rendered::open("rules/mesh-alerts.yml", yaml("mesh-alerts.yml", &alerts)?),
    ])
}
