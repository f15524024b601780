//! One request from its head to its answer.

mod exchange;
mod forward;
mod span;
pub(crate) mod subject;
mod tunnel;

pub(crate) use tunnel::{Client, Tunnel};

use crate::access;
use crate::answer::{self, Problem};
use crate::body::{Body, RequestBody};
use crate::filters::{Passage, Verdict};
use crate::hygiene;
use crate::local::Local;
use crate::metrics::{Entry, Finished};
use crate::plugins::{self, Additions, Asked, Decision, Plugins};
use crate::routes::Destination;
use crate::upstream::{Payload, Upstream};
use bytes::Bytes;
use exchange::{exchange, local_response, of_body, respond, with_changes};
use http::header::{CONTENT_TYPE, COOKIE, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use mesh_trace::Context;
use mesh_wasm_host::LocalResponse;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subject::{Subject, head_bytes};
use tracing::Instrument;

/// Where a request goes, and what it passes on its way.
struct Way<'a> {
    destination: &'a Arc<Destination>,
    upstream: &'a Upstream,
    prefix: &'a str,
    subject: &'a Subject,
    client: SocketAddr,
    /// Whether the client waits for a word before it sends the body.
    expects: bool,
    /// Whether the client asks for a WebSocket.
    upgrades: bool,
    notes: &'a Notes,
}

/// What is found out on the way, for the log and for the connection.
#[derive(Default)]
struct Notes {
    /// Whether there is a log.
    wanted: bool,
    route: RefCell<Option<Arc<str>>>,
    service: RefCell<Option<Arc<str>>>,
    /// The service's patience.
    longest: Cell<Duration>,
    upstream: Cell<Option<Duration>>,
    decision: Cell<Option<&'static str>>,
    reason: RefCell<Option<String>>,
    /// The service's end of a WebSocket.
    tunnel: RefCell<Option<OnUpgrade>>,
    /// Where the request's span is in its trace; none when there are no traces.
    place: RefCell<Option<Context>>,
}

/// Answers one request; whatever goes wrong is an answer too.
pub(crate) async fn answer(
    local: Rc<Local>,
    mut request: Request<Incoming>,
    client: &Client,
) -> Response<Body> {
    let start = Instant::now();
    let mut span = span::begin(&local.process.tracer, &request, client.address);
    let access = local.process.access.as_ref();
    let mut entry = access.map(|access| {
        Box::new(Entry {
            access: Arc::clone(access),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            client: client.address.ip().to_canonical(),
            request_id: access::id(request.headers(), "x-request-id"),
            traceparent: match span.context() {
                Some(place) => Some(place.traceparent()),
                None => access::id(request.headers(), "traceparent"),
            },
            service: None,
            upstream: None,
            decision: None,
            reason: None,
        })
    });
    let notes = Notes {
        wanted: entry.is_some(),
        place: RefCell::new(span.context().cloned()),
        ..Notes::default()
    };
    let asked = tunnel::wanted(&mut request);
    let response = local
        .route(request, client.address, asked.is_some(), &notes)
        .instrument(span.log_span())
        .await;
    if let Some(entry) = &mut entry {
        entry.service = notes.service.take();
        entry.upstream = notes.upstream.get();
        entry.decision = notes.decision.get();
        entry.reason = notes.reason.take();
    }
    let route = notes.route.take();
    span::answered(&mut span, route.as_deref(), response.status());
    let finished = Finished {
        start,
        status: response.status().as_u16(),
        metrics: local.generation.by_route.get(route.as_deref()).clone(),
        bytes: 0,
        entry,
        span,
    };
    let response = response.map(|body| body.reporting(finished));
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    match (asked, notes.tunnel.take()) {
        (Some(here), Some(there)) => {
            tunnel::open(response, client, (here, there), notes.longest.get())
        }
        // Nobody asked for it.
        _ => Problem::BadGateway.response(),
    }
}

impl Local {
    async fn route(
        &self,
        mut request: Request<Incoming>,
        client: SocketAddr,
        upgrades: bool,
        notes: &Notes,
    ) -> Response<Body> {
        let config = &self.generation.config;
        // The parser's buffer is larger than what it lets through of a head, now and then by much.
        if head_bytes(&request) > config.max_head_bytes
            || request.headers().len() > config.max_headers
        {
            return Problem::HeadTooLarge.response();
        }
        let subject = match Subject::read(&request) {
            Ok(subject) => subject,
            Err(problem) => return problem.response(),
        };
        let expects = plugins::expects(request.headers());
        hygiene::clean_request(request.headers_mut());
        if request.version() == Version::HTTP_2 {
            join_cookies(request.headers_mut());
        }
        let found = self.generation.table.find(
            request.method(),
            &subject.host,
            &subject.path,
            request.headers(),
        );
        let Some(found) = found else {
            return answer::no_route();
        };
        let Some(upstream) = self.services.get(found.destination.service) else {
            return Problem::BadGateway.response();
        };
        notes
            .route
            .replace(Some(Arc::clone(&found.destination.route)));
        notes.longest.set(upstream.plan.read_timeout);
        if notes.wanted {
            notes.service.replace(Some(Arc::clone(&upstream.plan.name)));
        }
        let way = Way {
            destination: found.destination,
            upstream,
            prefix: found.prefix,
            subject: &subject,
            client,
            expects,
            upgrades,
            notes,
        };
        if let Some(refusal) = refused(&request, &way) {
            return refusal;
        }
        self.pass(request, &way).await
    }

