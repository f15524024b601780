//! What a line says, where it goes, and that nobody waits for it.

use super::*;
use crate::identity::SpiffeId;
use crate::policy::refusal::Reason;
use crate::policy::tests::{NOW, claims, peer};
use mesh_tests::{wait_for, within};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use tokio_util::sync::CancellationToken;

fn open(file: Option<&Path>) -> (Audit, Writer, Registry) {
    let registry = Registry::new();
    let (audit, writer) = Audit::open(file, &"data-processor".parse().unwrap(), &registry).unwrap();
    (audit, writer, registry)
}

fn refuse(audit: &Audit, path: &str) {
    let refusal = Refusal::new(Reason::NoIntention, "no intention allows it");
    audit.refused(&Refused {
        at: NOW,
        direction: Direction::Inbound,
        refusal: &refusal,
        peer: None,
        claims: None,
        method: &Method::GET,
        path,
        trace_id: None,
        task: None,
    });
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn lost(registry: &Registry, reason: &str) -> f64 {
    let family = registry.gather();
    let family = family
        .iter()
        .find(|f| f.name() == "sidecar_audit_lost_total")
        .unwrap();
    let metric = family
        .get_metric()
        .iter()
        .find(|m| m.get_label().iter().any(|l| l.value() == reason));
    metric.unwrap().get_counter().get_value()
}

#[test]
fn a_line_says_who_what_where_and_what_was_decided() {
    let id: SpiffeId = peer("gateway");
    let refusal = Refusal::new(Reason::Denied, "an intention denies it").by(3);
    let mut claims = claims("alice");
    claims.sub = format!("a\u{9b}\u{7f}\n{}", "x".repeat(2_000));
    let method: Method = "A".repeat(100).parse().unwrap();
    let line = line::refused(
        "data-processor",
        &Refused {
            at: NOW,
            direction: Direction::Inbound,
            refusal: &refusal,
            peer: Some(Peer {
                id: &id,
                address: "127.0.0.1:4711".parse().unwrap(),
            }),
            claims: Some(&claims),
            method: &method,
            path: "/process\"\u{1b}[2J",
            trace_id: Some(0xabc_u128.to_be_bytes()),
            task: None,
        },
    );
    assert_eq!(line.iter().filter(|b| b.is_ascii_control()).count(), 1);
    let line: Value = serde_json::from_slice(&line).unwrap();
    let user = line["user"]["id"].as_str().unwrap();
    assert!(user.starts_with("a\u{fffd}\u{fffd}\nxxx") && user.chars().count() == 1_024);
    assert_eq!(line["http"]["request"]["method"], "A".repeat(32));
    for (pointer, wanted) in [
        ("/@timestamp", json!("1970-01-12T13:46:40.000Z")),
        ("/event/kind", json!("event")),
        ("/event/category", json!(["network"])),
        ("/event/type", json!(["access", "denied"])),
        ("/event/outcome", json!("failure")),
        ("/event/action", json!("request-refused")),
        ("/event/code", json!("denied")),
        ("/event/reason", json!("an intention denies it")),
        ("/source/address", json!("127.0.0.1")),
        ("/source/port", json!(4711)),
        ("/service/name", json!("data-processor")),
        ("/service/origin/name", json!("gateway")),
        (
            "/tls/client/x509/alternative_names",
            json!(["spiffe://mesh.test/ns/default/dc/dc1/svc/gateway"]),
        ),
        ("/user/domain", json!("https://issuer.example")),
        ("/url/path", json!("/process\"\u{1b}[2J")),
        ("/rule/name", json!("policy.intentions[3]")),
        ("/trace/id", json!("00000000000000000000000000000abc")),
    ] {
        assert_eq!(line.pointer(pointer), Some(&wanted), "{pointer}");
    }
}

#[tokio::test]
async fn lines_are_appended_and_follow_the_file_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.json");
    let (audit, writer, _) = open(Some(&path));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(writer.run(shutdown.clone()));
    refuse(&audit, "/one");
    wait_for("the first line", || async { lines(&path).len() == 1 }).await;
    let rotated = directory.path().join("audit.json.1");
    std::fs::rename(&path, &rotated).unwrap();
    refuse(&audit, "/two");
    wait_for("the second line", || async { lines(&path).len() == 1 }).await;
    assert_eq!(lines(&rotated)[0]["url"]["path"], "/one");
    refuse(&audit, "/three");
    shutdown.cancel();
    within("the writer", running).await.unwrap();
    // What waited at the end is written, and nothing is taken after it.
    assert_eq!(lines(&path)[1]["url"]["path"], "/three");
    refuse(&audit, "/four");
    assert_eq!(lines(&path).len(), 2);
}

#[tokio::test]
async fn what_is_lost_is_counted_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.json");
    let (audit, writer, registry) = open(Some(&path));
    for n in 0..QUEUE + 7 {
        refuse(&audit, &format!("/{n}"));
    }
    assert_eq!(lost(&registry, "full"), 7.0);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    within("the writer", writer.run(shutdown)).await;
    let lines = lines(&path);
    assert_eq!(lines.len(), QUEUE + 1);
    let said: Vec<_> = lines
        .iter()
        .filter(|l| l["event"]["action"] == "audit-lost")
        .collect();
    assert_eq!(said.len(), 1);
    assert!(said[0]["message"].as_str().unwrap().starts_with("7 lines"));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_no_start_and_later_no_stop() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/audit.json");
    let error = Audit::open(Some(&missing), &"a".parse().unwrap(), &Registry::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("missing/audit.json"), "{error}");

    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let path = inner.join("audit.json");
    let (audit, writer, _) = open(Some(&path));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(writer.run(shutdown.clone()));
    refuse(&audit, "/one");
    wait_for("the first line", || async { lines(&path).len() == 1 }).await;
    std::fs::remove_dir_all(&inner).unwrap();
    // Goes to standard error.
    refuse(&audit, "/two");
    wait_for("the second to be taken", || async {
        audit.lines.capacity() == QUEUE
    })
    .await;
    std::fs::create_dir(&inner).unwrap();
    refuse(&audit, "/three");
    shutdown.cancel();
    within("the writer", running).await.unwrap();
    assert_eq!(lines(&path).last().unwrap()["url"]["path"], "/three");
}
