//! The parts of the mesh, as they speak of themselves, and the certificates of their sidecars.

use super::ask::{answer, items};
use super::finding::{Finding, Group};
use crate::load::{Loaded, addresses};
use mesh_local::probe::{self, Answer, Part};
use mesh_protocol::Timestamp;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinSet;

/// Less than this left, and whoever renews has failed for long.
const SHORT: Duration = Duration::from_secs(60 * 60);
/// Less than this left of an authority, and every certificate under it ends soon.
const AUTHORITY_SHORT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
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
    let warn_before = loaded.mesh.trust.identity.warn_before;
    let mut asked = JoinSet::new();
    for (place, part) in probe::parts(&addresses).into_iter().enumerate() {
        let client = client.clone();
        asked.spawn(async move {
            let certificate = certificate(&client, &part, warn_before).await;
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
async fn certificate(client: &reqwest::Client, part: &Part, warn_before: Duration) -> Vec<Finding> {
    if part.kind != "sidecar" {
        return Vec::new();
    }
    let Some(url) = part.url.strip_suffix("/ready") else {
        return Vec::new();
    };
    let asked = client.get(format!("{url}/certificate")).timeout(PATIENCE);
    let Ok(page) = answer(asked).await else {
        return Vec::new();
    };
    let now = Timestamp::now();
    let own = judge(&part.name, &page, now, warn_before);
    own.into_iter()
        .chain(authority(&part.name, &page, now))
        .collect()
}

/// An authority that ends soon, the first of them.
fn authority(name: &str, page: &Value, now: Timestamp) -> Option<Finding> {
    let mut ends = items(page, "/roots").filter_map(|root| {
        let until = root.get("not_after")?.clone();
        serde_json::from_value::<Timestamp>(until).ok()
    });
    let until = ends.find(|until| until.since(now) < AUTHORITY_SHORT)?;
    let what = format!("{name}: an authority that it believes ends at {until}");
    Some(Finding::warn("authority_near_expiry", what).mend("exchange it: docs/sidecar.md says how"))
}

fn judge(name: &str, page: &Value, now: Timestamp, warn_before: Duration) -> Option<Finding> {
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
    // One is renewed long before a tenth of its life is left.
    let begun = page.pointer("/certificate/not_before").cloned();
    let begun: Option<Timestamp> = begun.and_then(|begun| serde_json::from_value(begun).ok());
    let tenth = begun.map(|begun| until.since(begun) / 10);
    let near = warn_before.min(tenth.unwrap_or_default());
    let what = format!("{name}: valid for {} h{failure}", left.as_secs() / 3600);
    const SOURCE: &str = "see that the source of identities answers";
    Some(if left.is_zero() {
        Finding::fail(
            "certificate_expired",
            format!("{name}: expired at {until}{failure}"),
        )
        .mend(SOURCE)
    } else if left < SHORT && !failure.is_empty() {
        Finding::fail("certificate_expires", what).mend(SOURCE)
    } else if !failure.is_empty() {
        Finding::warn("renewal_failed", what).mend(SOURCE)
    } else if left < near {
        Finding::warn("certificate_near_expiry", what)
            .mend("it should have been renewed: see the log of its sidecar")
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
        let before = Duration::from_secs(3_600);
        let code = |page: Value| judge("a", &page, now, before).unwrap().code;
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
        let past = code(until("2026-11-28T11:59:00Z", Value::Null));
        assert_eq!(past, Some("certificate_expired"));
        let of_a_day = |at: &str| {
            let certificate = json!({"not_before": "2026-11-27T12:30:00Z", "not_after": at});
            code(json!({"source": "consul", "certificate": certificate}))
        };
        assert_eq!(
            of_a_day("2026-11-28T12:30:00Z"),
            Some("certificate_near_expiry")
        );
        assert_eq!(of_a_day("2026-11-28T14:30:00Z"), None);
        let roots = |at: &str| {
            let page = json!({"roots": [{"not_after": "2036-11-28T12:00:00Z"}, {"not_after": at}]});
            authority("a", &page, now).and_then(|finding| finding.code)
        };
        assert_eq!(roots("2026-12-01T12:00:00Z"), Some("authority_near_expiry"));
        assert_eq!(roots("2027-12-01T12:00:00Z"), None);
    }
}
