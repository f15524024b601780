//! prometheus.yml as types: of Prometheus' configuration what a mesh needs.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub(super) struct Config {
    pub global: Global,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerting: Option<Alerting>,
    pub rule_files: Vec<&'static str>,
    pub scrape_configs: Vec<ScrapeConfig>,
}

#[derive(Debug, Serialize)]
pub(super) struct Global {
    pub scrape_interval: String,
    pub scrape_timeout: String,
    pub evaluation_interval: String,
    pub external_labels: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Alerting {
    alertmanagers: Vec<Alertmanagers>,
}

#[derive(Debug, Serialize)]
struct Alertmanagers {
    static_configs: Vec<Static>,
}

impl Alerting {
    pub(super) fn to(targets: Vec<String>) -> Self {
        Self {
            alertmanagers: vec![Alertmanagers {
                static_configs: vec![Static {
                    targets,
                    labels: BTreeMap::new(),
                }],
            }],
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ScrapeConfig {
    pub job_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_path: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    /// Understood by every release, where `authorization` is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Tls>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub static_configs: Vec<Static>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consul_sd_configs: Vec<ConsulSd>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relabel_configs: Vec<RelabelConfig>,
}

#[derive(Debug, Serialize)]
pub(super) struct Static {
    pub targets: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Tls {
    pub ca_file: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ConsulSd {
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Tls>,
    pub services: Vec<String>,
    pub refresh_interval: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RelabelConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
}

/// A duration as Prometheus and Grafana write it.
pub(in crate::render) fn duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}
