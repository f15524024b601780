//! The way in: mTLS ▸ policy ▸ the program on loopback.

use super::Mesh;
use super::answer::{self, Fault};
use super::body::{Body, Held};
use super::breaker::Breaker;
use super::client::Client;
use super::connect::{Ground, Security, Target};
use super::drain::Drain;
use super::exchange::{self, Outgoing, Protocol, Try};
use super::hygiene;
use super::metrics::{Counted, Directed, Gauged, PeerCounts};
use super::payload::Payload;
use super::serve::{self, Handler, Limits};
use super::service;
use super::span;
use super::stream::Stream;
use super::tunnel;
use super::underway::Underway;
use crate::config::app::Place;
use crate::config::{self, ServiceName};
use crate::identity::SpiffeId;
use crate::policy::{Peer, Policy};
use http::uri::{self, PathAndQuery};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use mesh_protocol::Timestamp;
use mesh_trace::Span;
use prometheus::IntGauge;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What all connections have in common.
pub(crate) struct Inbound {
    mesh: Mesh,
    policy: Arc<Policy>,
    metrics: Directed,
    limits: Limits,
    /// Path of the program's URL.
    base_path: String,
    /// The program's own name for itself: no peer chooses what it reads as its host.
    host: HeaderValue,
    protocol: Protocol,
    response_timeout: Duration,
    idle: Option<Duration>,
    keep: usize,
    breaker: Breaker,
    breaker_open: IntGauge,
    service: ServiceName,
    /// The program, by thread.
    targets: Vec<Arc<Target>>,
}

/// One connection.
struct Caller {
    inbound: Arc<Inbound>,
    target: Arc<Target>,
    peer: SpiffeId,
    address: SocketAddr,
    /// The address as a header has it.
    client_address: HeaderValue,
    counts: Arc<PeerCounts>,
    client: Arc<Client>,
}

impl Inbound {
    pub(crate) fn new(
        service: &ServiceName,
        config: &config::Inbound,
        app: &Place,
        policy: Arc<Policy>,
        mesh: Mesh,
        metrics: Directed,
        grounds: &[Ground],
    ) -> Self {
        let settings = &config.settings;
        let limits = Limits::from(&config.limits);
        let targets = grounds.iter().map(|ground| {
            let (limit, ground) = (limits.max_head, ground.clone());
            let address = app.address;
            Arc::new(Target::new(
                address,
                Security::Plain,
                settings,
                limit,
                ground,
            ))
        });
        // An address with a port is always a header.
        let host = HeaderValue::try_from(app.address.to_string());
        Self {
            targets: targets.collect(),
            base_path: app.base_path.clone(),
            host: host.unwrap_or(HeaderValue::from_static("localhost")),
            protocol: if config.app_h2 {
                Protocol::Http2
            } else {
                Protocol::Http1
            },
            response_timeout: Duration::from_millis(settings.response_timeout_ms),
            idle: super::idle(settings),
            keep: settings.retries.max_body_bytes,
            breaker: Breaker::new(&settings.breaker, Instant::now()),
            breaker_open: metrics.breaker(&metrics.peer(service)),
            service: service.clone(),
            limits,
            mesh,
            policy,
            metrics,
        }
    }

    /// Bounds on what peers may hold.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Closes connections to the program that have been free for too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let kept = self.targets.iter().map(|target| target.sweep(now)).sum();
        self.metrics.pooled(kept);
    }

    /// Serves a connection, on the thread with this number.
    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        thread: usize,
        drain: Drain,
    ) {
        let Some(target) = self.targets.get(thread).map(Arc::clone) else {
            return;
        };
        let _gauged = Gauged::new(&self.metrics.connections);
        // Without it small answers wait for an acknowledgement; with an error they only wait.
        let _ = stream.set_nodelay(true);
        // Who comes too early waits as long as a handshake may take.
        let first = tokio::time::timeout(self.limits.handshake, self.mesh.identity.first());
        let Ok(tls) = first.await else {
            self.metrics.fault(&Fault::NoIdentity);
            return;
        };
        // Boxed, as what comes after it is: a connection keeps no room for a handshake that is over, nor for the
        // protocol that it does not speak.
        let accepted = Box::pin(tls.accept_within(stream, self.limits.handshake)).await;
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%address, %error, "no handshake");
                return;
            }
        };
        drop(tls);
        let ip = address.ip().to_canonical().to_string();
        let Ok(client_address) = HeaderValue::try_from(ip) else {
            return;
        };
        let client = Arc::new(Client::default());
        let caller = Arc::new(Caller {
            counts: self.metrics.peer(&accepted.peer.service),
            target,
            peer: accepted.peer,
            address,
            client_address,
            client: Arc::clone(&client),
            inbound: Arc::clone(&self),
        });
        let stream = Stream::tls(accepted.stream, self.idle);
        if accepted.h2 {
            let serving = serve::h2(stream, caller, &self.limits, &drain, client);
            self.metrics.misread(Box::pin(serving).await);
        } else {
            let serving = serve::h1(stream, caller, &self.limits, &drain, client);
            self.metrics.misread(Box::pin(serving).await);
        }
    }
}

