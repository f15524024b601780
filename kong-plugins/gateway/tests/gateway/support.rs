//! A service that remembers what it saw, a gateway before it, and a client that writes bytes.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use mesh_gateway::{BuildError, Config, Deps, Handle, RunError, build};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything here; far above what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where the modules are that `make filters` has built, `name` among them.
pub fn filters(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let filters = target.join("filters");
    assert!(
        filters.join(format!("{name}.wasm")).is_file(),
        "no {name}.wasm in {}: run make filters",
        filters.display()
    );
    filters
}

/// What the service saw of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A service that answers 200 with `ok`, and remembers.
pub struct Service {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Service {
    pub async fn start() -> Self {
        Self::answering(|_| Response::new(Full::from("ok"))).await
    }

    pub async fn answering(
        answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let memory = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (memory, answer) = (Arc::clone(&memory), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (memory, answer) = (Arc::clone(&memory), Arc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|b| b.to_bytes());
                        let seen = Seen {
                            method: parts.method.to_string(),
                            target: parts.uri.to_string(),
                            headers: parts.headers,
                            body: body.unwrap_or_default(),
                        };
                        memory.lock().unwrap().push(seen.clone());
                        Ok::<_, Infallible>(answer(&seen))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request that the service saw.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A gateway that runs.
pub struct Gateway {
    pub address: SocketAddr,
    pub registry: prometheus::Registry,
    pub handle: Handle,
    pub config: Config,
    shutdown: CancellationToken,
    run: Option<JoinHandle<Result<(), RunError>>>,
    _modules: Option<tempfile::TempDir>,
}

/// A kong.yml, its modules, and changes to the defaults.
pub struct Setup {
    pub yaml: String,
    pub filters: PathBuf,
    pub change: fn(&mut Config),
    pub access_log: Option<PathBuf>,
    modules: Option<tempfile::TempDir>,
}

impl Setup {
    /// A kong.yml with one service at `service` and what follows in `rest`.
    pub fn new(service: SocketAddr, rest: &str) -> Self {
        Self::at(&service.to_string(), rest)
    }

    /// The same with a service that has a path.
    pub fn at(service: &str, rest: &str) -> Self {
        let head =
            format!("_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://{service}\n");
        Self {
            yaml: head + rest,
            filters: PathBuf::from("."),
            change: |_| {},
            access_log: None,
            modules: None,
        }
    }

    /// With modules written in the text format.
    pub fn with_modules(mut self, modules: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in modules {
            let bytes = wat::parse_str(text).unwrap();
            std::fs::write(directory.path().join(format!("{name}.wasm")), bytes).unwrap();
        }
        self.filters = directory.path().to_owned();
        self.modules = Some(directory);
        self
    }

    pub fn changed(mut self, change: fn(&mut Config)) -> Self {
        self.change = change;
        self
    }

    fn config(&self) -> Config {
        let declarative = mesh_declarative::Config::from_yaml(&self.yaml).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::new(listen, declarative, &self.filters);
        config.workers = 1;
        config.access_log = self.access_log.clone().map(mesh_gateway::AccessLog::File);
        (self.change)(&mut config);
        config
    }

    pub async fn start(self) -> Gateway {
        let registry = prometheus::Registry::new();
        let deps = Deps {
            tracer: mesh_trace::Tracer::off(),
            metrics: registry.clone(),
        };
        let config = self.config();
        let bound = build(config.clone(), deps).await.unwrap();
        let shutdown = CancellationToken::new();
        Gateway {
            address: bound.address(),
            registry,
            handle: bound.handle(),
            config,
            run: Some(tokio::spawn(bound.run(shutdown.clone()))),
            shutdown,
            _modules: self.modules,
        }
    }

    /// Why the gateway is not built, with all causes.
    pub async fn refusal(self) -> String {
        let deps = Deps {
            tracer: mesh_trace::Tracer::off(),
            metrics: prometheus::Registry::new(),
        };
        let error: BuildError = build(self.config(), deps).await.unwrap_err();
        with_causes(&error)
    }
}

/// The text of a refusal with all its causes.
pub fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Waits until `done`.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("{what} does not come"));
}

impl Gateway {
    /// Loads another kong.yml, of the same service.
    pub async fn reload(&self, yaml: &str) -> Result<(), String> {
        let declarative = mesh_declarative::Config::from_yaml(yaml).unwrap();
        let result = self.handle.reload_declarative(declarative).await;
        result.map_err(|e| with_causes(&e))
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `text` as it is, with `\n` as the line's end, and reads until the gateway closes.
    pub async fn raw(&self, text: &str) -> Answer {
        self.bytes(text.replace('\n', "\r\n").as_bytes()).await
    }

    pub async fn bytes(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // The gateway may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut all = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all));
        let _ = read.await.expect("the gateway does not close");
        Answer::read(&all)
    }

    /// A GET with more header lines.
    pub async fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!(
            "GET {path} HTTP/1.1\nhost: mesh.test\n{headers}connection: close\n\n"
        ))
        .await
    }

    pub async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\nhost: mesh.test\n{headers}content-length: {length}\nconnection: close\n\n{body}"
        ))
        .await
    }

    /// The value of a metric with these labels; zero when there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name);
        let metric = family.and_then(|f| {
            f.get_metric().iter().find(|m| {
                labels.iter().all(|(name, value)| {
                    let mut own = m.get_label().iter();
                    own.any(|l| l.name() == *name && l.value() == *value)
                })
            })
        });
        metric.map_or(0.0, |m| {
            m.get_counter().get_value() + m.get_gauge().get_value()
        })
    }

    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the gateway has ended.
    pub async fn ended(mut self) -> Result<(), RunError> {
        let run = self.run.take().unwrap();
        tokio::time::timeout(PATIENCE, run)
            .await
            .expect("the gateway does not end")
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One answer, or none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Self {
            status: status.unwrap_or_default(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
