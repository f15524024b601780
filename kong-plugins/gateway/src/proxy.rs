//! One request from its head to its answer.

use crate::answer::{self, Problem};
use crate::body::{Body, BodyError, RequestBody};
use crate::filters::{Passage, Set, Verdict};
use crate::hygiene::{self, Forwarded};
use crate::metrics::Finished;
use crate::path;
use crate::routes::Destination;
use crate::upstream::Upstream;
use crate::worker::Shared;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use mesh_wasm_host::{Exchange, Head, LocalResponse};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What one thread needs to answer.
pub(crate) struct Worker {
    pub shared: Arc<Shared>,
    pub set: Rc<RefCell<Set>>,
    pub services: Vec<Upstream>,
}

/// What a request is about, read from its head.
struct Subject {
    /// The client's host as it was sent.
    authority: String,
    /// The same in lower case and without port.
    host: String,
    /// The path in its normal form.
    path: String,
}

/// Where a request goes, and what it passes on its way.
struct Way<'a> {
    destination: &'a Arc<Destination>,
    upstream: &'a Upstream,
    prefix: &'a str,
    subject: &'a Subject,
    client: SocketAddr,
}

impl Worker {
    /// Answers one request; whatever goes wrong is an answer too.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> Response<Body> {
        let start = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let (route, response) = self.route(request, client).await;
        let finished = Finished {
            start,
            method,
            path,
            client: client.ip().to_canonical(),
            status: response.status().as_u16(),
            metrics: self.shared.by_route.get(route.as_deref()).clone(),
            bytes: 0,
        };
        response.map(|body| body.reporting(finished))
    }

    async fn route(
        &self,
        mut request: Request<Incoming>,
        client: SocketAddr,
    ) -> (Option<Arc<str>>, Response<Body>) {
        // The parser's buffer is larger than what it lets through of a head, now and then by much.
        if head_bytes(&request) > self.shared.config.max_head_bytes {
            return (None, Problem::HeadTooLarge.response());
        }
        let subject = match Subject::read(&request) {
            Ok(subject) => subject,
            Err(problem) => return (None, problem.response()),
        };
        hygiene::clean_request(request.headers_mut());
        let found = self.shared.table.find(
            request.method(),
            &subject.host,
            &subject.path,
            request.headers(),
        );
        let Some(found) = found else {
            return (None, answer::no_route());
        };
        let Some(upstream) = self.services.get(found.destination.service) else {
            return (None, Problem::BadGateway.response());
        };
        let way = Way {
            destination: found.destination,
            upstream,
            prefix: found.prefix,
            subject: &subject,
            client,
        };
        let route = Some(Arc::clone(&way.destination.route));
        (route, self.pass(request, &way).await)
    }

    async fn pass(&self, request: Request<Incoming>, way: &Way<'_>) -> Response<Body> {
        let limit = self.shared.config.max_request_body;
        if request.body().size_hint().lower() > limit as u64 {
            return Problem::BodyTooLarge(limit).response();
        }
        let (parts, body) = request.into_parts();
        let empty = body.is_end_stream();
        let body = RequestBody::stream(body, limit, self.shared.config.body_timeout);
        if way.destination.chain.is_empty() {
            let replay = empty.then(Bytes::new);
            return match self.forward(parts, body, replay, way).await {
                Ok(response) => cleaned(response, way),
                Err(problem) => problem.response(),
            };
        }
        self.filter(parts, body, empty, way).await
    }

    /// The way through filters: request, service, response.
    async fn filter(
        &self,
        mut parts: http::request::Parts,
        body: RequestBody,
        empty: bool,
        way: &Way<'_>,
    ) -> Response<Body> {
        let exchange = exchange(&mut parts, way, self.shared.local_port);
        let chain = Arc::clone(&way.destination.chain);
        let mut passage = Box::new(Passage::new(Rc::clone(&self.set), chain, exchange));
        match passage.request_headers(empty) {
            Verdict::Pass => {}
            Verdict::Answer(local) => return respond(local_response(local), passage),
            Verdict::Failed => return Problem::FilterFailed.response(),
        }
        // Filters see bodies whole, as in Kong.
        let whole = match body.collect().await {
            Ok(whole) => whole,
            Err(error) => return respond(of_body(&error).response(), passage),
        };
        passage.exchange.request_body = whole;
        if !empty {
            match passage.request_body() {
                Verdict::Pass => {}
                Verdict::Answer(local) => return respond(local_response(local), passage),
                Verdict::Failed => return Problem::FilterFailed.response(),
            }
        }
        let whole = std::mem::take(&mut passage.exchange.request_body);
        let Some(parts) = with_changes(parts, &mut passage.exchange.request) else {
            return Problem::FilterFailed.response();
        };
        let body = RequestBody::whole(whole.clone());
        match self.forward(parts, body, Some(whole), way).await {
            Ok(response) => respond(cleaned(response, way), passage),
            Err(problem) => respond(problem.response(), passage),
        }
    }

    /// Sends the request to its service.
    async fn forward(
        &self,
        mut parts: http::request::Parts,
        body: RequestBody,
        replay: Option<Bytes>,
        way: &Way<'_>,
    ) -> Result<Response<Incoming>, Problem> {
        let subject = way.subject;
        let plan = &way.upstream.plan;
        let strip = way.destination.strip_path;
        let mut target = path::join(&plan.path, &subject.path, way.prefix, strip);
        let sent = parts.uri.path().to_owned();
        if let Some(query) = parts.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        parts.uri = uri(&plan.authority, &target)
            .ok_or(Problem::BadRequest("the path cannot be passed on"))?;
        parts.version = Version::HTTP_11;
        // Filters may have added what belongs to one hop or frames a body.
        hygiene::strip_hop_by_hop(&mut parts.headers);
        hygiene::strip_framing(&mut parts.headers);
        let host = if way.destination.preserve_host {
            &subject.authority
        } else {
            &plan.host
        };
        let host = HeaderValue::from_str(host)
            .map_err(|_| Problem::BadRequest("the host cannot be passed on"))?;
        parts.headers.insert(HOST, host);
        let forwarded = Forwarded {
            client: way.client,
            local_port: self.shared.local_port,
            host: &subject.host,
            path: &sent,
            prefix: Some(way.prefix).filter(|p| strip && !p.is_empty() && *p != "/"),
        };
        hygiene::add_forwarded(&mut parts.headers, &forwarded);
        way.upstream.send(parts, body, replay).await
    }
}

