//! `/register`, `/ws/{agent}`, `/agents`: who may, what goes over it, and how it ends.

use crate::mesh::{Ground, Mesh, assertion, config};
use crate::socket::Socket;
use futures_util::{SinkExt, StreamExt};
use mesh_orchestrator::config::Config;
use mesh_orchestrator::coordination::hub::{Bounds, MemoryHub};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_tungstenite::tungstenite::Message;

const A: &str = "/ws/data-processor?last=";
const B: &str = "/ws/general-agent?last=";

async fn mesh() -> Mesh {
    Mesh::without_agents(config(), Ground::new()).await
}

async fn register(mesh: &Mesh, body: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let mut request = mesh.client.post(mesh.url("/register"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body.to_owned()).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// A socket that has been welcomed.
async fn joined(mesh: &Mesh, path: &str) -> (Socket, Value) {
    let mut socket = Socket::open(mesh.address, path).await;
    let welcome = socket.hear().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (socket, welcome)
}

#[tokio::test]
async fn an_agent_registers_and_is_shown() {
    let mesh = mesh().await;
    let (status, answer) = register(
        &mesh,
        r#"{"id":"code_writer","capabilities":["writing"]}"#,
        &[],
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({"status": "registered", "agent_id": "code-writer"})
    );
    let (_socket, _) = joined(&mesh, "/ws/code-writer?last=").await;
    let body = r#"{"id":"code-writer","capabilities":["writing","reading"],"workload":7,"performance_score":0.5,"more":1}"#;
    assert_eq!(register(&mesh, body, &[]).await.0, 200);
    let body = r#"{"id":"general-agent","capabilities":["listening"]}"#;
    assert_eq!(register(&mesh, body, &[]).await.0, 200);
    let agents = mesh.get_json("/agents").await;
    let agents = agents["agents"].as_array().unwrap();
    assert_eq!(agents.len(), 5);
    let of = |id: &str| agents.iter().find(|a| a["id"] == id).unwrap();
    let writer = of("code-writer");
    assert_eq!(writer["capabilities"], json!(["reading", "writing"]));
    assert_eq!(
        (&writer["present"], &writer["takes_steps"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&writer["workload"], &writer["performance_score"]),
        (&json!(7), &json!(0.5))
    );
    let general = of("general-agent");
    assert_eq!(
        (&general["present"], &general["takes_steps"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(general["capabilities"], json!(["listening"]));
}

#[tokio::test]
async fn registrations_that_are_none() {
    let mesh = mesh().await;
    for (body, field) in [
        ("[]", ""),
        ("{}", "id"),
        (r#"{"id":7}"#, "id"),
        (r#"{"id":"A B"}"#, "id"),
        (r#"{"id":"a","capabilities":"x"}"#, "capabilities"),
        (r#"{"id":"a","capabilities":["x",7]}"#, "capabilities[1]"),
        (r#"{"id":"a","status":""}"#, "status"),
        (r#"{"id":"a","workload":-1}"#, "workload"),
        (r#"{"id":"a","performance_score":1.5}"#, "performance_score"),
    ] {
        let (status, problem) = register(&mesh, body, &[]).await;
        assert_eq!(status, 422, "{body}");
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(register(&mesh, "{", &[]).await.0, 400);
    let large = format!(r#"{{"id":"a","more":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(register(&mesh, &large, &[]).await.0, 413);
}

#[tokio::test]
async fn only_the_agent_itself_may() {
    let own = Config {
        peers_by_certificate: true,
        ..config()
    };
    let mesh = Mesh::without_agents(own, Ground::new()).await;
    let (alice, agent) = (assertion("alice", ""), assertion("general-agent", ""));
    let (alice, agent) = (
        ("x-mesh-assertion", alice.as_str()),
        ("x-mesh-assertion", agent.as_str()),
    );
    let far = ("x-forwarded-for", "10.0.0.1");
    let peer = ("x-mesh-peer-service", "general-agent");
    let other = ("x-mesh-peer-service", "data-processor");
    let body = r#"{"id":"general-agent"}"#;
    for (headers, status) in [
        (&[][..], 101),
        (&[agent], 101),
        (&[peer, far], 101),
        (&[alice], 403),
        (&[far], 401),
        (&[other, far], 403),
        // What a gateway that stands here by mistake would pass on.
        (&[peer, far, ("via", "1.1 kong")], 401),
        (&[peer, peer], 401),
        (&[peer, ("origin", "http://127.0.0.1")], 401),
        // An assertion counts before any other word.
        (&[peer, alice], 403),
    ] {
        assert_eq!(
            Socket::refused(mesh.address, B, headers).await,
            status,
            "{headers:?}"
        );
        let registered = if status == 101 { 200 } else { status };
        let (status, _) = register(&mesh, body, headers).await;
        assert_eq!(status, registered, "{headers:?}");
    }
    // Where no sidecar stands, nobody is believed to be a service.
    let mesh = self::mesh().await;
    assert_eq!(Socket::refused(mesh.address, B, &[peer]).await, 401);
}

#[tokio::test]
async fn a_service_submits_for_itself() {
    let own = Config {
        peers_by_certificate: true,
        ..config()
    };
    let mesh = Mesh::start(own).await;
    let as_service = |service: &'static str, request: reqwest::RequestBuilder| {
        request
            .header("x-mesh-peer-service", service)
            .header("x-forwarded-for", "10.0.0.1")
    };
    let request = mesh
        .client
        .post(mesh.url("/coordinate"))
        .body(r#"{"task":"data_processing"}"#);
    let answer = as_service("general-agent", request).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let url = mesh.url(&format!("/task/{}", answer["task_id"].as_str().unwrap()));
    for (service, status) in [("general-agent", 200), ("data-processor", 404)] {
        let asked = as_service(service, mesh.client.get(&url))
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), status, "{service}");
    }
}

#[tokio::test]
async fn what_is_no_connection_is_refused() {
    let mesh = mesh().await;
    for (path, status) in [
        ("/ws/nobody", 404),
        ("/ws/A%20B", 404),
        ("/ws/general-agent?last=x", 422),
        ("/ws/general-agent?last=ab-1-2", 422),
        ("/ws/general-agent", 101),
    ] {
        assert_eq!(
            Socket::refused(mesh.address, path, &[]).await,
            status,
            "{path}"
        );
    }
    let plain = mesh.get("/ws/general-agent").await;
    assert_eq!(plain.status(), 426);
    assert_eq!(plain.headers()["content-type"], "application/problem+json");
    let mut few = config();
    few.coordination.max_connections = 1;
    let mesh = Mesh::without_agents(few, Ground::new()).await;
    let (_first, _) = joined(&mesh, A).await;
    assert_eq!(Socket::refused(mesh.address, B, &[]).await, 503);
}

#[tokio::test]
async fn messages_go_where_they_are_sent() {
    let mesh = mesh().await;
    let (mut a, welcome) = joined(&mesh, A).await;
    assert_eq!(
        (&welcome["resumed"], &welcome["waiting"]),
        (&json!(false), &json!(0))
    );
    let (mut b, _) = joined(&mesh, B).await;
    // Whoever listens hears who comes.
    let event = a.hear_of("presence").await;
    assert_eq!(
        (&event["event"], &event["agent"]),
        (&json!("join"), &json!("general-agent"))
    );
    a.send(&json!({"to": "general_agent", "id": "1", "from": "somebody", "n": 1}))
        .await;
    let ack = a.hear_of("ack").await;
    assert_eq!((&ack["id"], &ack["receivers"]), (&json!("1"), &json!(1)));
    assert!(ack["timestamp"].is_string());
    let letter = b.letter().await;
    assert_eq!(
        (&letter["from"], &letter["n"]),
        (&json!("data-processor"), &json!(1))
    );
    assert_eq!(letter["seq"], 1);
    a.send(&json!({"broadcast": true, "type": "news", "text": "ü\u{0}"}))
        .await;
    assert_eq!(a.hear_of("ack").await["receivers"], 1);
    let letter = b.hear_of("news").await;
    assert_eq!(
        (&letter["text"], &letter["seq"]),
        (&json!("ü\u{0}"), &json!(2))
    );
    // Sent again, it is stored once.
    a.send(&json!({"to": "general-agent", "id": "1"})).await;
    assert_eq!(a.hear_of("ack").await["repeated"], true);
    a.send(&json!({"status": "well"})).await;
    assert_eq!(a.hear_of("ack").await["receivers"], 0);
    a.send(&json!({"type": "ping"})).await;
    a.hear_of("pong").await;
    // Nobody is in the way of who comes back without having acknowledged.
    b.cut();
    assert_eq!(a.hear_of("presence").await["event"], "leave");
    let (mut b, welcome) = joined(&mesh, B).await;
    assert_eq!(welcome["waiting"], 2);
    let (first, second) = (b.letter().await, b.letter().await);
    assert_eq!((&first["n"], &second["type"]), (&json!(1), &json!("news")));
    b.send(&json!({"type": "ack", "cursor": first["cursor"]}))
        .await;
    b.send(&json!({"type": "ping"})).await;
    b.hear_of("pong").await;
    b.cut();
    let (mut b, welcome) = joined(&mesh, B).await;
    assert_eq!(welcome["cursor"], first["cursor"]);
    assert_eq!(b.letter().await, second);
    drop(b);
    let path = format!("{B}{}", second["cursor"].as_str().unwrap());
    let (_b, welcome) = joined(&mesh, &path).await;
    assert_eq!(
        (&welcome["resumed"], &welcome["waiting"]),
        (&json!(true), &json!(0))
    );
}

#[tokio::test]
async fn a_client_of_the_plan_hears_what_it_expects() {
    let mesh = mesh().await;
    let mut a = Socket::open(mesh.address, "/ws/data-processor").await;
    let mut b = Socket::open(mesh.address, "/ws/general-agent").await;
    b.send(&json!({"hello": 1})).await;
    assert_eq!(b.hear().await["type"], "ack");
    a.send(&json!({"broadcast": true, "data": [1]})).await;
    assert_eq!(a.hear().await["type"], "ack");
    assert_eq!(b.hear().await["data"], json!([1]));
    // Its library's pong acknowledges.
    let reading = tokio::spawn(async move { while b.0.next().await.is_some() {} });
    mesh.metric("orchestrator_agent_messages_total{kind=\"ack\",result=\"stored\"} 1")
        .await;
    let (_b, welcome) = joined(&mesh, B).await;
    assert_eq!(welcome["waiting"], 0);
    reading.await.unwrap();
}

#[tokio::test]
async fn wrong_texts_are_answered_and_the_connection_stays() {
    let mesh = mesh().await;
    let (mut a, _) = joined(&mesh, A).await;
    for (text, code) in [
        ("{", "not_json"),
        ("[1]", "not_an_object"),
        (r#"{"to":"nobody"}"#, "unknown_agent"),
        (r#"{"to":"hardware-optimizer"}"#, "no_mailbox"),
        (r#"{"to":7}"#, "bad_receiver"),
        (r#"{"type":"welcome","broadcast":true}"#, "reserved_type"),
        (r#"{"type":"ack","cursor":"ab-1"}"#, "bad_cursor"),
        (r#"{"id":[]}"#, "bad_id"),
    ] {
        a.text(text).await;
        let error = a.hear().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{text}"
        );
        assert!(error["detail"].is_string());
    }
    a.send(&json!({"type": "ping"})).await;
    a.hear_of("pong").await;
}

#[tokio::test]
async fn what_cannot_be_heard_closes() {
    let mesh = mesh().await;
    let large = |bytes: usize| Message::Text(format!("\"{}\"", "x".repeat(bytes)).into());
    for (message, code) in [
        (Message::Binary(vec![1].into()), 1003),
        (large(65 * 1024), 1009),
        (large(400 * 1024), 1009),
    ] {
        let (mut a, _) = joined(&mesh, A).await;
        a.0.send(message).await.unwrap();
        assert_eq!(a.closed().await, code);
    }
    let (mut a, _) = joined(&mesh, A).await;
    a.0.send(large(64 * 1024 - 2)).await.unwrap();
    assert_eq!(a.hear().await["code"], "not_an_object");
}

#[tokio::test]
async fn the_newest_connection_replaces_the_one_before() {
    let mesh = mesh().await;
    let (mut old, _) = joined(&mesh, A).await;
    let (mut new, _) = joined(&mesh, A).await;
    assert_eq!(old.closed().await, 4000);
    new.send(&json!({"type": "ping"})).await;
    new.hear_of("pong").await;
    mesh.metric("orchestrator_agent_connections 1").await;
    mesh.metric("orchestrator_agent_connections_closed_total{reason=\"replaced\"} 1")
        .await;
    let agents = mesh.get_json("/agents").await;
    let here = agents["agents"].as_array().unwrap().iter();
    assert_eq!(here.filter(|a| a["present"] == true).count(), 1);
    // The replica that stops says so.
    mesh.stop().await;
    assert_eq!(new.closed().await, 1012);
}

#[tokio::test]
async fn a_connection_that_is_silent_ends() {
    let mut short = config();
    (short.coordination.ping_ms, short.coordination.silence_ms) = (50, 300);
    let mesh = Mesh::without_agents(short, Ground::new()).await;
    // Nobody reads it, so no ping is answered: as one that lost its other end.
    let (_a, _) = joined(&mesh, A).await;
    let (mut b, _) = joined(&mesh, B).await;
    b.hear_of("presence").await;
    // The other one answers its pings meanwhile.
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let answering = tokio::spawn(async move {
        loop {
            tokio::select! {
                frame = b.0.next() => assert!(frame.unwrap().is_ok()),
                _ = &mut stopped => return b,
            }
        }
    });
    mesh.metric("orchestrator_agent_connections_closed_total{reason=\"silent\"} 1")
        .await;
    stop.send(()).unwrap();
    let mut b = answering.await.unwrap();
    b.send(&json!({"type": "ping"})).await;
    b.hear_of("pong").await;
}

#[tokio::test]
async fn a_full_mailbox_refuses_the_sender() {
    let ground = Ground {
        hub: Arc::new(MemoryHub::new(Bounds {
            letters: 2,
            ..Bounds::default()
        })),
        ..Ground::new()
    };
    let mesh = Mesh::without_agents(config(), ground).await;
    let (mut a, _) = joined(&mesh, A).await;
    let (mut b, _) = joined(&mesh, B).await;
    for n in 0..2 {
        a.send(&json!({"broadcast": true, "n": n})).await;
        a.hear_of("ack").await;
    }
    a.send(&json!({"broadcast": true, "id": "third"})).await;
    let error = a.hear_of("error").await;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("mailbox_full"), &json!("third"))
    );
    assert!(error["detail"].as_str().unwrap().contains("general-agent"));
    b.letter().await;
    let cursor = b.letter().await["cursor"].clone();
    b.send(&json!({"type": "ack", "cursor": cursor})).await;
    b.send(&json!({"type": "ping"})).await;
    b.hear_of("pong").await;
    a.send(&json!({"broadcast": true, "id": "third"})).await;
    assert_eq!(a.hear_of("ack").await["receivers"], 1);
    assert_eq!(b.letter().await["id"], "third");
}
