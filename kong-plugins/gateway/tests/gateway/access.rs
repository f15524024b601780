//! The access log.

use crate::filters::{CALLBACKS, module, on};
use crate::support::{Service, Setup, until};
use serde_json::{Value, json};

#[tokio::test]
async fn every_request_is_a_line_without_secrets() {
    let service = Service::start().await;
    let rest = "  routes: [{name: r, paths: [/r]}]
filter_chains: [{service: s, filters: [{name: f}]}]
";
    // Answers requests with x-refuse with a problem.
    let problem = r#"{\"type\":\"urn:agent-mesh:problem:quota-exceeded\"}"#;
    let length = problem.len() - problem.matches('\\').count();
    let refuse = format!(
        "(if (i32.eqz (call $get (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 1000) (i32.const 1004)))
        (then (drop (call $respond (i32.const 429) (i32.const 0) (i32.const 0) (i32.const 200) (i32.const {length})
        (i32.const 300) (i32.const 55) (i32.const -1))))) (i32.const 0)"
    );
    // The pairs of the answer's headers, as the ABI packs them.
    let pairs = r"\01\00\00\00\0c\00\00\00\18\00\00\00content-type\00application/problem+json\00";
    let data = format!(
        "(data (i32.const 100) \"x-refuse\") (data (i32.const 200) \"{problem}\") \
         (data (i32.const 300) \"{pairs}\")"
    );
    let filter = module(&(on(CALLBACKS[0], &refuse) + &data));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let mut setup = Setup::new(service.address, rest).with_modules(&[("f", &filter)]);
    setup.access_log = Some(file.clone());
    let gateway = setup.start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = format!(
        "authorization: Bearer hunter2\ncookie: hunter2\nx-request-id: id-1\ntraceparent: {parent}\n"
    );
    assert_eq!(
        gateway.get("/r/x?token=hunter2", &headers).await.status,
        200
    );
    let odd = "x-refuse: 1\nx-request-id: a\"hunter2\n";
    assert_eq!(gateway.post("/r", odd, "hunter2").await.status, 429);
    assert_eq!(gateway.get("/nowhere", "").await.status, 404);
    let mut text = String::new();
    until("three lines", async || {
        text = std::fs::read_to_string(&file).unwrap();
        text.lines().count() == 3
    })
    .await;
    assert!(!text.contains("hunter2"), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [passed, refused, lost] = &*lines else {
        panic!()
    };
    for (line, expected) in [
        (
            passed,
            json!({"client": "127.0.0.1", "method": "GET", "path": "/r/x", "route": "r", "service": "s",
                "status": 200, "bytes": 2, "decision": "pass", "reason": null, "request_id": "id-1",
                "traceparent": parent}),
        ),
        (
            refused,
            json!({"method": "POST", "path": "/r", "route": "r", "status": 429, "decision": "answer",
                "reason": "quota-exceeded", "request_id": null, "upstream_us": null}),
        ),
        (
            lost,
            json!({"path": "/nowhere", "route": null, "service": null, "status": 404,
                "decision": null, "upstream_us": null}),
        ),
    ] {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(line.get(name), Some(value), "{name}: {line}");
        }
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(line["duration_us"].is_u64());
    }
    assert!(passed["upstream_us"].is_u64());
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_opened_anew() {
    let service = Service::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let mut setup = Setup::new(service.address, "  routes: [{name: r, paths: [/]}]\n");
    setup.access_log = Some(file.clone());
    let yaml = setup.yaml.clone();
    let gateway = setup.start().await;
    let lines =
        |file: &std::path::Path| std::fs::read_to_string(file).map_or(0, |t| t.lines().count());
    gateway.get("/", "").await;
    until("a line", async || lines(&file) == 1).await;
    std::fs::rename(&file, directory.path().join("old")).unwrap();
    gateway.reload(&yaml).await.unwrap();
    gateway.get("/", "").await;
    until("a line in the new file", async || lines(&file) == 1).await;
    assert_eq!(lines(&directory.path().join("old")), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_refused_at_start() {
    let mut setup = Setup::new("127.0.0.1:9".parse().unwrap(), "");
    setup.access_log = Some("/nowhere/access.log".into());
    let refusal = setup.refusal().await;
    assert!(refusal.contains("access log"), "{refusal}");
}
