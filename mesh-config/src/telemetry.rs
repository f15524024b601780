//! The checked side of `telemetry:`: what Prometheus scrapes and when it alerts, and what Grafana asks.

use std::collections::BTreeMap;
use std::time::Duration;

/// Where a local gateway serves its metrics (`gateway --status`) when nobody says otherwise.
pub const GATEWAY_STATUS_PORT: u16 = 10_009;
/// Where Prometheus is for Grafana when mesh.yaml does not say.
pub const PROMETHEUS: &str = "http://127.0.0.1:9090";
/// Where Grafana looks for dashboards when mesh.yaml does not say.
pub const DASHBOARDS: &str = "/var/lib/grafana/dashboards";
/// What the anchors of runbooks are appended to when mesh.yaml does not say.
pub const RUNBOOKS: &str = "docs/alerts.md";

/// What Prometheus and Grafana are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// How often each target is asked.
    pub scrape_interval: Duration,
    /// How often rules are looked at.
    pub evaluation_interval: Duration,
    /// Where alerts are sent, `HOST:PORT` each.
    pub alertmanagers: Vec<String>,
    /// Jobs beyond the mesh's own, or in their place where the name is the same; names are unique.
    pub jobs: Vec<Job>,
    /// When alerts fire.
    pub thresholds: Thresholds,
    /// What Grafana asks.
    pub grafana: Grafana,
    /// Page of the runbooks, to which `#alertname` is appended.
    pub runbooks: String,
}

/// One job of Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Name.
    pub name: String,
    /// `HOST:PORT` each; none where the registry is asked.
    pub targets: Vec<String>,
    /// Services of the registry, at the addresses that they registered.
    pub services: Vec<String>,
    /// Whether its targets speak TLS.
    pub https: bool,
    /// Path; `/metrics` when absent.
    pub path: Option<String>,
    /// Parameters of the query.
    pub params: BTreeMap<String, Vec<String>>,
    /// Labels of every target.
    pub labels: BTreeMap<String, String>,
    /// How often; as all others when absent.
    pub interval: Option<Duration>,
    /// What becomes of a target's labels, in this order.
    pub relabel: Vec<Relabel>,
}

/// One step of relabelling, as Prometheus has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relabel {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// Between them; `;` when absent.
    pub separator: Option<String>,
    /// What the joined value must match as a whole.
    pub regex: Option<String>,
    /// The label that is set.
    pub target_label: Option<String>,
    /// What it is set to; `$1` when absent.
    pub replacement: Option<String>,
    /// What is done; `replace` when absent.
    pub action: Option<&'static str>,
}

/// When alerts fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Steps wait longer in a queue, one in twenty.
    pub queue_wait: Duration,
    /// More messages are ready in the broker, and their number grows.
    pub queue_depth: u64,
    /// More of a hundred tasks, or of requests between services, fail.
    pub error_percent: u64,
    /// A certificate is valid for less.
    pub certificate_left: Duration,
    /// The broker waits for less until it takes a delivery back.
    pub ack_deadline_left: Duration,
    /// More dead letters in ten minutes.
    pub dead_letters: u64,
    /// Instances are ejected more often in ten minutes.
    pub ejections: u64,
    /// More runs are taken over in ten minutes.
    pub takeovers: u64,
    /// More of a hundred places in the model's line are taken.
    pub model_line_percent: u64,
}

/// What Grafana asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grafana {
    /// Base URL of Prometheus.
    pub prometheus: String,
    /// Whether mesh.yaml names it: what is a default may be nobody's.
    pub prometheus_named: bool,
    /// Base URL of Loki, where there is one.
    pub loki: Option<String>,
    /// Base URL of Jaeger's query service, where there is one.
    pub jaeger: Option<String>,
    /// Directory of the dashboards on Grafana's machine or in its container.
    pub dashboards: String,
}
