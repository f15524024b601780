//! Five agents over WebSocket and two orchestrators on one Redis. One agent's connection is cut off hard, again and
//! again, and one orchestrator is killed: no message is lost, none comes twice, and each sender's order is kept.

use crate::killed::{ready, start};
use crate::mesh::config;
use crate::socket::Socket;
use futures_util::{SinkExt, StreamExt};
use mesh_bus::BusConfig;
use mesh_orchestrator::config::{Config, Store};
use mesh_tests::{rabbitmq, redis, server, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::Barrier;
use tokio_tungstenite::tungstenite::Message;

/// The mesh's own, and one that registers.
const AGENTS: [&str; 5] = [
    "hardware-optimizer",
    "resource-arbitrator",
    "data-processor",
    "general-agent",
    "visitor",
];
/// Messages of each agent: every other one to all, the rest to the next agent.
const MESSAGES: usize = 200;
/// Messages whose acknowledgement an agent has not seen when it sends the next.
const WINDOW: usize = 8;
/// Messages that one of them takes before its connection is cut off.
const UNTIL_CUT: usize = 40;

/// How one agent takes part.
struct Part {
    place: usize,
    replicas: [SocketAddr; 2],
    begin: Arc<Barrier>,
    /// What all have heard.
    heard: Arc<AtomicUsize>,
    cut_off: bool,
}

/// What one agent saw.
struct Seen {
    letters: Vec<Value>,
    connections: usize,
}

/// To how many a message goes that all get, and the receiver of another.
fn receiver(sender: usize, number: usize) -> Option<usize> {
    (number % 2 == 1).then_some((sender + 1) % AGENTS.len())
}

fn expected(receiver_place: usize) -> usize {
    let from = |sender: usize| {
        let gets = |number: &usize| match receiver(sender, *number) {
            None => sender != receiver_place,
            Some(to) => to == receiver_place,
        };
        (0..MESSAGES).filter(gets).count()
    };
    (0..AGENTS.len()).map(from).sum()
}

impl Part {
    fn message(&self, number: usize) -> Value {
        let id = format!("{}-{number}", AGENTS[self.place]);
        match receiver(self.place, number) {
            None => json!({"broadcast": true, "id": id, "n": number}),
            Some(to) => json!({"to": AGENTS[to], "id": id, "n": number}),
        }
    }

    async fn take(self) -> Seen {
        let mut seen = Seen {
            letters: Vec::new(),
            connections: 0,
        };
        let (mut acked, mut cursor) = (0, String::new());
        // Half of them here, half there.
        let mut replica = self.place % 2;
        while acked < MESSAGES || seen.letters.len() < expected(self.place) {
            let path = format!("/ws/{}?last={cursor}", AGENTS[self.place]);
            let address = self.replicas[replica];
            let Ok(mut socket) = Socket::connect(address, &path, &[]).await else {
                replica = 1 - replica;
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            seen.connections += 1;
            if seen.connections == 1 {
                assert_eq!(socket.hear().await["type"], "welcome");
                // All have a mailbox before anybody sends.
                self.begin.wait().await;
            }
            let cut = self
                .exchange(&mut socket, &mut seen, &mut acked, &mut cursor)
                .await;
            if cut {
                socket.cut();
            }
            replica = 1 - replica;
        }
        // Nothing is left, and nothing comes twice.
        let path = format!("/ws/{}?last={cursor}", AGENTS[self.place]);
        let mut socket = loop {
            match Socket::connect(self.replicas[replica], &path, &[]).await {
                Ok(socket) => break socket,
                Err(_) => replica = 1 - replica,
            }
        };
        let welcome = socket.hear_of("welcome").await;
        assert_eq!(
            (&welcome["resumed"], &welcome["waiting"]),
            (&json!(true), &json!(0))
        );
        seen
    }

    /// Until all is done or the connection is over; whether it is to be cut off.
    async fn exchange(
        &self,
        socket: &mut Socket,
        seen: &mut Seen,
        acked: &mut usize,
        cursor: &mut String,
    ) -> bool {
        let (mut sent, begun) = (*acked, seen.letters.len());
        loop {
            while sent < MESSAGES && sent < *acked + WINDOW {
                let text = self.message(sent).to_string();
                if socket.0.send(Message::Text(text.into())).await.is_err() {
                    return false;
                }
                sent += 1;
            }
            if *acked == MESSAGES && seen.letters.len() == expected(self.place) {
                return false;
            }
            let text = match socket.0.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(_) | Err(_)) | None => return false,
            };
            let told: Value = serde_json::from_str(&text).unwrap();
            if told.get("from").is_some() {
                *cursor = told["cursor"].as_str().unwrap().to_owned();
                let ack = json!({"type": "ack", "cursor": cursor});
                seen.letters.push(told);
                self.heard.fetch_add(1, Ordering::Relaxed);
                if self.cut_off && seen.letters.len() - begun >= UNTIL_CUT {
                    return true;
                }
                // Every third time the agent has it and the orchestrator does not know.
                if !seen.letters.len().is_multiple_of(3)
                    && socket
                        .0
                        .send(Message::Text(ack.to_string().into()))
                        .await
                        .is_err()
                {
                    return false;
                }
                continue;
            }
            match told["type"].as_str().unwrap() {
                "ack" => {
                    assert_eq!(told["id"], self.message(*acked)["id"], "{told}");
                    *acked += 1;
                }
                "presence" | "welcome" => {}
                other => panic!("{other}: {told}"),
            }
        }
    }
}