/// The length of a request's head, near enough: the target, and each header with `: ` and its line's end.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(1, |t| t.as_str().len());
    let headers = request.headers().iter();
    headers.fold(target, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}

impl Subject {
    fn read(request: &Request<Incoming>) -> Result<Self, Problem> {
        if [Method::CONNECT, Method::TRACE].contains(request.method()) {
            return Err(Problem::MethodNotAllowed);
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (host, None) => host,
            _ => return Err(Problem::BadRequest("there is more than one host")),
        };
        let authority = match (request.uri().authority(), host) {
            // RFC 9112, section 3.2.2: the target of the request goes before `Host`.
            (Some(authority), _) => authority.as_str().to_owned(),
            (None, Some(host)) => {
                let host = host.to_str().unwrap_or_default();
                let valid: Result<Authority, _> = host.parse();
                match valid {
                    Ok(authority) if !authority.as_str().contains('@') => host.to_owned(),
                    _ => return Err(Problem::BadRequest("the host is malformed")),
                }
            }
            (None, None) if request.version() == Version::HTTP_10 => String::new(),
            (None, None) => return Err(Problem::BadRequest("there is no host")),
        };
        let host = authority
            .parse::<Authority>()
            .map(|a| a.host().to_ascii_lowercase())
            .unwrap_or_default();
        let path = path::normalise(request.uri().path())
            .ok_or(Problem::BadRequest("the path is malformed"))?;
        Ok(Self {
            authority,
            host,
            path,
        })
    }
}

