//! The way out: the program's plain HTTP on loopback ▸ which service, which instance ▸ mTLS.

use super::Mesh;
use super::answer::{self, Fault};
use super::body::{Body, Held};
use super::client::Client;
use super::connect::Ground;
use super::drain::Drain;
use super::exchange::{self, Missed, Outgoing, Protocol, Try};
use super::h1::Answer;
use super::hygiene;
use super::metrics::{Counted, Directed, Gauged, PeerCounts};
use super::names::Names;
use super::payload::Payload;
use super::retry;
use super::route;
use super::serve::{self, Handler, Limits};
use super::service::{Reach, Service};
use super::span::{self, Origin};
use super::stream::Stream;
use super::tunnel;
use super::underway::Underway;
use crate::config::{self, Between, ServiceName};
use http::uri::{self, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use mesh_protocol::assertion::HEADER_AGENT;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a service is kept that nobody asks for: longer than pauses between an agent's tasks mostly are.
const FORGET: Duration = Duration::from_secs(600);
/// Most services at once. Their names come from the program's requests, so that a mistake there must not fill memory;
/// as many as discovery follows.
const MAX_SERVICES: usize = 4_096;

/// What all connections have in common.
pub(crate) struct Outbound {
    config: config::Outbound,
    mesh: Mesh,
    metrics: Directed,
    limits: Limits,
    /// For the next part of a body from or to the program.
    idle: Option<Duration>,
    names: Names,
    services: Mutex<HashMap<ServiceName, Arc<Service>>>,
    threads: Vec<Thread>,
}

/// What is one thread's own.
struct Thread {
    ground: Ground,
    reach: Mutex<HashMap<Box<str>, Arc<Reach>>>,
}

/// One connection of the program.
struct Program {
    outbound: Arc<Outbound>,
    thread: usize,
    client: Arc<Client>,
}

// Maps of services are whole whatever happened to the last holder.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbound {
    pub(crate) fn new(
        config: config::Outbound,
        names: Names,
        mesh: Mesh,
        metrics: Directed,
        grounds: &[Ground],
    ) -> Self {
        let thread = |ground: &Ground| Thread {
            ground: ground.clone(),
            reach: Mutex::default(),
        };
        Self {
            limits: Limits::from(&config.limits),
            idle: super::idle(&config.defaults),
            threads: grounds.iter().map(thread).collect(),
            services: Mutex::default(),
            names,
            config,
            mesh,
            metrics,
        }
    }

    /// Bounds on what the program may hold.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Closes connections that have been free for too long, and forgets services that nobody asks for.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let stays = |service: &Service| service.unused(now) < FORGET;
        lock(&self.services).retain(|_, service| stays(service));
        let mut kept = 0;
        for thread in &self.threads {
            let mut reach = lock(&thread.reach);
            reach.retain(|_, reach| stays(&reach.service));
            kept += reach.values().map(|reach| reach.sweep(now)).sum::<usize>();
        }
        self.metrics.pooled(kept);
    }

    /// The service `name` within reach of a thread.
    fn reach(&self, thread: &Thread, name: &str) -> Result<Arc<Reach>, Fault> {
        if let Some(reach) = lock(&thread.reach).get(name) {
            return Ok(Arc::clone(reach));
        }
        let unknown = || Fault::UnknownService(name.to_owned());
        let parsed: ServiceName = name.parse().map_err(|_| unknown())?;
        let mut services = lock(&self.services);
        let service = match services.get(&parsed) {
            Some(service) => Arc::clone(service),
            // Those of the mesh are there whatever else is asked for.
            None if services.len() >= MAX_SERVICES && !self.names.expects(&parsed) => {
                let why = "as many services as can be are asked for already";
                return Err(Fault::Overloaded(why.into(), Duration::ZERO));
            }
            None => {
                let settings = self.config.services.get(&parsed);
                let service = Service::new(
                    parsed.clone(),
                    settings.unwrap_or(&self.config.defaults).clone(),
                    self.mesh.zone(),
                    self.names.discovery(),
                    &thread.ground,
                );
                let service = service.map_err(|_| unknown())?;
                services.insert(parsed, Arc::clone(&service));
                service
            }
        };
        drop(services);
        service.touch(Instant::now());
        let mut reach = lock(&thread.reach);
        let reach = reach
            .entry(name.into())
            .or_insert_with(|| Arc::new(Reach::new(service)));
        Ok(Arc::clone(reach))
    }

    /// Lets go of a service that does not exist, so that made-up names take no room.
    fn forget(&self, service: &Service) {
        lock(&self.services).remove(&service.name);
        for thread in &self.threads {
            lock(&thread.reach).remove(service.name.as_str());
        }
    }

    /// What a request for a service counts as before an instance of it is found.
    fn counts(&self, service: &Service) -> Arc<PeerCounts> {
        if service.is_counted() || self.names.expects(&service.name) {
            return Arc::clone(service.counts(&self.metrics));
        }
        self.metrics.other()
    }

    /// Serves a connection, on the thread with this number.
    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        thread: usize,
        drain: Drain,
    ) {
        let _gauged = Gauged::new(&self.metrics.connections);
        // Without it small answers wait for an acknowledgement; with an error they only wait.
        let _ = stream.set_nodelay(true);
        let begins = tokio::time::timeout(self.limits.head, serve::begins_h2(&stream));
        let begins = tokio::select! {
            begins = begins => begins,
            () = drain.begun() => return,
        };
        // Nothing came, or the client has gone.
        let Ok(Ok(h2)) = begins else { return };
        let client = Arc::new(Client::default());
        let program = Arc::new(Program {
            outbound: Arc::clone(&self),
            thread,
            client: Arc::clone(&client),
        });
        let stream = Stream::plain(stream, self.idle);
        if h2 {
            let serving = serve::h2(stream, program, &self.limits, &drain, client);
            self.metrics.misread(Box::pin(serving).await);
        } else {
            let serving = serve::h1(stream, program, &self.limits, &drain, client);
            self.metrics.misread(Box::pin(serving).await);
        }
    }
}

