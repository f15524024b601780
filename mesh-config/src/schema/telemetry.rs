//! `telemetry:` as it is written.

use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::trust::texts;
use super::values;
use crate::finding::Finding;
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub scrape_interval: Option<At<Duration>>,
    pub evaluation_interval: Option<At<Duration>>,
    pub alertmanagers: Vec<At<String>>,
    pub jobs: Vec<At<Job>>,
    pub thresholds: Thresholds,
    pub grafana: Grafana,
    pub runbooks: Option<At<String>>,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub name: Option<At<String>>,
    pub targets: Option<At<Vec<At<String>>>>,
    pub services: Option<At<Vec<At<String>>>>,
    pub https: Option<At<bool>>,
    pub path: Option<At<String>>,
    pub params: Vec<At<Param>>,
    pub labels: BTreeMap<String, String>,
    pub interval: Option<At<Duration>>,
    pub relabel: Vec<At<Relabel>>,
}

/// A parameter of the query and its values.
pub(crate) type Param = (String, Vec<String>);

#[derive(Debug)]
pub(crate) struct Relabel {
    pub source_labels: Vec<At<String>>,
    pub separator: Option<At<String>>,
    pub regex: Option<At<String>>,
    pub target_label: Option<At<String>>,
    pub replacement: Option<At<String>>,
    pub action: Option<At<&'static str>>,
}

#[derive(Debug, Default)]
pub(crate) struct Thresholds {
    pub queue_wait: Option<At<Duration>>,
    pub queue_depth: Option<At<u64>>,
    pub error_percent: Option<At<u64>>,
    pub certificate_left: Option<At<Duration>>,
    pub ack_deadline_left: Option<At<Duration>>,
    pub dead_letters: Option<At<u64>>,
    pub ejections: Option<At<u64>>,
    pub takeovers: Option<At<u64>>,
    pub model_line_percent: Option<At<u64>>,
}

#[derive(Debug, Default)]
pub(crate) struct Grafana {
    pub prometheus: Option<At<Url>>,
    pub loki: Option<At<Url>>,
    pub jaeger: Option<At<Url>>,
    pub dashboards: Option<At<String>>,
}

/// What Prometheus can do with a target's labels, but for `hashmod`, which shares targets out among several.
const ACTIONS: &[(&str, &str)] = &[
    ("replace", "replace"),
    ("keep", "keep"),
    ("drop", "drop"),
    ("labelmap", "labelmap"),
    ("labeldrop", "labeldrop"),
    ("labelkeep", "labelkeep"),
];

