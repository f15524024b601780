//! What is scraped: each job once, and each from somewhere.

use super::{error, warning};
use crate::finding::{Finding, Place};
use crate::schema::File;
use std::collections::BTreeMap;

/// Every finding about telemetry.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for at in &file.telemetry.jobs {
        let job = &at.value;
        let Some(name) = &job.name else { continue };
        if let Some(first) = seen.insert(&name.value, name.place) {
            let message = format!(
                "job {} stands twice, first in line {}",
                name.value, first.line
            );
            let finding = error("duplicate_job", name, message);
            out.push(finding.hint("give each job a name of its own; one job has many targets"));
        }
        match (&job.targets, &job.services) {
            (Some(_), Some(services)) => {
                let message = format!("{} and targets exclude each other", services.path);
                let finding = error("conflict", services, message);
                out.push(finding.hint("make two jobs of it"));
            }
            (None, None) if !served(file, &name.value) => {
                let path = format!("{}.targets", at.path);
                let message = format!("{path} is missing: what is scraped?");
                out.push(Finding::error("missing", at.place, path, message).hint(
                    "add `targets: [HOST:PORT]`, or `services: [NAME]` as they are in Consul",
                ));
            }
            (None, Some(services)) if !file.registry.consul.as_ref().is_some_and(|c| c.value) => {
                let message = format!(
                    "{} are looked for in Consul, and there is none",
                    services.path
                );
                let finding = warning("no_registry", services, message);
                out.push(
                    finding.hint("add `registry: {backend: consul, url: ...}`, or name targets"),
                );
            }
            _ => {}
        }
    }
}

/// Whether a service belongs to the job; without a name its job is called as it is.
fn served(file: &File, job: &str) -> bool {
    file.services.iter().any(|at| {
        let service = &at.value;
        let metrics = service.metrics.as_ref().map(|at| &at.value);
        metrics.is_some_and(|metrics| {
            let name = metrics.job.as_ref().or(service.name.as_ref());
            name.is_some_and(|name| name.value == job)
        })
    })
}
