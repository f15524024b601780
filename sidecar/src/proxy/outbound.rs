//! The way out: the program's plain HTTP on loopback ▸ which service, which instance ▸ mTLS.

use super::answer::{self, Fault};
use super::body::{Body, Held};
use super::client::Client;
use super::connect::Ground;
use super::exchange::{self, Outgoing, Protocol, Try};
use super::hygiene;
use super::interim::Discovery;
use super::metrics::{Counted, Directed, Gauged};
use super::payload::Payload;
use super::route;
use super::serve::{self, Handler, Limits};
use super::service::Service;
use super::stream::Stream;
use super::tunnel;
use super::{Mesh, drain::Drain};
use crate::config::{self, Between};
use http::uri::{self, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use mesh_protocol::assertion::HEADER_AGENT;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// What all connections have in common.
pub(crate) struct Outbound {
    config: config::Outbound,
    mesh: Mesh,
    discovery: Discovery,
    metrics: Directed,
    limits: Limits,
    threads: Vec<Thread>,
}

/// What is one thread's own.
struct Thread {
    ground: Ground,
    services: Mutex<HashMap<Box<str>, Arc<Service>>>,
}

/// One connection of the program.
struct Program {
    outbound: Arc<Outbound>,
    thread: usize,
    client: Arc<Client>,
}

impl Outbound {
    pub(crate) fn new(
        config: config::Outbound,
        discovery: Discovery,
        mesh: Mesh,
        metrics: Directed,
        grounds: &[Ground],
    ) -> Self {
        Self {
            limits: Limits::from(&config.limits),
            threads: grounds
                .iter()
                .map(|ground| Thread {
                    ground: ground.clone(),
                    services: Mutex::default(),
                })
                .collect(),
            config,
            discovery,
            mesh,
            metrics,
        }
    }

    /// Bounds on what the program may hold.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn sweep(&self) {
        let now = tokio::time::Instant::now();
        let mut kept = 0;
        for thread in &self.threads {
            let services = thread
                .services
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            kept += services.values().map(|s| s.sweep(now)).sum::<usize>();
        }
        self.metrics.pooled(kept);
    }

    fn service(&self, thread: usize, name: &str) -> Option<Arc<Service>> {
        let thread = self.threads.get(thread)?;
        let mut services = thread
            .services
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(name) {
            return Some(Arc::clone(service));
        }
        let parsed = route::name(name)?;
        let settings = self
            .config
            .services
            .get(&parsed)
            .unwrap_or(&self.config.defaults);
        let service = Arc::new(Service::new(
            parsed,
            settings.clone(),
            &self.discovery,
            &self.metrics,
            self.mesh.clone(),
            self.limits.max_head,
            thread.ground.clone(),
        ));
        services.insert(name.into(), Arc::clone(&service));
        Some(service)
    }

    /// Serves a connection, on the thread with this number.
    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        _address: SocketAddr,
        thread: usize,
        drain: Drain,
    ) {
        let _gauged = Gauged::new(&self.metrics.connections);
        let _ = stream.set_nodelay(true);
        let begins = tokio::time::timeout(self.limits.head, serve::begins_h2(&stream)).await;
        let Ok(Ok(h2)) = begins else { return };
        let client = Arc::new(Client::default());
        let program = Arc::new(Program {
            outbound: Arc::clone(&self),
            thread,
            client: Arc::clone(&client),
        });
        let stream = Stream::Plain(stream);
        if h2 {
            serve::h2(stream, program, &self.limits, &drain, client).await;
        } else {
            serve::h1(stream, program, &self.limits, &drain, client).await;
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

    fn client(&self) -> &Client {
        &self.client
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
        let (service, prefix) = {
            let host = hygiene::host(&parts)?;
            let route = route::route(host, &target, &parts.headers, by_header)?;
            let service = outbound.service(self.thread, route.service);
            let unknown = || Fault::UnknownService(route.service.to_owned());
            (service.ok_or_else(unknown)?, route.prefix)
        };
        *counted = Some(Counted::new(Arc::clone(&service.counts), begun));
        if by_header {
            // It says where, and this is there. What the client showed the gateway is not the agent's to use.
            parts.headers.remove(HEADER_AGENT);
            if prefix == 1 + HEADER_AGENT.len() {
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
        uri.path_and_query = Some(if prefix == 0 {
            target
        } else {
            let cannot = || Fault::BadRequest("the path cannot be passed on".into());
            route::without(&target, prefix).ok_or_else(cannot)?
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
        let cannot = |_| Fault::BadRequest("the path cannot be passed on".into());
        let uri = Uri::from_parts(uri).map_err(cannot)?;
        hygiene::ask(&mut parts.headers, asked, protocol.version());
        let settings = &service.settings;
        let idle = super::idle(settings);
        let payload = Payload::take(incoming, settings.retries.max_body_bytes, idle)
            .await
            .map_err(super::of_client)?;
        let mut request = Outgoing {
            method: parts.method,
            uri,
            headers: parts.headers,
            payload,
        };
        let deadline =
            tokio::time::Instant::now() + Duration::from_millis(settings.response_timeout_ms);
        if service.pick().is_none() {
            let _ = tokio::time::timeout(
                Duration::from_millis(settings.connect_timeout_ms),
                service.answered(),
            )
            .await;
        }
        let target = service
            .pick()
            .ok_or_else(|| Fault::NoInstance(service.name.to_string()))?;
        let how = Try {
            protocol,
            deadline,
            idle,
            keep: false,
        };
        match exchange::attempt(&target, &mut request, how).await {
            Ok(answer) => {
                let Some(counted) = counted.take() else {
                    return Err(Fault::GatewayTimeout);
                };
                super::finish(answer, asked, &self.client, idle, counted)
            }
            Err(missed) => Err(super::of_missed(missed, &request.payload)),
        }
    }
}
