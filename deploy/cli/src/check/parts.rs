//! The parts of the mesh, as they speak of themselves, and the certificates of their sidecars.

use super::finding::{Finding, Group};
use crate::load::{Loaded, addresses};
use mesh_local::probe::{self, Answer, Part};
use mesh_protocol::Timestamp;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinSet;

/// Less than this left, and whoever renews has failed for long.
const SHORT: Duration = Duration::from_secs(60 * 60);
/// How long a sidecar has to show its certificate.
const PATIENCE: Duration = Duration::from_secs(3);

/// Groups `gateway`, `orchestrator`, `agents` and `certificates`.
pub async fn check(loaded: &Loaded) -> anyhow::Result<Vec<Group>> {
    let addresses = match addresses(loaded) {
        Ok(addresses) => addresses,
        Err(error) => {
            let finding = Finding::fail("not_running", format!("{error:#}"));
            return Ok(vec![Group::new("gateway").with(finding)]);
        }
    };
    let client = probe::client()?;
    let mut asked = JoinSet::new();
    for (place, part) in probe::parts(&addresses).into_iter().enumerate() {
        let client = client.clone();
        asked.spawn(async move {
            let certificate = certificate(&client, &part).await;
            (place, probe::ask(&client, part).await, certificate)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, ..)| *place);
    let mut groups = ["gateway", "orchestrator", "agents", "certificates"].map(Group::new);
    let [gateway, orchestrator, agents, certificates] = &mut groups;
    for (_, answer, certificate) in answers {
        let group = match (answer.part.kind, answer.part.name.as_str()) {
            ("gateway", _) | ("sidecar", "gateway") => &mut *gateway,
            ("orchestrator", _) | ("sidecar", "orchestrator") => &mut *orchestrator,
            _ => &mut *agents,
        };
        group.push(said(&answer));
        certificates.findings.extend(certificate);
    }
    Ok(groups.into())
}

fn said(answer: &Answer) -> Finding {
    let Part { kind, name, url } = &answer.part;
    let who = if kind == name {
        name.clone()
    } else {
        format!("{kind} {name}")
    };
    let what = format!("{who}: {}", answer.detail);
    if answer.up {
        return Finding::pass(what);
    }
    let (code, mend) = match *kind {
        "gateway" => (
            "gateway_down",
            "start it, and see that its filters are loaded",
        ),
        "orchestrator" => ("orchestrator_not_ready", "mend what it names, or start it"),
        "sidecar" => ("sidecar_not_ready", "mend what it names, or start it"),
        _ => ("agent_down", "start the agent; its steps wait"),
    };
    Finding::fail(code, what).mend(format!("{mend} ({url})"))
}

/// The certificate of a sidecar; nothing for what has none, or says nothing.
async fn certificate(client: &reqwest::Client, part: &Part) -> Option<Finding> {
    if part.kind != "sidecar" {
        return None;
    }
    let url = part.url.strip_suffix("/ready")?;
    let asked = client.get(format!("{url}/certificate")).timeout(PATIENCE);
    let page: Value = asked.send().await.ok()?.json().await.ok()?;
    judge(&part.name, &page, Timestamp::now())
}

fn judge(name: &str, page: &Value, now: Timestamp) -> Option<Finding> {
    let source = page.get("source")?.as_str()?;
    let failure = page
        .pointer("/last_renewal_error/error")
        .and_then(Value::as_str)
        .map(|why| format!(" (the last renewal failed: {why})"))
        .unwrap_or_default();
    let Some(until) = page.pointer("/certificate/not_after") else {
        return Some(
            Finding::fail(
                "certificate_missing",
                format!("{name} has none from {source}{failure}"),
            )
            .mend("see that the source of identities answers"),
        );
    };
    let until: Timestamp = serde_json::from_value(until.clone()).ok()?;
    let left = until.since(now);
    let what = format!("{name}: valid for {} h{failure}", left.as_secs() / 3600);
    Some(if left < SHORT && !failure.is_empty() {
        Finding::fail("certificate_expires", what).mend("see that the source of identities answers")
    } else if !failure.is_empty() {
        Finding::warn("renewal_failed", what).mend("see that the source of identities answers")
    } else {
        Finding::pass(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_certificate_that_runs_out_is_named_before_it_does() {
        let now: Timestamp = serde_json::from_value(json!("2026-11-28T12:00:00Z")).unwrap();
        let code = |page: Value| judge("a", &page, now).unwrap().code;
        let until = |at: &str, error: Value| json!({"source": "consul", "certificate": {"not_after": at}, "last_renewal_error": error});
        let failed = json!({"error": "503"});
        assert_eq!(code(until("2026-11-30T12:00:00Z", Value::Null)), None);
        assert_eq!(code(until("2026-11-28T12:10:00Z", Value::Null)), None);
        let soon = code(until("2026-11-28T12:10:00Z", failed.clone()));
        assert_eq!(soon, Some("certificate_expires"));
        let later = code(until("2026-11-30T12:00:00Z", failed));
        assert_eq!(later, Some("renewal_failed"));
        let none = code(json!({"source": "vault", "certificate": null}));
        assert_eq!(none, Some("certificate_missing"));
    }
}
