//! Prometheus and Grafana: what is absent is the usual.

use super::value;
use crate::schema;
use crate::telemetry::{
    DASHBOARDS, Grafana, Job, PROMETHEUS, RUNBOOKS, Relabel, Telemetry, Thresholds,
};
use std::time::Duration;
use url::Url;

/// The plan's.
const INTERVAL: Duration = Duration::from_secs(15);

/// `warn_before` is what the sidecars warn of certificates by, `consumer_timeout` how long the broker waits.
pub(super) fn telemetry(
    raw: schema::Telemetry,
    warn_before: Duration,
    consumer_timeout: Duration,
) -> Telemetry {
    let limits = raw.thresholds;
    let grafana = raw.grafana;
    Telemetry {
        scrape_interval: value(raw.scrape_interval).unwrap_or(INTERVAL),
        evaluation_interval: value(raw.evaluation_interval).unwrap_or(INTERVAL),
        alertmanagers: raw.alertmanagers.into_iter().map(|at| at.value).collect(),
        jobs: raw
            .jobs
            .into_iter()
            .filter_map(|at| job(at.value))
            .collect(),
        thresholds: Thresholds {
            queue_wait: value(limits.queue_wait).unwrap_or(Duration::from_secs(30)),
            queue_depth: value(limits.queue_depth).unwrap_or(1_000),
            error_percent: value(limits.error_percent).unwrap_or(5),
            certificate_left: value(limits.certificate_left).unwrap_or(warn_before),
            ack_deadline_left: value(limits.ack_deadline_left).unwrap_or(consumer_timeout / 5),
            dead_letters: value(limits.dead_letters).unwrap_or(0),
            ejections: value(limits.ejections).unwrap_or(0),
            takeovers: value(limits.takeovers).unwrap_or(0),
            model_line_percent: value(limits.model_line_percent).unwrap_or(80),
        },
        grafana: Grafana {
            prometheus_named: grafana.prometheus.is_some(),
            prometheus: value(grafana.prometheus).map_or_else(|| PROMETHEUS.to_owned(), base),
            loki: value(grafana.loki).map(base),
            jaeger: value(grafana.jaeger).map(base),
            dashboards: value(grafana.dashboards).unwrap_or_else(|| DASHBOARDS.to_owned()),
        },
        runbooks: value(raw.runbooks).unwrap_or_else(|| RUNBOOKS.to_owned()),
    }
}

/// A URL that paths are appended to.
fn base(url: Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn job(raw: schema::Job) -> Option<Job> {
    let texts = |at: Option<schema::At<Vec<schema::At<String>>>>| -> Vec<String> {
        let all = value(at).unwrap_or_default().into_iter();
        all.map(|at| at.value).collect()
    };
    Some(Job {
        name: value(raw.name)?,
        targets: texts(raw.targets),
        services: texts(raw.services),
        https: value(raw.https).unwrap_or_default(),
        path: value(raw.path),
        params: raw.params.into_iter().map(|at| at.value).collect(),
        labels: raw.labels,
        interval: value(raw.interval),
        relabel: raw
            .relabel
            .into_iter()
            .map(|at| relabel(at.value))
            .collect(),
    })
}

fn relabel(raw: schema::Relabel) -> Relabel {
    Relabel {
        source_labels: raw.source_labels.into_iter().map(|at| at.value).collect(),
        separator: value(raw.separator),
        regex: value(raw.regex),
        target_label: value(raw.target_label),
        replacement: value(raw.replacement),
        action: value(raw.action),
    }
}