pub(super) fn telemetry(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Telemetry> {
    let mut f = reader.fields(spot)?;
    // Rates are taken over five minutes: longer intervals would leave them without two samples.
    let intervals = || values::duration(Duration::from_secs(1)..=Duration::from_secs(60));
    let telemetry = Telemetry {
        scrape_interval: f.optional(reader, "scrape_interval", intervals()),
        evaluation_interval: f.optional(reader, "evaluation_interval", intervals()),
        alertmanagers: list(f.optional(reader, "alertmanagers", |r, s| r.list(s, target))),
        jobs: list(f.optional(reader, "jobs", |r, s| r.list(s, job))),
        thresholds: f
            .optional(reader, "thresholds", thresholds)
            .map(|t| t.value)
            .unwrap_or_default(),
        grafana: f
            .optional(reader, "grafana", grafana)
            .map(|g| g.value)
            .unwrap_or_default(),
        runbooks: f.optional(reader, "runbooks", values::text),
    };
    f.finish(reader);
    Some(telemetry)
}

fn list<T>(at: Option<At<Vec<At<T>>>>) -> Vec<At<T>> {
    at.map(|at| at.value).unwrap_or_default()
}

fn job(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Job> {
    let mut f = reader.fields(spot)?;
    let intervals = values::duration(Duration::from_secs(1)..=Duration::from_secs(3600));
    let job = Job {
        name: f.required(reader, "name", "node-exporter", job_name),
        targets: f.optional(reader, "targets", |r, s| r.list(s, target)),
        services: f.optional(reader, "services", |r, s| r.list(s, values::text)),
        https: f.optional(reader, "https", values::boolean),
        path: f.optional(reader, "path", path),
        params: list(f.optional(reader, "params", params)),
        labels: f
            .optional(reader, "labels", labels)
            .map(|l| l.value)
            .unwrap_or_default(),
        interval: f.optional(reader, "interval", intervals),
        relabel: list(f.optional(reader, "relabel", |r, s| r.list(s, relabel))),
    };
    f.finish(reader);
    Some(job)
}

fn relabel(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Relabel> {
    let mut f = reader.fields(spot)?;
    let sources = f.optional(reader, "source_labels", |r, s| r.list(s, label));
    let relabel = Relabel {
        source_labels: list(sources),
        separator: f.optional(reader, "separator", values::text),
        regex: f.optional(reader, "regex", regex),
        target_label: f.optional(reader, "target_label", label),
        replacement: f.optional(reader, "replacement", values::text),
        action: f.optional(reader, "action", values::choice(ACTIONS)),
    };
    f.finish(reader);
    let action = relabel.action.as_ref().map_or("replace", |at| at.value);
    if action == "replace" && relabel.target_label.is_none() {
        let path = format!("{}.target_label", spot.path);
        let message = format!("{path} is missing: where does the value go?");
        reader.push(
            Finding::error("missing", spot.node.place, path, message)
                .hint("add `target_label: NAME`, or say another action"),
        );
        return None;
    }
    Some(relabel)
}

fn thresholds(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Thresholds> {
    let mut f = reader.fields(spot)?;
    let times = || values::duration(Duration::from_secs(1)..=DAY * 31);
    let many = || values::integer(0..=1_000_000_000);
    let percent = || values::integer(0..=100);
    let thresholds = Thresholds {
        queue_wait: f.optional(reader, "queue_wait", times()),
        queue_depth: f.optional(reader, "queue_depth", many()),
        error_percent: f.optional(reader, "error_percent", percent()),
        certificate_left: f.optional(reader, "certificate_left", times()),
        ack_deadline_left: f.optional(reader, "ack_deadline_left", times()),
        dead_letters: f.optional(reader, "dead_letters", many()),
        ejections: f.optional(reader, "ejections", many()),
        takeovers: f.optional(reader, "takeovers", many()),
        model_line_percent: f.optional(reader, "model_line_percent", percent()),
    };
    f.finish(reader);
    Some(thresholds)
}

fn grafana(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Grafana> {
    let mut f = reader.fields(spot)?;
    let url = |example| values::open_url(&["http", "https"], example);
    let grafana = Grafana {
        prometheus: f.optional(reader, "prometheus", url("http://prometheus:9090")),
        loki: f.optional(reader, "loki", url("http://loki:3100")),
        jaeger: f.optional(reader, "jaeger", url("http://jaeger:16686")),
        dashboards: f.optional(reader, "dashboards", values::text),
    };
    f.finish(reader);
    Some(grafana)
}

/// A name that is a label's value everywhere.
fn job_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let name = values::text(reader, spot)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() <= 64 && name.bytes().all(legal) {
        return Some(name);
    }
    let message = format!("{}: `{name}` cannot be a job", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 64 letters, digits, '.', '_' and '-'"));
    None
}

/// `HOST:PORT`; the host may be a name, since Prometheus resolves it.
fn target(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if is_target(&text) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no host and port", spot.path);
    let finding = Finding::error("invalid_address", spot.node.place, spot.path, message);
    reader.push(
        finding.hint("write HOST:PORT, such as node-exporter:9100, without http:// and path"),
    );
    None
}

fn is_target(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let figures = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = figures && port.parse::<u16>().is_ok_and(|port| port > 0);
    let v6 = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !host.is_empty() && host.len() <= 253 && host.bytes().all(legal)
        }
    };
    host && port
}

fn path(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let query = text.contains(['?', '#']);
    if text.starts_with('/') && !query && text.parse::<http::uri::PathAndQuery>().is_ok() {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no path", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader
        .push(finding.hint("write a path such as /metrics; what follows a ? stands under params"));
    None
}

/// Names, each with one text or a list of them.
fn params(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<Param>>> {
    // Reports duplicates; no name is unknown.
    reader.fields(spot)?;
    let super::tree::Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut all = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = format!("{}.{}", spot.path, key.text);
        let spot = Spot { node, path: &path };
        let texts = match &node.value {
            super::tree::Value::List(_) => reader
                .list(spot, values::text)
                .map(|list| list.into_iter().map(|at| at.value).collect()),
            _ => values::text(reader, spot).map(|text| vec![text]),
        };
        all.extend(texts.map(|texts| At {
            value: (key.text.clone(), texts),
            place: key.place,
            path: path.clone(),
        }));
    }
    Some(all)
}

fn labels(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<BTreeMap<String, String>> {
    let all = texts(reader, spot)?;
    for name in all.keys().filter(|name| !is_label(name)) {
        let message = format!("{}: `{name}` cannot be a label", spot.path);
        let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
        reader.push(finding.hint("letters, digits and _, not beginning with a digit"));
    }
    Some(all)
}

fn label(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if is_label(&text) {
        return Some(text);
    }
    let message = format!("{}: `{text}` cannot be a label", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("letters, digits and _, not beginning with a digit"));
    None
}

fn is_label(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.bytes().all(legal) && !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty()
}

/// Prometheus' syntax (RE2) is that of this crate, but for a few names of Unicode classes.
fn regex(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let Err(error) = regex::Regex::new(&text) else {
        return Some(text);
    };
    let message = format!("{}: `{text}` is no regular expression", spot.path);
    let finding = Finding::error("invalid_regex", spot.node.place, spot.path, message);
    let why = error.to_string();
    let why = why.lines().last().unwrap_or_default();
    reader.push(finding.hint(why.trim_start_matches("error: ").to_owned()));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_and_ports() {
        for good in ["kong:8001", "10.0.0.1:1", "[::1]:65535", "a-b.c_d:80"] {
            assert!(is_target(good), "{good}");
        }
        for bad in [
            "kong",
            "kong:",
            ":80",
            "kong:0",
            "kong:65536",
            "kong:+1",
            "http://kong:1",
            "a b:1",
            "[::g]:1",
            "a/b:1",
        ] {
            assert!(!is_target(bad), "{bad}");
        }
    }
}