impl Handler for Caller {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let _open = self.client.begin();
        let begun = Instant::now();
        let mut counted = Some(Counted::new(Arc::clone(&self.counts), begun));
        let wanted = tunnel::is_wanted(&request);
        let mut span = None;
        let forwarded = self.forward(request, wanted, begun, &mut counted, &mut span);
        let mut response = match forwarded.await {
            Ok(response) => {
                // It is here still when there was a refusal; with an answer it lasts as long as that.
                if let Some(mut span) = span {
                    span.http_answer(response.status());
                }
                response
            }
            Err(fault) => {
                self.inbound.metrics.fault(&fault);
                if let Some(mut span) = span {
                    span::faulted(&mut span, &fault);
                }
                fault.response()
            }
        };
        if let Some(mut counted) = counted {
            counted.answered(response.status().as_u16());
        }
        if wanted && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // What comes next on it was not screened.
            answer::close(&mut response);
        }
        response
    }
}

impl Caller {
    async fn forward(
        &self,
        request: Request<Incoming>,
        websocket: bool,
        begun: Instant,
        counted: &mut Option<Counted>,
        span: &mut Option<Span>,
    ) -> Result<Response<Body>, Fault> {
        let inbound = &*self.inbound;
        let (mut parts, incoming) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Fault::Connect);
        }
        let asked = hygiene::clean_request(&mut parts, websocket);
        let tracer = &inbound.mesh.tracer;
        *span = span::inbound(tracer, &mut parts, self.address, &self.peer.service);
        let peer = Peer {
            id: &self.peer,
            address: self.address,
        };
        let path = parts.uri.path();
        let admitted = inbound.policy.request(
            peer,
            &parts.method,
            path,
            &mut parts.headers,
            Timestamp::now(),
        );
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let (head, body) = refusal.response().into_parts();
                return Ok(Response::from_parts(head, Body::full(body)));
            }
        };
        let host = hygiene::host(&parts)?.map(str::to_owned);
        // On a path that is exempt the program itself tells who calls, by what is there and what is not.
        if !admitted.exempt {
            hygiene::add_forwarded(&mut parts.headers, &self.client_address, host.as_deref());
        }
        let protocol = if websocket {
            Protocol::Http1
        } else {
            inbound.protocol
        };
        let cannot = || Fault::BadRequest("the path cannot be passed on".into());
        let uri = inbound.uri(&parts.uri, protocol).ok_or_else(cannot)?;
        match protocol {
            Protocol::Http1 => {
                parts.headers.insert(header::HOST, inbound.host.clone());
            }
            Protocol::Http2 => {
                parts.headers.remove(header::HOST);
            }
        }
        hygiene::ask(&mut parts.headers, asked, protocol.version());
        let policy = Some(&inbound.policy);
        let patience = inbound.response_timeout;
        let payload = Payload::take(incoming, inbound.keep, inbound.idle, patience, policy)
            .await
            .map_err(super::of_client)?;
        let mut outgoing = Outgoing {
            method: parts.method,
            uri,
            headers: parts.headers,
            payload,
        };
        let how = Try {
            protocol,
            deadline: begun + inbound.response_timeout,
            patience: inbound.response_timeout,
            idle: inbound.idle,
            switches: websocket,
            keep: false,
        };
        let mut permit = inbound.breaker.admit(begun)?;
        let answer = exchange::attempt(&self.target, &mut outgoing, how).await;
        if let Some(outcome) = exchange::outcome(&answer, &outgoing.payload) {
            let event = permit.report(outcome.failed(), Instant::now());
            let name = inbound.service.as_str();
            service::breaker_changed(name, &inbound.breaker_open, event);
        }
        let answer = answer.map_err(|missed| super::of_missed(missed, &outgoing.payload))?;
        let mut span = span.take();
        if let Some(span) = &mut span {
            span.http_answer(answer.status());
        }
        let counted = counted.take().ok_or(Fault::GatewayTimeout)?;
        let held = Underway {
            counted,
            picked: None,
            permit,
            span,
        };
        super::finish(answer, asked, &self.client, inbound.idle, held)
    }
}

impl Inbound {
    /// Where a request goes, in the form in which the program's protocol has it.
    fn uri(&self, uri: &Uri, protocol: Protocol) -> Option<Uri> {
        let target = uri.path_and_query();
        let mut to = uri::Parts::default();
        to.path_and_query = Some(if self.base_path.is_empty() {
            target.cloned().unwrap_or(PathAndQuery::from_static("/"))
        } else {
            let rest = target.map_or("/", PathAndQuery::as_str);
            if !rest.starts_with('/') {
                return None;
            }
            format!("{}{rest}", self.base_path).try_into().ok()?
        });
        if protocol == Protocol::Http2 {
            to.scheme = Some(uri::Scheme::HTTP);
            to.authority = Some(uri::Authority::try_from(self.host.as_bytes()).ok()?);
        }
        let uri = Uri::from_parts(to).ok()?;
        // What had nothing but a fragment is written as nothing at all.
        if uri.path().is_empty() {
            return Some(Uri::from_static("/"));
        }
        Some(uri)
    }
}
