//! One limit kept by two gateways over an orchestrator and Redis: what they let pass together stays within
//! the documented bound, and each holds the limit for itself while Redis is gone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what stands here runs in tests only"
)]

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use mesh_bus::memory::MemoryBus;
use mesh_protocol::quota::Standings;
use mesh_tests::redis::{self, Store};
use mesh_tests::{wait_for, within};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyz-_ABCDEF";
const RATE: f64 = 100.0;
const BURST: f64 = 40.0;
const INTERVAL: Duration = Duration::from_millis(500);
const GATEWAYS: usize = 2;
const CLIENTS: usize = 8;

/// Serves `router` on a free port until the test ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// An orchestrator on the Redis at `url`.
async fn orchestrator(url: &str) -> (SocketAddr, DropGuard) {
    let config: mesh_orchestrator::config::Config = serde_json::from_value(json!({
        "listen": "127.0.0.1:0",
        "agents": [{"id": "general-agent"}],
        "planner": {"general_agent": "general-agent"},
        "bus": {"backend": "memory"},
        "store": {"backend": "redis", "url": url},
        "assertions": {"audience": "mesh", "keys": [{"kid": "g", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]},
        "internal_token": TOKEN,
    }))
    .unwrap();
    let arbiter = mesh_orchestrator::resources::connect(&config).unwrap();
    let deps = mesh_orchestrator::Deps {
        arbiter,
        bus: Arc::new(MemoryBus::new()),
        store: mesh_orchestrator::store::connect(&config.store)
            .await
            .unwrap(),
        quota: mesh_orchestrator::quota::connect(&config.store).unwrap(),
        hub: mesh_orchestrator::coordination::hub::connect(
            &config.store,
            config.coordination.mailboxes,
        )
        .unwrap(),
        tracer: mesh_trace::Tracer::off(),
        metrics: prometheus::Registry::new(),
    };
    let bound = mesh_orchestrator::build(config, deps).await.unwrap();
    let (address, stop) = (bound.address(), CancellationToken::new());
    tokio::spawn(bound.run(stop.clone()));
    (address, stop.drop_guard())
}

/// What goes between one gateway and the orchestrator: handed on, and written down.
struct Relay {
    to: SocketAddr,
    client: reqwest::Client,
    exchanges: Mutex<Vec<Exchange>>,
}

struct Exchange {
    at: Instant,
    standings: Option<Standings>,
}

impl Relay {
    async fn start(to: SocketAddr) -> (SocketAddr, Arc<Self>) {
        let relay = Arc::new(Self {
            to,
            client: reqwest::Client::new(),
            exchanges: Mutex::default(),
        });
        let router = Router::new()
            .fallback(Self::relay)
            .with_state(Arc::clone(&relay));
        (serve(router).await, relay)
    }

    async fn relay(State(relay): State<Arc<Self>>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let asked = relay
            .client
            .post(format!("http://{}{}", relay.to, head.uri.path()))
            .header("authorization", &head.headers["authorization"])
            .header("content-type", &head.headers["content-type"])
            .body(body);
        let answer = asked.send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        let exchange = Exchange {
            at: Instant::now(),
            standings: serde_json::from_slice(&body).ok().filter(|_| status == 200),
        };
        relay.exchanges.lock().unwrap().push(exchange);
        (status, body).into_response()
    }

    /// How often the gateways have told one another since `begun`, all of them counted.
    fn told(&self, begun: Instant) -> usize {
        let exchanges = self.exchanges.lock().unwrap();
        let since = exchanges.iter().filter(|e| e.at >= begun);
        since
            .filter_map(|e| e.standings.as_ref())
            .filter(|s| s.gateways as usize == GATEWAYS)
            .count()
    }

    /// The longest time between two exchanges from `begun` on.
    fn longest(&self, begun: Instant) -> f64 {
        let exchanges = self.exchanges.lock().unwrap();
        let mut last = None;
        let mut longest = INTERVAL;
        for exchange in exchanges.iter().filter(|e| e.standings.is_some()) {
            if exchange.at >= begun
                && let Some(last) = last
            {
                longest = longest.max(exchange.at.duration_since(last));
            }
            last = Some(exchange.at);
        }
        longest.as_secs_f64()
    }
}

fn filters() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or(root.join("target"), PathBuf::from)
        .join("filters")
}

