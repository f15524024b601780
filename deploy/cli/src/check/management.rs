//! What RabbitMQ's management API says of the broker: version, alarms, nodes, feature flags.

use super::ask::{answer, client, items};
use super::finding::Finding;
use mesh_config::broker::Management;
use mesh_config::broker_url::Place;
use mesh_config::secret::Secrets;
use reqwest::Client;
use serde_json::Value;
use std::path::Path;

/// The oldest release with quorum queues whose poison messages are counted.
const OLDEST: (u32, u32) = (3, 8);

/// Where the management API is, and as whom it is asked.
pub struct Asked {
    client: Client,
    base: String,
    user: String,
    password: String,
}

impl Asked {
    /// As mesh.yaml says, with the user of the broker's URL where it names none.
    ///
    /// # Errors
    /// In words, without a password.
    pub fn new(
        management: &Management,
        base: &Path,
        secrets: &Secrets,
        broker: &str,
    ) -> Result<Self, String> {
        let (user, password) = match &management.credentials {
            Some(source) => {
                let both = secrets.value(source).and_then(|text| text.split_once(':'));
                let (user, password) = both.ok_or("its credentials are no user:password")?;
                (user.to_owned(), password.to_owned())
            }
            None => {
                let place = Place::of(broker).ok_or("messaging.url names no broker")?;
                (place.user, place.password)
            }
        };
        let ca = management.ca.as_ref().map(|ca| base.join(ca));
        Ok(Self {
            client: client(ca.as_deref())?,
            base: management.url.as_str().trim_end_matches('/').to_owned(),
            user,
            password,
        })
    }

    /// Asks; every finding is about the whole broker.
    pub async fn check(&self) -> Vec<Finding> {
        let base = &self.base;
        let ask = |path: &str| {
            let request = self.client.get(format!("{base}/api/{path}"));
            answer(request.basic_auth(&self.user, Some(&self.password)))
        };
        let (overview, nodes, flags) =
            tokio::join!(ask("overview"), ask("nodes"), ask("feature-flags"));
        match (overview, nodes) {
            (Ok(overview), Ok(nodes)) => {
                let mut findings = judge_nodes(&nodes);
                findings.insert(0, judge_version(&overview));
                // Feature flags came with 3.8, and their page asks for the tag administrator.
                findings.extend(flags.ok().map(|flags| judge_flags(&flags)));
                findings
            }
            (Err(why), _) | (_, Err(why)) => vec![
                Finding::warn("management_unreachable", format!("{base}: {why}")).mend(
                    "enable rabbitmq_management, and give its user the tag monitoring; steps travel without it",
                ),
            ],
        }
    }
}

fn judge_version(overview: &Value) -> Finding {
    let version = overview.get("rabbitmq_version").and_then(Value::as_str);
    let version = version.unwrap_or_default();
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().ok());
    let read = (numbers.next().flatten(), numbers.next().flatten());
    match read {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            let what = format!("RabbitMQ {version} is too old");
            Finding::fail("broker_too_old", what).mend("3.8 is the oldest with quorum queues")
        }
        _ => Finding::pass(format!("it is RabbitMQ {version}")),
    }
}

fn judge_nodes(nodes: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in items(nodes, "") {
        let name = node.get("name").and_then(Value::as_str).unwrap_or("?");
        let is = |field: &str| node.get(field).and_then(Value::as_bool);
        if is("running") == Some(false) {
            let what = format!("{name} does not run");
            findings.push(Finding::warn("broker_node_down", what).mend(
                "start it: queues live with a majority of their nodes, and lose the next failure",
            ));
            continue;
        }
        for (field, what, mend) in [
            (
                "mem_alarm",
                "memory",
                "raise vm_memory_high_watermark, or let queues be emptied",
            ),
            (
                "disk_free_alarm",
                "disk space",
                "free disk space, or lower disk_free_limit",
            ),
        ] {
            if is(field) == Some(true) {
                let what = format!("{name} has too little {what}: it takes no message");
                findings.push(Finding::fail("broker_alarm", what).mend(mend));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::pass("every node runs, without alarms"));
    }
    findings
}

fn judge_flags(flags: &Value) -> Finding {
    let off = items(flags, "").filter(|flag| {
        let is =
            |field: &str, wanted: &str| flag.get(field).and_then(Value::as_str) == Some(wanted);
        is("state", "disabled") && is("stability", "stable")
    });
    let off: Vec<&str> = off.filter_map(|flag| flag.get("name")?.as_str()).collect();
    if off.is_empty() {
        return Finding::pass("every stable feature flag is enabled");
    }
    Finding::warn(
        "feature_flags_disabled",
        format!("disabled: {}", off.join(", ")),
    )
    .mend("rabbitmqctl enable_feature_flag all: the next release may not start without them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn age_and_flags_have_their_codes() {
        let version = |text: &str| judge_version(&json!({"rabbitmq_version": text})).code;
        assert_eq!(version("3.7.28"), Some("broker_too_old"));
        assert_eq!(version("3.10.8"), None);
        assert_eq!(version("4.0.5"), None);
        let down = judge_nodes(&json!([{"name": "a", "running": false, "mem_alarm": true}]));
        assert_eq!(down[0].code, Some("broker_node_down"));
        let flag = |state: &str, stability: &str| {
            judge_flags(&json!([{"name": "f", "state": state, "stability": stability}])).code
        };
        assert_eq!(flag("disabled", "stable"), Some("feature_flags_disabled"));
        assert_eq!(flag("disabled", "experimental"), None);
        assert_eq!(flag("enabled", "stable"), None);
    }
}
