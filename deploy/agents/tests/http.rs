//! The agents over real connections: the interface, idempotency, bad input, the end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use axum::body::Body;
use axum::http::{Request, StatusCode};
use mesh_agents::{Kind, Options, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

async fn post(router: &axum::Router, key: Option<&str>, body: &str) -> (StatusCode, Value) {
    let mut request = Request::post("/process").header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    let agent = Kind::ResourceArbitrator.router(&Options::default());
    let grant = json!({"payload": {"operation": "grant", "holder": "h", "cpu_millicores": 1}});
    let first = post(&agent, Some("t:s"), &grant.to_string()).await;
    assert_eq!(first.0, StatusCode::OK);
    assert_eq!(post(&agent, Some("t:s"), &grant.to_string()).await, first);
    let other = post(&agent, Some("t:s2"), &grant.to_string()).await;
    assert_ne!(other.1["lease"]["id"], first.1["lease"]["id"]);
    let list = json!({"payload": {"operation": "list"}}).to_string();
    let (_, listed) = post(&agent, None, &list).await;
    assert_eq!(listed["leases"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn repeats_at_the_same_time_are_worked_on_once() {
    let agent = Kind::ResourceArbitrator.router(&Options::default());
    let grant = json!({"payload": {"operation": "grant", "holder": "h", "cpu_millicores": 1}});
    let grant = grant.to_string();
    let answers =
        futures_util::future::join_all((0..16).map(|_| post(&agent, Some("k"), &grant))).await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn every_agent_answers_and_refuses_in_json() {
    for kind in Kind::ALL {
        let agent = kind.router(&Options::default());
        for body in ["", "{", "[]", "3", r#"{"payload":3}"#] {
            let (status, answer) = post(&agent, None, body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            assert_eq!(answer["error"]["code"], "invalid_input", "{body}");
        }
        let step = json!({"task_id": "t", "step_id": "s", "role": "r", "action": "a",
            "payload": {"csv": "a,b\n1,2\n"}, "incoming_data": {}});
        let (status, _) = post(&agent, None, &step.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", kind.name());
        let (status, answer) = post(&agent, None, &" ".repeat(17 * 1024 * 1024)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer["error"]["code"], "unreadable_body");
        assert_eq!(kind.name().parse::<Kind>(), Ok(kind));
    }
    assert!("nobody".parse::<Kind>().is_err());
}

#[tokio::test]
async fn an_agent_serves_until_it_is_told_to_stop() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let agent = Kind::DataProcessor.router(&Options::default());
    let served = tokio::spawn(serve(listener, agent, shutdown.clone()));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""status":"healthy""#), "{answer}");
    shutdown.cancel();
    served.await.unwrap().unwrap();
}