struct Replica {
    process: Child,
    address: SocketAddr,
}

async fn replicas(directory: &std::path::Path) -> [Replica; 2] {
    let (broker, store) = (rabbitmq::shared().await, redis::shared().await);
    let bus: BusConfig =
        serde_json::from_value(json!({"backend": "rabbitmq", "url": broker.vhost().await}))
            .unwrap();
    let database = store.database();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let replicas = ["a", "b"].map(|name| {
        let address: SocketAddr = ([127, 0, 0, 1], server::free_port()).into();
        let config = Config {
            listen: address,
            bus: bus.clone(),
            store: Store::Redis {
                url: database.clone().try_into().unwrap(),
                retention_s: 3600,
            },
            ..config()
        };
        let file = directory.join(name);
        std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        Replica {
            process: start(&file),
            address,
        }
    });
    for replica in &replicas {
        ready(&client, &format!("http://{}", replica.address)).await;
    }
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_and_order_is_kept() {
    let directory = server::directory("together");
    let mut replicas = replicas(directory.path()).await;
    let addresses = [replicas[0].address, replicas[1].address];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let registered = client
        .post(format!("http://{}/register", addresses[1]))
        .body(r#"{"id":"visitor","capabilities":["visiting"]}"#);
    assert_eq!(registered.send().await.unwrap().status(), 200);

    let heard = Arc::new(AtomicUsize::new(0));
    let begin = Arc::new(Barrier::new(AGENTS.len()));
    let parts = (0..AGENTS.len()).map(|place| {
        let part = Part {
            place,
            replicas: addresses,
            begin: Arc::clone(&begin),
            heard: Arc::clone(&heard),
            cut_off: place == 0,
        };
        tokio::spawn(part.take())
    });
    let parts: Vec<_> = parts.collect();
    let all: usize = (0..AGENTS.len()).map(expected).sum();
    wait_for("a third of the messages", async || {
        heard.load(Ordering::Relaxed) > all / 3
    })
    .await;
    replicas[0].process.kill().await.unwrap();
    let before = heard.load(Ordering::Relaxed);
    assert!(before < all, "the kill came too late to show anything");

    let (mut connections, mut letters) = (Vec::new(), 0);
    for (place, part) in parts.into_iter().enumerate() {
        let seen = tokio::time::timeout(Duration::from_secs(60), part).await;
        let seen = seen.expect("an agent is not done").unwrap();
        connections.push(seen.connections);
        letters += seen.letters.len();
        let mut by_sender: HashMap<&str, Vec<usize>> = HashMap::new();
        for letter in &seen.letters {
            let number = usize::try_from(letter["n"].as_u64().unwrap()).unwrap();
            let from = letter["from"].as_str().unwrap();
            by_sender.entry(from).or_default().push(number);
        }
        for (sender, name) in AGENTS.iter().enumerate() {
            let wanted: Vec<usize> = (0..MESSAGES)
                .filter(|number| match receiver(sender, *number) {
                    None => sender != place,
                    Some(to) => to == place,
                })
                .collect();
            let came = by_sender.remove(name).unwrap_or_default();
            assert_eq!(came, wanted, "{} from {name}", AGENTS[place]);
        }
        // The letters' numbers leave nothing out either.
        let numbers: Vec<u64> = seen
            .letters
            .iter()
            .map(|l| l["seq"].as_u64().unwrap())
            .collect();
        let wanted: Vec<u64> = (1..=u64::try_from(numbers.len()).unwrap()).collect();
        assert_eq!(numbers, wanted);
    }
    assert_eq!(letters, all);
    assert!(connections[0] > 5, "it was hardly cut off: {connections:?}");
}