/// A gateway with the one limit, that tells of it at `exchange`.
async fn gateway(service: SocketAddr, exchange: SocketAddr) -> (SocketAddr, DropGuard) {
    let limit = json!({
        "limits": [{"name": "second", "quota": RATE as u64, "window_s": 1, "burst": BURST as u64, "shared": true}],
        "table_key": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
        "exchange": {
            "authority": exchange.to_string(),
            "token": TOKEN,
            "interval_ms": INTERVAL.as_millis() as u64,
        },
    });
    let text = format!(
        "_format_version: \"3.0\"\n\
         services: [{{name: s, url: \"http://{service}\", routes: [{{name: r, paths: [/r]}}]}}]\n\
         filter_chains: [{{name: c, route: r, filters: [{{name: rate_limit, config: {limit}}}]}}]\n"
    );
    let declarative = mesh_declarative::Config::from_yaml(&text).unwrap();
    let mut config =
        mesh_gateway::Config::new("127.0.0.1:0".parse().unwrap(), declarative, filters());
    // What the workers of one gateway share is tested there; here the gateways are two.
    config.workers = 1;
    let deps = mesh_gateway::Deps {
        tracer: mesh_trace::Tracer::off(),
        metrics: prometheus::Registry::new(),
    };
    let bound = mesh_gateway::build(config, deps).await.unwrap();
    let (address, stop) = (bound.address(), CancellationToken::new());
    let stopped = stop.clone();
    tokio::spawn(async move { bound.run(stopped).await });
    (address, stop.drop_guard())
}

/// Hammers all gateways for `time`: how many requests passed, and how long it took.
async fn hammer(gateways: &[SocketAddr], time: Duration) -> (f64, f64) {
    let begun = Instant::now();
    let clients = gateways.iter().flat_map(|gateway| {
        (0..CLIENTS).map(move |_| {
            let url = format!("http://{gateway}/r");
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut passed = 0_u32;
                while begun.elapsed() < time {
                    match client.get(&url).send().await.unwrap().status().as_u16() {
                        200 => passed += 1,
                        429 => tokio::time::sleep(Duration::from_millis(2)).await,
                        other => panic!("answered {other}"),
                    }
                }
                passed
            })
        })
    });
    let mut all = 0.0;
    for client in clients.collect::<Vec<_>>() {
        all += f64::from(client.await.unwrap());
    }
    (all, begun.elapsed().as_secs_f64())
}

struct Mesh {
    redis: Store,
    relays: Vec<Arc<Relay>>,
    gateways: Vec<SocketAddr>,
    served: Arc<AtomicU64>,
    _running: Vec<DropGuard>,
}

impl Mesh {
    async fn start() -> Self {
        let redis = redis::start().await;
        let (orchestrator, guard) = orchestrator(&redis.url()).await;
        let served = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&served);
        let service = serve(Router::new().fallback(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {}
        }))
        .await;
        let mut mesh = Self {
            redis,
            relays: Vec::new(),
            gateways: Vec::new(),
            served,
            _running: vec![guard],
        };
        for _ in 0..GATEWAYS {
            let (address, relay) = Relay::start(orchestrator).await;
            let (gateway, guard) = gateway(service, address).await;
            mesh.relays.push(relay);
            mesh.gateways.push(gateway);
            mesh._running.push(guard);
        }
        mesh
    }

    /// Until every gateway knows of the others, and they of it.
    async fn settled(&self, begun: Instant) {
        wait_for("the gateways to hear of one another", async || {
            self.relays.iter().all(|relay| relay.told(begun) >= 4)
        })
        .await;
    }

    /// Hammers, and holds what passed against what may.
    async fn bounded(&self, what: &str) {
        let begun = Instant::now();
        let (passed, took) = hammer(&self.gateways, Duration::from_secs(5)).await;
        let exact = BURST + RATE * took;
        let longest = self.relays.iter().map(|relay| relay.longest(begun));
        let overshoot: f64 = longest.map(|seconds| RATE * seconds).sum();
        eprintln!("{what}: {passed} passed, exactly {exact:.0}, at most {overshoot:.0} more");
        assert!(
            passed <= exact + overshoot,
            "{what}: {passed} of {exact} and {overshoot}"
        );
        // What is shared is used, too.
        assert!(passed >= RATE * took / 2.0, "{what}: {passed} of {exact}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_keep_one_limit_and_redis_may_come_and_go() {
    let mut mesh = Mesh::start().await;
    mesh.settled(Instant::now()).await;
    mesh.bounded("together").await;

    mesh.redis.kill().await;
    let killed = Instant::now();
    // Longer than a gateway waits before it goes on alone.
    tokio::time::sleep(INTERVAL * 8).await;
    assert!(
        mesh.relays
            .iter()
            .all(|relay| relay.told(killed + INTERVAL) == 0)
    );
    let (passed, took) = hammer(&mesh.gateways, Duration::from_secs(3)).await;
    let alone = GATEWAYS as f64 * (BURST + RATE * took);
    assert!(passed <= alone, "alone: {passed} of {alone}");
    assert!(
        passed >= RATE * took,
        "alone: {passed}: they do not wait for each other"
    );

    mesh.redis.start_again().await;
    within("the exchange", mesh.settled(Instant::now())).await;
    mesh.bounded("together again").await;
    assert!(mesh.served.load(Ordering::Relaxed) > 0);
}
