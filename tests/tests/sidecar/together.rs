//! Agents talk by WebSocket through their sidecars and the orchestrator's: each as itself, by its certificate.

use futures_util::{SinkExt, StreamExt};
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::within;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

/// `base` is `http://address`.
async fn connect(base: &str, path: &str, token: Option<&str>) -> Result<Socket, u16> {
    let address = base.strip_prefix("http://").unwrap();
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn hear(socket: &mut Socket, kind: &str) -> Value {
    let heard = async {
        loop {
            if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                let told: Value = serde_json::from_str(&text).unwrap();
                if told["type"] == kind {
                    return told;
                }
            }
        }
    };
    within(kind, heard).await
}

async fn send(socket: &mut Socket, message: Value) {
    socket
        .send(Message::Text(message.to_string().into()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_talk_through_their_sidecars() {
    let mesh = Mesh::start(Setup::default()).await;
    let out = |agent: &str| mesh.outbound(agent);
    let path = |agent: &str| format!("/orchestrator/ws/{agent}?last=");
    let general = connect(&out("general-agent"), &path("general-agent"), None).await;
    let data = connect(&out("data-processor"), &path("data-processor"), None).await;
    let (mut general, mut data) = (general.unwrap(), data.unwrap());
    hear(&mut general, "welcome").await;
    hear(&mut data, "welcome").await;
    send(
        &mut general,
        json!({"type": "news", "to": "data-processor", "from": "x"}),
    )
    .await;
    assert_eq!(hear(&mut general, "ack").await["receivers"], 1);
    assert_eq!(hear(&mut data, "news").await["from"], "general-agent");

    // Nobody is somebody else, and no further than its ways lead.
    let other = connect(&out("data-processor"), &path("general-agent"), None).await;
    assert_eq!(other.err(), Some(403));
    let register = async |agent: &str, id: &str| {
        let url = format!("{}/orchestrator/register", out(agent));
        let request = mesh
            .client()
            .post(url)
            .json(&json!({"id": id, "capabilities": ["x"]}));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(register("general-agent", "general-agent").await, 200);
    assert_eq!(register("general-agent", "data-processor").await, 403);
    let task = |path: &str, agent: &str| {
        let url = format!("{}/orchestrator{path}", out(agent));
        let body = json!({"task": "data-processor", "payload": {"csv": "a\n1\n"}});
        mesh.client().post(url).json(&body)
    };
    let shared = task("/coordinate", "general-agent").send().await.unwrap();
    let shared: Value = shared.json().await.unwrap();
    assert_eq!(shared["status"], "completed", "{shared}");
    let refused = task("/orchestrate", "general-agent").send().await.unwrap();
    assert_eq!(refused.status(), 403);

    // From outside with a token whose subject is the agent, which then is the newest.
    let gateway = mesh.gateway();
    let token = mesh.token("general-agent", "").await;
    let alice = mesh.token("alice", "").await;
    let ws = "/ws/general-agent?last=";
    assert_eq!(connect(&gateway, ws, Some(&alice)).await.err(), Some(403));
    assert_eq!(connect(&gateway, ws, None).await.err(), Some(401));
    let mut outside = connect(&gateway, ws, Some(&token)).await.unwrap();
    hear(&mut outside, "welcome").await;
    send(&mut data, json!({"type": "answer", "to": "general-agent"})).await;
    assert_eq!(hear(&mut outside, "answer").await["from"], "data-processor");
}