impl Handler for Program {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let _open = self.client.begin();
        let begun = Instant::now();
        let wanted = tunnel::is_wanted(&request);
        let mut counted = None;
        let mut response = match self.forward(request, wanted, begun, &mut counted).await {
            Ok(response) => response,
            Err(fault) => {
                self.outbound.metrics.fault(&fault);
                if counted.is_none() {
                    counted = Some(Counted::new(self.outbound.metrics.other(), begun));
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

impl Program {
    async fn forward(
        &self,
        request: Request<Incoming>,
        websocket: bool,
        begun: Instant,
        counted: &mut Option<Counted>,
    ) -> Result<Response<Body>, Fault> {
        let outbound = &*self.outbound;
        let (mut parts, incoming) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Fault::Connect);
        }
        let asked = hygiene::clean_request(&mut parts, websocket);
        let target = parts.uri.path_and_query().cloned();
        let target = target.unwrap_or(PathAndQuery::from_static("/"));
        let by_header = outbound.config.by_agent_header;
        let thread = outbound.threads.get(self.thread);
        let thread = thread.ok_or(Fault::GatewayTimeout)?;
        let (reach, prefix, to_agent) = {
            let host = hygiene::host(&parts)?;
            let route = route::route(host, &target, &parts.headers, by_header)?;
            let reach = outbound.reach(thread, route.service)?;
            (reach, route.prefix, route.by_agent_header)
        };
        let service = &*reach.service;
        service.touch(begun);
        *counted = Some(Counted::new(outbound.counts(service), begun));
        if by_header {
            // It says where, and this is there. What the client showed the gateway is not the agent's to use.
            parts.headers.remove(HEADER_AGENT);
            if to_agent {
                parts.headers.remove(header::AUTHORIZATION);
            }
        }
        // gRPC needs HTTP/2 all the way; a WebSocket is one of HTTP/1.1.
        let protocol = match outbound.config.between {
            _ if websocket => Protocol::Http1,
            Between::Http1 if parts.version != Version::HTTP_2 => Protocol::Http1,
            _ => Protocol::Http2,
        };
        let mut uri = uri::Parts::default();
        let cannot = || Fault::BadRequest("the path cannot be passed on".into());
        uri.path_and_query = Some(match prefix {
            0 => target,
            prefix => route::without(&target, prefix).ok_or_else(cannot)?,
        });
        match protocol {
            Protocol::Http1 => {
                parts.headers.insert(header::HOST, service.host.clone());
            }
            Protocol::Http2 => {
                uri.scheme = Some(Scheme::HTTPS);
                uri.authority = Some(service.authority.clone());
                parts.headers.remove(header::HOST);
            }
        }
        let uri = Uri::from_parts(uri).map_err(|_| cannot())?;
        hygiene::ask(&mut parts.headers, asked, protocol.version());
        let settings = &service.settings;
        let idle = super::idle(settings);
        let patience = Duration::from_millis(settings.response_timeout_ms);
        let keep = settings.retries.max_body_bytes;
        let payload = Payload::take(incoming, keep, idle, patience, None)
            .await
            .map_err(super::of_client)?;
        let mut request = Outgoing {
            method: parts.method,
            uri,
            headers: parts.headers,
            payload,
        };
        let how = Try {
            protocol,
            deadline: begun + patience,
            patience,
            idle,
            switches: websocket,
            keep: true,
        };
        let (answer, held) = self
            .send(&reach, &thread.ground, &mut request, how, counted)
            .await?;
        super::finish(answer, asked, &self.client, idle, held)
    }

    /// Sends a request, again where that may be.
    async fn send(
        &self,
        reach: &Reach,
        ground: &Ground,
        request: &mut Outgoing,
        how: Try,
        counted: &mut Option<Counted>,
    ) -> Result<(Answer, Underway), Fault> {
        let outbound = &*self.outbound;
        let service = &*reach.service;
        let begun = Instant::now();
        let mut permit = service.breaker.admit(begun)?;
        service.budget.request(begun);
        let tracer = &outbound.mesh.tracer;
        let origin = Origin::of(tracer, &request.headers, request.uri.path());
        let most = service.settings.retries.max as usize;
        let mut tried = Vec::new();
        let mut pauses = None;
        let mut now = begun;
        loop {
            let mut picked = match service.balancer.pick(&tried, now) {
                Some(picked) => picked,
                None => {
                    let found = Box::pin(outbound.names.find(service)).await;
                    if let Err(Fault::UnknownService(_)) = &found {
                        outbound.forget(service);
                    }
                    found?;
                    now = Instant::now();
                    let none = || Fault::NoInstance(service.name.to_string());
                    service.balancer.pick(&tried, now).ok_or_else(none)?
                }
            };
            let counts = service.counts(&outbound.metrics);
            if let Some(counted) = counted {
                counted.count_for(counts);
            }
            let mesh = &outbound.mesh;
            let target = reach.target(picked.address(), mesh, outbound.limits.max_head, ground);
            let (at, before) = (picked.address(), tried.len());
            let mut span = origin
                .as_ref()
                .map(|origin| span::attempt(tracer, origin, request, &service.name, at, before));
            let more = tried.len() < most;
            let how = Try { keep: more, ..how };
            let result = exchange::attempt(&target, request, how).await;
            now = Instant::now();
            if let Some(span) = &mut span {
                span::tried(span, &result);
            }
            let outcome = match exchange::outcome(&result, &request.payload) {
                Some(outcome) => outcome,
                // Neither the instance nor the service is to blame.
                None => {
                    let missed = result.err().unwrap_or(Missed::Unseen);
                    return Err(super::of_missed(missed, &request.payload));
                }
            };
            service.tell(picked.answered(outcome, now));
            let body = if request.payload.is_replayable() {
                retry::Body::There
            } else {
                retry::Body::Gone
            };
            let again = more
                && outcome.failed()
                && now < how.deadline
                && retry::may(&request.method, outcome, body)
                && service.budget.retry(now);
            if !again {
                service.tell_breaker(permit.report(outcome.failed(), now));
                return match (result, counted.take()) {
                    (Ok(answer), Some(counted)) => {
                        let held = Underway {
                            counted,
                            picked: Some(picked),
                            permit,
                            span,
                        };
                        Ok((answer, held))
                    }
                    (Ok(_), None) => Err(Fault::GatewayTimeout),
                    (Err(missed), back) => {
                        *counted = back;
                        Err(super::of_missed(missed, &request.payload))
                    }
                };
            }
            counts.retries.inc();
            tried.push(picked.id().clone());
            drop((span, result, picked));
            let pauses = pauses.get_or_insert_with(retry::pauses);
            let pause = pauses.next().unwrap_or_default();
            tokio::time::sleep(pause.min(how.deadline - now)).await;
            now = Instant::now();
        }
    }
}
