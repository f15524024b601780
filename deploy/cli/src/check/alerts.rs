//! Whether Prometheus sees the mesh, and what it is alarmed about.

use super::ask::{answer, client, items};
use super::finding::Finding;
use crate::load::count;
use reqwest::Url;
use serde_json::Value;
use std::collections::BTreeSet;

/// Most alerts that are named one by one.
const NAMED: usize = 20;

/// What of a Prometheus belongs to this mesh.
pub struct Mine<'a> {
    /// The label `mesh`, where scraping gives one.
    pub mesh: &'a str,
    /// `HOST:PORT` of metrics that mesh.yaml or the running mesh names.
    pub addresses: BTreeSet<String>,
}

/// Asks the Prometheus at `url` for this mesh's targets and alerts.
pub async fn check(url: &Url, mine: &Mine<'_>) -> Vec<Finding> {
    let base = url.as_str().trim_end_matches('/');
    let client = match client(None) {
        Ok(client) => client,
        Err(why) => return vec![Finding::warn("metrics_unreachable", why)],
    };
    let ask = |path: &str| answer(client.get(format!("{base}{path}")));
    let (targets, alerts) =
        tokio::join!(ask("/api/v1/targets?state=active"), ask("/api/v1/alerts"));
    match (targets, alerts) {
        (Ok(targets), Ok(alerts)) => {
            let mut findings = vec![Finding::pass("Prometheus answers")];
            findings.extend(judge_targets(&targets, mine));
            findings.extend(judge_alerts(&targets, &alerts, mine));
            findings
        }
        (Err(why), _) | (_, Err(why)) => vec![
            Finding::warn(
                "metrics_unreachable",
                format!("Prometheus at {base}: {why}"),
            )
            .mend(
                "start Prometheus, or mend its URL; the mesh works without it, and nobody is told",
            ),
        ],
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// `HOST:PORT` of what is scraped.
fn scraped(target: &Value) -> Option<String> {
    let url = Url::parse(text(target, "/scrapeUrl")).ok()?;
    Some(format!(
        "{}:{}",
        url.host_str()?,
        url.port_or_known_default()?
    ))
}

fn is_mine(target: &Value, mine: &Mine<'_>) -> bool {
    text(target, "/labels/mesh") == mine.mesh
        || scraped(target).is_some_and(|at| mine.addresses.contains(&at))
}

fn judge_targets(targets: &Value, mine: &Mine<'_>) -> Vec<Finding> {
    let all = items(targets, "/data/activeTargets");
    let here: Vec<&Value> = all.filter(|target| is_mine(target, mine)).collect();
    if here.is_empty() {
        return vec![
            Finding::warn("targets_missing", "Prometheus scrapes nothing of this mesh").mend(
                "let it scrape /metrics of the orchestrator and of the sidecars' admin listeners",
            ),
        ];
    }
    let down = here.iter().filter(|t| text(t, "/health") == "down");
    let mut findings: Vec<Finding> = down
        .map(|target| {
            let (job, at) = (text(target, "/labels/job"), text(target, "/scrapeUrl"));
            let what = format!("{job}: {at}: {}", text(target, "/lastError"));
            Finding::warn("target_down", what)
                .mend("start what listens there, or mend what Prometheus scrapes")
        })
        .collect();
    // `unknown` is not scraped yet.
    let up = here.iter().filter(|t| text(t, "/health") == "up").count();
    findings.push(Finding::pass(format!(
        "{up} of {} up",
        count(here.len(), "target")
    )));
    findings
}

fn judge_alerts(targets: &Value, alerts: &Value, mine: &Mine<'_>) -> Vec<Finding> {
    let here = items(targets, "/data/activeTargets").filter(|target| is_mine(target, mine));
    let instances: BTreeSet<(&str, &str)> = here
        .map(|t| (text(t, "/labels/job"), text(t, "/labels/instance")))
        .collect();
    let jobs: BTreeSet<&str> = instances.iter().map(|(job, _)| *job).collect();
    let concerns = |alert: &&Value| {
        let label = |name: &str| {
            alert
                .pointer(&format!("/labels/{name}"))
                .and_then(Value::as_str)
        };
        match (label("mesh"), label("job"), label("instance")) {
            (Some(mesh), ..) => mesh == mine.mesh,
            (None, Some(job), Some(instance)) => instances.contains(&(job, instance)),
            (None, Some(job), None) => jobs.contains(job),
            // Of the whole: whoever asks what is wrong wants to hear it.
            (None, None, _) => true,
        }
    };
    let firing = items(alerts, "/data/alerts").filter(|alert| text(alert, "/state") == "firing");
    let firing: Vec<&Value> = firing.filter(concerns).collect();
    if firing.is_empty() {
        return vec![Finding::pass("no alert is firing")];
    }
    let shown = firing.iter().take(NAMED).map(|alert| {
        let name = text(alert, "/labels/alertname");
        let summary = match text(alert, "/annotations/summary") {
            "" => text(alert, "/annotations/description"),
            summary => summary,
        };
        let since = text(alert, "/activeAt");
        let what = format!("{name} since {since}: {summary}");
        let finding = if text(alert, "/labels/severity") == "critical" {
            Finding::fail("alert_firing", what)
        } else {
            Finding::warn("alert_firing", what)
        };
        match text(alert, "/annotations/runbook_url") {
            "" => {
                finding.mend("mesh status and mesh top show where; the other groups here say why")
            }
            runbook => finding.mend(runbook),
        }
    });
    let mut findings: Vec<Finding> = shown.collect();
    if firing.len() > NAMED {
        let more = count(firing.len() - NAMED, "alert");
        findings.push(Finding::warn("alert_firing", format!("and {more} more")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::State;
    use serde_json::json;

    #[test]
    fn targets_and_alerts_of_others_are_not_ours() {
        let mine = Mine {
            mesh: "m",
            addresses: BTreeSet::from(["127.0.0.1:1".to_owned()]),
        };
        let target = |url: &str, mesh: Option<&str>, health: &str| {
            json!({"scrapeUrl": url, "health": health,
            "labels": {"job": "j", "instance": url, "mesh": mesh}, "lastError": "refused"})
        };
        let targets = json!({"data": {"activeTargets": [
            target("http://127.0.0.1:1/metrics", None, "up"),
            target("http://127.0.0.1:2/metrics", Some("m"), "down"),
            target("http://127.0.0.1:3/metrics", Some("other"), "down"),
        ]}});
        let found = judge_targets(&targets, &mine);
        let codes: Vec<_> = found.iter().map(|f| f.code).collect();
        assert_eq!(codes, [Some("target_down"), None]);
        assert!(found[0].what.contains(":2/"), "{found:?}");
        let none = judge_targets(&json!({"data": {"activeTargets": []}}), &mine);
        assert_eq!(none[0].code, Some("targets_missing"));

        let alert = |labels: Value, state: &str| json!({"labels": labels, "state": state, "annotations": {"summary": "s"}});
        let alerts = json!({"data": {"alerts": [
            alert(json!({"alertname": "A", "mesh": "m", "severity": "critical"}), "firing"),
            alert(json!({"alertname": "B", "mesh": "other"}), "firing"),
            alert(json!({"alertname": "C", "mesh": "m"}), "pending"),
            alert(json!({"alertname": "D", "job": "j", "instance": "http://127.0.0.1:2/metrics"}), "firing"),
            alert(json!({"alertname": "E", "job": "j", "instance": "http://127.0.0.1:3/metrics"}), "firing"),
        ]}});
        let found = judge_alerts(&targets, &alerts, &mine);
        let said: Vec<_> = found.iter().map(|f| (f.state, &f.what[..1])).collect();
        assert_eq!(said, [(State::Fail, "A"), (State::Warn, "D")]);
    }
}