/// The request as filters see it. Its headers move over and come back with [`with_changes`].
fn exchange(parts: &mut http::request::Parts, way: &Way<'_>, port: u16) -> Exchange {
    let subject = way.subject;
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
        .to_owned();
    let mut exchange = Exchange::default();
    let request = &mut exchange.request;
    request.set_pseudo(":method", parts.method.as_str().to_owned());
    request.set_pseudo(":path", target.clone());
    request.set_pseudo(":authority", subject.authority.clone());
    request.set_pseudo(":scheme", "http");
    let properties = &mut exchange.properties;
    properties.set("request.method", parts.method.as_str().to_owned());
    // With the query, as Kong gives it.
    properties.set("request.path", target);
    properties.set("request.url_path", parts.uri.path().to_owned());
    properties.set(
        "request.query",
        parts.uri.query().unwrap_or_default().to_owned(),
    );
    properties.set("request.host", subject.authority.clone());
    properties.set("request.scheme", "http");
    properties.set("source.address", hygiene::canonical(way.client.ip()));
    properties.set("source.port", way.client.port().to_string());
    properties.set("destination.port", port.to_string());
    properties.set("kong.route_name", way.destination.route.to_string());
    request.headers = std::mem::take(&mut parts.headers);
    exchange
}

/// Takes the headers back from the filters, with the method, the one pseudo header whose change
/// counts. None for a method that is none.
fn with_changes(mut parts: http::request::Parts, head: &mut Head) -> Option<http::request::Parts> {
    parts.headers = head.headers.clone();
    parts.method = Method::from_bytes(head.pseudo(":method")?).ok()?;
    Some(parts)
}

fn uri(authority: &str, target: &str) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.parse().ok()?);
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A service's response as the client gets it, before filters see it.
fn cleaned(response: Response<Incoming>, way: &Way<'_>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    hygiene::strip_hop_by_hop(&mut parts.headers);
    hygiene::add_via(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(parts, Body::stream(body, way.upstream.plan.read_timeout))
}

fn local_response(local: LocalResponse) -> Response<Body> {
    let mut headers = local.headers;
    hygiene::strip_hop_by_hop(&mut headers);
    hygiene::strip_framing(&mut headers);
    let mut response = Response::new(Body::full(local.body));
    *response.status_mut() = local.status;
    *response.headers_mut() = headers;
    response
}

/// Lets all filters see a response, whoever it is from.
fn respond(response: Response<Body>, mut passage: Box<Passage>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let end = body.is_end_stream();
    let head = &mut passage.exchange.response;
    head.set_pseudo(":status", parts.status.as_str().to_owned());
    head.headers = parts.headers;
    if let Some(length) = body.own_length()
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status)
    {
        // hyper cannot know the length of what goes through filters; one that changes it says so.
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    match passage.response_headers(end) {
        Verdict::Pass => {}
        Verdict::Answer(local) => return local_response(local),
        Verdict::Failed => return Problem::FilterFailed.response(),
    }
    let head = &mut passage.exchange.response;
    let status = head
        .pseudo(":status")
        .and_then(|s| StatusCode::from_bytes(s).ok())
        .filter(|s| s.as_u16() >= 200);
    let Some(status) = status else {
        return Problem::FilterFailed.response();
    };
    parts.status = status;
    parts.headers = head.headers.clone();
    // Filters may have added what belongs to one hop.
    hygiene::strip_hop_by_hop(&mut parts.headers);
    Response::from_parts(parts, body.through(passage))
}

fn of_body(error: &BodyError) -> Problem {
    match error {
        BodyError::TooLarge(limit) => Problem::BodyTooLarge(*limit),
        BodyError::Timeout => Problem::RequestTimeout,
        BodyError::Filter | BodyError::Broken(_) => {
            Problem::BadRequest("the request body broke off")
        }
    }
}
