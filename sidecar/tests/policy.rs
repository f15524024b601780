//! Tasks whose originator may not reach the agent: answered, put aside, counted, in the audit log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod lane;

use ed25519_dalek::SigningKey;
use lane::{Lane, TestAgent, ok, quick, step};
use mesh_bus::Properties;
use mesh_bus::memory::MemoryBus;
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{Claims, public_half, sign};
use mesh_protocol::message::StepTask;
use mesh_protocol::outcome::Outcome;
use mesh_tests::wait_for;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// An assertion for `sub` that was good at `at` and the minute after.
fn assertion(sub: &str, at: Timestamp) -> String {
    let claims = Claims {
        iss: "gateway".into(),
        aud: "mesh".into(),
        sub: sub.into(),
        origin: "https://issuer.example".into(),
        scope: String::new(),
        claims: Default::default(),
        iat: at.seconds(),
        exp: at.seconds() + 60,
    };
    sign(&claims, "k1", &key())
}

/// An agent that only alice's tasks may reach.
async fn guarded(audit: &Path) -> Lane {
    let agent = TestAgent::start(vec![ok(json!("done"))]).await;
    let mut config = lane::config(agent.address, quick());
    config.policy = serde_json::from_value(json!({
        "intentions": [
            {"from": {"services": ["orchestrator"]}, "paths": ["/process"], "callers": {"subjects": ["alice"]}},
        ],
        "assertions": {"audience": "mesh", "keys": [{"kid": "k1", "x": public_half(&key())}]},
        "audit": audit,
    }))
    .unwrap();
    Lane::configured(Arc::new(MemoryBus::new()), agent, config).await
}

fn task(id: &str, assertion: Option<String>, submitted: Timestamp) -> StepTask {
    StepTask {
        assertion,
        submitted_ms: Some(submitted.millis()),
        ..step(id)
    }
}

#[tokio::test]
async fn a_task_passes_only_for_whom_an_intention_lets_it() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.json");
    let mut lane = guarded(&audit).await;
    let now = Timestamp::now();
    let long_ago = Timestamp::from_millis(now.millis() - 3_600_000);

    // Its assertion has expired since, and was good when the task was submitted.
    lane.step(&task("good", Some(assertion("alice", long_ago)), long_ago))
        .await;
    let result = lane.result().await;
    assert_eq!(
        result.outcome,
        Outcome::Completed {
            result: json!("done")
        }
    );

    for (id, token, submitted, why) in [
        ("bob", Some(assertion("bob", now)), now, "no intention"),
        ("nobody", None, now, "no intention"),
        (
            "late",
            Some(assertion("alice", long_ago)),
            now,
            "assertion has expired",
        ),
        (
            "forged",
            Some(format!("{}x", assertion("alice", now))),
            now,
            "malformed",
        ),
    ] {
        lane.step(&task(id, token, submitted)).await;
        let (code, detail, attempts) = lane.failure().await;
        assert_eq!((code.as_str(), attempts), ("not_allowed", 0), "{id}");
        assert!(detail.contains(why), "{id}: {detail}");
        let (reason, body) = lane.dead_letter().await;
        assert!(
            reason.starts_with("not allowed: ") && reason.contains(why),
            "{reason}"
        );
        assert!(String::from_utf8(body).unwrap().contains(id));
    }
    // An older publisher names no originator.
    let older = r#"{"task_id":"t","agent":"data_processor","action":"first","timestamp":"x"}"#;
    lane.publish(older, Properties::default()).await;
    assert_eq!(lane.failure().await.0, "not_allowed");
    lane.dead_letter().await;
    assert_eq!(lane.agent.calls().len(), 1);

    let (_, metrics) = lane.admin("/metrics").await;
    for line in [
        r#"sidecar_refusals_total{agent="data-processor",direction="task",reason="no_intention"} 3"#,
        r#"sidecar_refusals_total{agent="data-processor",direction="task",reason="assertion_expired"} 1"#,
        r#"sidecar_dead_letters_total{agent="data-processor",reason="not_allowed"} 5"#,
        r#"agent_tasks_processed_total{agent="data-processor",outcome="not_allowed"} 5"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let lines = || {
        let text = std::fs::read_to_string(&audit).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .collect::<Vec<_>>()
    };
    wait_for("the audit log", || async { lines().len() == 5 }).await;
    let bob = lines().remove(0);
    assert_eq!(bob["user"]["id"], "bob");
    assert_eq!(bob["event"]["action"], "task-refused");
    assert_eq!(bob["labels"]["step_id"], "bob");
    lane.stop().await;
}
