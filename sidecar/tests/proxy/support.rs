//! Programs, sidecars beside them, and what they are looked at with.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_sidecar::config::{self, Config, IdentitySource, ServiceName};
use mesh_sidecar::identity::{Alpn, Identity};
use mesh_sidecar::registry::{Memory, Registry};
use mesh_sidecar::{Deps, build};
use mesh_tests::{wait_for, within};
use mesh_trace::Tracer;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub type AppBody = BoxBody<Bytes, Infallible>;

pub fn full(body: impl Into<Bytes>) -> AppBody {
    Full::new(body.into()).boxed()
}

pub fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A request that a program got, with all of its body.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

/// A program on loopback that speaks HTTP/1.1 and HTTP/2.
pub struct App {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: DropGuard,
}

type Answer = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<AppBody>> + Send + Sync>;

async fn take(request: Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().unwrap().to_string(),
        version: parts.version,
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    }
}

impl App {
    /// Answers every request with what `answer` makes of it once it is there.
    pub async fn answering(
        answer: impl Fn(&Seen) -> Response<AppBody> + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let app = Self::streaming(move |request| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            Box::pin(async move {
                let request = take(request).await;
                let response = answer(&request);
                kept.lock().unwrap().push(request);
                response
            })
        })
        .await;
        Self { seen, ..app }
    }

    /// Answers `ok`.
    pub async fn start() -> Self {
        Self::answering(|_| Response::new(full("ok"))).await
    }

    /// Answers as `answer` does, which reads the body itself.
    pub async fn streaming(
        answer: impl Fn(Request<Incoming>) -> BoxFuture<'static, Response<AppBody>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let answer: Answer = Arc::new(answer);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
        Self {
            address,
            seen: Arc::default(),
            _stop: stop.drop_guard(),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

/// What several sidecars share.
pub struct Mesh {
    pub registry: Arc<Memory>,
    /// Begins the spans of all of them.
    pub tracer: Tracer,
    directory: tempfile::TempDir,
    members: tokio::sync::Mutex<HashMap<String, (Identity, DropGuard)>>,
}

/// A sidecar that runs.
pub struct Sidecar {
    pub inbound: Option<SocketAddr>,
    pub outbound: Option<SocketAddr>,
    pub metrics: prometheus::Registry,
    pub shutdown: CancellationToken,
    running: Option<JoinHandle<()>>,
    _stop: DropGuard,
}

/// Merges `over` into `base`.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

impl Mesh {
    pub fn new() -> Self {
        Self {
            registry: Memory::new(),
            tracer: Tracer::off(),
            directory: mesh_tests::server::directory("proxy"),
            members: tokio::sync::Mutex::default(),
        }
    }

    pub fn authority(&self) -> &Path {
        self.directory.path()
    }

    fn identity(&self) -> Value {
        json!({"trust_domain": "mesh.test", "source": {"development": {"directory": self.authority()}}})
    }

    /// A sidecar of `service`, configured by `config` and what every one needs.
    pub async fn sidecar(&self, service: &str, config: Value) -> Sidecar {
        let mut all = json!({
            "service": service,
            "admin_listen": "127.0.0.1:0",
            "drain_ms": 5_000,
            "identity": self.identity(),
        });
        merge(&mut all, config);
        let config = Config::from_text(&all.to_string()).unwrap();
        let metrics = prometheus::Registry::new();
        let deps = Deps {
            bus: None,
            registry: Arc::clone(&self.registry) as Arc<dyn Registry>,
            tracer: self.tracer.clone(),
            logs: None,
            metrics: metrics.clone(),
        };
        let bound = build(config, deps).await.unwrap();
        let shutdown = CancellationToken::new();
        Sidecar {
            inbound: bound.inbound_address(),
            outbound: bound.outbound_address(),
            metrics,
            running: Some(tokio::spawn(bound.run(shutdown.clone()))),
            _stop: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    /// A sidecar before the program at `app`, which everybody may call.
    pub async fn before(&self, service: &str, app: SocketAddr, inbound: Value) -> Sidecar {
        let config = json!({
            "app": {"url": format!("http://{app}"), "health": {"check": "tcp", "interval_ms": 50}},
            "policy": {"intentions": [{"from": "any"}]},
        });
        self.before_with(service, config, inbound).await
    }

    /// The same, with a configuration of its own.
    pub async fn before_with(&self, service: &str, mut config: Value, inbound: Value) -> Sidecar {
        let known = self.instances(service).await;
        let mut way = json!({"listen": "127.0.0.1:0"});
        merge(&mut way, inbound);
        merge(&mut config, json!({"inbound": way}));
        let sidecar = self.sidecar(service, config).await;
        wait_for("the registration", async || {
            self.instances(service).await > known
        })
        .await;
        sidecar
    }

    /// A sidecar with a way out, for the program `service`.
    pub async fn beside(&self, service: &str, outbound: Value) -> Sidecar {
        let mut way = json!({"listen": "127.0.0.1:0"});
        merge(&mut way, outbound);
        self.sidecar(service, json!({"outbound": way})).await
    }

    pub async fn instances(&self, service: &str) -> usize {
        let found = self.registry.instances(&name(service), None).await;
        found.unwrap().list.len()
    }

    /// An identity without a sidecar.
    async fn member(&self, service: &str) -> (Identity, DropGuard) {
        let config = config::Identity {
            trust_domain: Some("mesh.test".to_owned()),
            source: IdentitySource::Development {
                directory: self.authority().to_owned(),
                lifetime_s: 86_400,
            },
            ..config::Identity::default()
        };
        let metrics = prometheus::Registry::new();
        let (identity, renewal) = Identity::new(&name(service), &config, None, &metrics).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(renewal.run(stop.clone()));
        within("a certificate", identity.first()).await;
        (identity, stop.drop_guard())
    }

    /// A connection by mTLS, as `from` makes it to `to`.
    pub async fn connect(
        &self,
        from: &str,
        to: &str,
        address: SocketAddr,
        alpn: Alpn,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut members = self.members.lock().await;
        if !members.contains_key(from) {
            members.insert(from.to_owned(), self.member(from).await);
        }
        let tls = members[from].0.tls().unwrap();
        drop(members);
        let stream = TcpStream::connect(address).await.unwrap();
        let connected = tls.connect(stream, &name(to), alpn).await.unwrap();
        connected.stream
    }
}

impl Sidecar {
    /// Where the program sends its requests.
    pub fn out(&self) -> SocketAddr {
        self.outbound.unwrap()
    }

    /// Drains it, and waits until it has ended.
    pub async fn drained(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            within("the end of the drain", running).await.unwrap();
        }
    }

    /// The sum of a metric's series with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.metrics.gather();
        let Some(family) = families.iter().find(|f| f.name() == name) else {
            return 0.0;
        };
        let series = family.get_metric().iter().filter(|metric| {
            labels.iter().all(|(key, value)| {
                let pairs = metric.get_label();
                pairs
                    .iter()
                    .any(|p| p.name() == *key && p.value() == *value)
            })
        });
        series
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }
}

/// A program, the sidecar before it, and one beside a caller: `caller` calls `target`.
pub struct Pair {
    pub mesh: Mesh,
    pub target: Sidecar,
    pub caller: Sidecar,
}

impl Pair {
    pub async fn new(app: SocketAddr, inbound: Value, outbound: Value) -> Self {
        let mesh = Mesh::new();
        let target = mesh.before("target", app, inbound).await;
        let caller = mesh.beside("caller", outbound).await;
        Self {
            mesh,
            target,
            caller,
        }
    }

    /// With what is spoken between them.
    pub async fn between(app: SocketAddr, between: &str) -> Self {
        Self::new(app, json!({}), json!({"between": between})).await
    }

    pub fn out(&self) -> SocketAddr {
        self.caller.out()
    }

    /// Sends a request by HTTP/1.1 and collects the answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Collected {
        send(self.out(), request).await
    }

    pub async fn get(&self, path: &str) -> Collected {
        self.send(get(path)).await
    }
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    request("GET", path, "")
}

pub fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "target")
        .body(Full::new(body.into()))
        .unwrap()
}

/// An answer with all of its body.
#[derive(Debug)]
pub struct Collected {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Collected {
    pub async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = within("the answer's body", body.collect()).await.unwrap();
        let trailers = collected.trailers().cloned();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

/// Sends a request on a connection of its own.
pub async fn send<B>(to: SocketAddr, request: Request<B>) -> Collected
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let response = within("an answer", h1(to, request)).await;
    Collected::of(response).await
}

/// The same without waiting for the body.
pub async fn h1<B>(to: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// A connection of HTTP/2 without TLS.
pub async fn h2<B>(to: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(to).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}