    async fn pass(&self, request: Request<Incoming>, way: &Way<'_>) -> Response<Body> {
        let config = &self.generation.config;
        let limit = config.max_request_body;
        if request.body().size_hint().lower() > limit as u64 {
            return Problem::BodyTooLarge(limit).response();
        }
        let (mut parts, body) = request.into_parts();
        let mut payload = if body.is_end_stream() {
            Payload::Whole(Bytes::new())
        } else {
            Payload::Stream(RequestBody::stream(body, limit, config.body_timeout))
        };
        let Some(plugins) = &way.destination.plugins else {
            return self.beyond(parts, payload, way).await;
        };
        let mut additions = Additions::default();
        let stopped = self
            .plugins(plugins, &mut parts, &mut payload, way, &mut additions)
            .await;
        let mut response = match stopped {
            Some(answer) => answer,
            None => self.beyond(parts, payload, way).await,
        };
        plugins.respond(response.headers_mut(), additions);
        response
    }

    /// Runs Kong's own plugins; returns the answer of one that stops the request.
    async fn plugins(
        &self,
        plugins: &Plugins,
        parts: &mut http::request::Parts,
        payload: &mut Payload,
        way: &Way<'_>,
        additions: &mut Additions,
    ) -> Option<Response<Body>> {
        let asked = Asked {
            client: way.client.ip().to_canonical(),
            path: &way.subject.path,
            service: &way.upstream.plan.name,
            empty: matches!(payload, Payload::Whole(_)),
            expects: way.expects,
        };
        match plugins.access(parts, &asked, additions) {
            Decision::Pass => {}
            Decision::Answer(answer) => return Some(*answer),
            Decision::Measure(bytes) => {
                let given = std::mem::replace(payload, Payload::Whole(Bytes::new()));
                match given.collect(Some(bytes)).await {
                    Ok(whole) => *payload = Payload::Whole(whole),
                    Err(crate::body::BodyError::TooLarge(_)) => {
                        return Some(plugins.too_large(way.expects));
                    }
                    Err(error) => return Some(of_body(&error).response()),
                }
            }
        }
        plugins.proceed(parts, &asked, &self.process.counters, additions)
    }

    /// What comes after the plugins.
    async fn beyond(
        &self,
        parts: http::request::Parts,
        payload: Payload,
        way: &Way<'_>,
    ) -> Response<Body> {
        if way.destination.chain.is_empty() {
            return match self.forward(parts, payload, way).await {
                Ok(response) => response,
                Err(problem) => problem.response(),
            };
        }
        self.filter(parts, payload, way).await
    }

    /// The way through filters: request, service, response.
    async fn filter(
        &self,
        mut parts: http::request::Parts,
        payload: Payload,
        way: &Way<'_>,
    ) -> Response<Body> {
        let empty = matches!(&payload, Payload::Whole(bytes) if bytes.is_empty());
        let exchange = exchange(&mut parts, empty, way, self.process.local_port);
        let chain = Arc::clone(&way.destination.chain);
        let mut passage = Box::new(Passage::new(Rc::clone(&self.set), chain, exchange));
        match passage.request_headers(empty) {
            Verdict::Pass => {}
            Verdict::Answer(local) => return respond(way.answered(local), passage),
            Verdict::Failed => return way.failed(),
        }
        // Filters see bodies whole, as in Kong.
        let whole = match payload.collect(None).await {
            Ok(whole) => whole,
            Err(error) => return respond(of_body(&error).response(), passage),
        };
        passage.exchange.request_body = whole;
        if !empty {
            match passage.request_body() {
                Verdict::Pass => {}
                Verdict::Answer(local) => return respond(way.answered(local), passage),
                Verdict::Failed => return way.failed(),
            }
        }
        way.notes.decision.set(Some("pass"));
        let whole = std::mem::take(&mut passage.exchange.request_body);
        let Some(parts) = with_changes(parts, &mut passage.exchange.request) else {
            return way.failed();
        };
        match self.forward(parts, Payload::Whole(whole), way).await {
            Ok(response) => respond(response, passage),
            Err(problem) => respond(problem.response(), passage),
        }
    }
}

impl Way<'_> {
    /// A filter's answer.
    fn answered(&self, local: LocalResponse) -> Response<Body> {
        self.notes.decision.set(Some("answer"));
        if self.notes.wanted {
            self.notes.reason.replace(reason(&local));
        }
        local_response(local)
    }

    /// The answer when a filter could not judge.
    fn failed(&self) -> Response<Body> {
        self.notes.decision.set(Some("failed"));
        Problem::FilterFailed.response()
    }
}

/// The last part of the type of a filter's problem.
fn reason(local: &LocalResponse) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let media = local.headers.get(CONTENT_TYPE)?;
    if !media.as_bytes().starts_with(b"application/problem+json") {
        return None;
    }
    let Kind { kind } = serde_json::from_slice(&local.body).ok()?;
    let last = kind.rsplit([':', '/']).next()?;
    Some(last.chars().take(64).collect())
}

/// The answer to a request that takes the route and is left out by its protocols, or that brings what only
/// the gateway may say.
fn refused(request: &Request<Incoming>, way: &Way<'_>) -> Option<Response<Body>> {
    let refused = way.destination.refused;
    if let Some(status) = refused.plain {
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", PathAndQuery::as_str);
        return Some(answer::https_only(status, &way.subject.authority, target));
    }
    if refused.not_grpc {
        let media = request.headers().get(CONTENT_TYPE);
        let is_grpc = media.is_some_and(|m| m.as_bytes().starts_with(b"application/grpc"));
        if !is_grpc || request.version() != Version::HTTP_2 {
            return Some(answer::grpc_only(is_grpc));
        }
    }
    None
}

/// HTTP/2 may send a cookie in parts (RFC 9113, section 8.2.3); HTTP/1.1 and filters know one header.
fn join_cookies(headers: &mut HeaderMap) {
    let mut parts = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for part in std::iter::once(second).chain(parts) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(part.as_bytes());
    }
    // Of what made valid headers, the join makes one.
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}
