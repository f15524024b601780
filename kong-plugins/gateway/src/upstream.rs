//! The client of one service, with its own connections and its own patience.

mod connect;
mod plan;

pub(crate) use plan::ServicePlan;

use crate::answer::Problem;
use crate::balance::{Event, Pool, Target};
use crate::body::{BodyError, Lent, RequestBody};
use bytes::Bytes;
use connect::Connector;
use http::header::{HOST, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_trace::{Context, Kind, Span, Tracer};
use std::error::Error as _;
use std::time::Duration;

/// How long an idle connection is kept, well below what servers keep theirs.
const IDLE: Duration = Duration::from_secs(15);
/// Idle connections per worker and service; more than a worker uses at once on two cores.
const MAX_IDLE: usize = 128;

/// The client of one service.
pub(crate) struct Upstream {
    pub plan: ServicePlan,
    client: Client<Connector, RequestBody>,
    tracer: Tracer,
}

/// A request on its way to a service.
pub(crate) struct Outgoing {
    pub parts: http::request::Parts,
    pub target: PathAndQuery,
    /// `Host`, where the client's own is kept.
    pub host: Option<HeaderValue>,
    pub body: Payload,
    /// Where the exchange belongs in a trace; none when there are no traces.
    pub parent: Option<Context>,
}

/// The body of such a request.
pub(crate) enum Payload {
    /// In memory: it can be sent again.
    Whole(Bytes),
    /// Still arriving.
    Stream(RequestBody),
}

impl Payload {
    /// Takes the whole body into memory, at most `limit` bytes of it, and never more than a stream's own.
    pub(crate) async fn collect(self, limit: Option<usize>) -> Result<Bytes, BodyError> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Stream(body) => body.collect(limit).await,
        }
    }
}

/// What became of one try.
enum Tried {
    Done(Response<Incoming>),
    /// The service did not see the request.
    Unseen(Problem, Event),
    /// The connection ended before any of the answer came.
    BrokeOff(Problem),
    Failed(Problem, Option<Event>),
}

impl Upstream {
    /// Must be made within a runtime.
    pub(crate) fn new(plan: ServicePlan, tracer: Tracer) -> Self {
        let connector = Connector {
            connect: plan.connect_timeout,
            write: plan.write_timeout,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .set_host(false)
            .http2_only(plan.h2)
            .build(connector);
        Self {
            plan,
            client,
            tracer,
        }
    }

    /// Sends a request to a target of `pool`.
    ///
    /// Where no connection comes about, the next target is tried, as often as the service's `retries`
    /// say and each target once at most: a target that has just refused would refuse again. A connection can
    /// be closed by the service in the moment in which it is taken from the pool: where the method may be
    /// repeated, and the body is still there, the request goes out once more.
    pub(crate) async fn send(
        &self,
        pool: &Pool,
        mut outgoing: Outgoing,
    ) -> Result<Response<Incoming>, Problem> {
        let mut tried: Vec<usize> = Vec::new();
        let mut repeated = false;
        let mut last = Problem::NoTarget;
        loop {
            let next = pool.next(&tried);
            let Some((index, target)) = next else {
                return Err(last);
            };
            let more = pool.targets.len() > tried.len() + 1 && tried.len() < self.plan.retries;
            let replayable = matches!(outgoing.body, Payload::Whole(_));
            let repeatable = replayable && !repeated && outgoing.parts.method.is_idempotent();
            // What may be needed once more is copied; else the request is used up.
            let (parts, payload, lent) = outgoing.take(more || repeatable);
            let mut request = self.request(target, &outgoing, parts, payload)?;
            let tries = tried.len() + usize::from(repeated);
            let mut span = self.span(outgoing.parent.as_ref(), target, &mut request, tries);
            let outcome = self.once(request, lent.as_ref()).await;
            end(&mut span, &outcome);
            drop(span);
            match outcome {
                Tried::Done(response) => {
                    pool.saw(index, Event::Status(response.status().as_u16()));
                    return Ok(response);
                }
                Tried::Unseen(problem, event) => {
                    pool.saw(index, event);
                    if !more || !outgoing.restore(lent) {
                        return Err(problem);
                    }
                    tried.push(index);
                    last = problem;
                }
                Tried::BrokeOff(_) if repeatable => repeated = true,
                Tried::BrokeOff(problem) => {
                    tracing::warn!(service = &*self.plan.name, "service broke off");
                    pool.saw(index, Event::Tcp);
                    return Err(problem);
                }
                Tried::Failed(problem, event) => {
                    if let Some(event) = event {
                        pool.saw(index, event);
                    }
                    return Err(problem);
                }
            }
        }
    }

    fn request(
        &self,
        target: &Target,
        outgoing: &Outgoing,
        mut parts: http::request::Parts,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Problem> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(target.authority.clone());
        uri.path_and_query = Some(outgoing.target.clone());
        parts.uri = Uri::from_parts(uri)
            .map_err(|_| Problem::BadRequest("the path cannot be passed on"))?;
        if self.plan.h2 {
            parts.version = Version::HTTP_2;
            parts.headers.remove(HOST);
        } else {
            parts.version = Version::HTTP_11;
            let host = outgoing.host.as_ref().unwrap_or(&target.host);
            parts.headers.insert(HOST, host.clone());
        }
        Ok(Request::from_parts(parts, body))
    }

    /// The span of one try, of which the service is told.
    fn span(
        &self,
        parent: Option<&Context>,
        target: &Target,
        request: &mut Request<RequestBody>,
        tries: usize,
    ) -> Span {
        let Some(parent) = parent else {
            return Span::default();
        };
        let name = mesh_trace::method_name(request.method());
        let mut span = self.tracer.start(Kind::Client, name, Some(parent.clone()));
        if let Some(place) = span.context() {
            place.to_headers(request.headers_mut());
        }
        span.http_request(request.method(), "http", request.uri().path());
        span.server(target.address);
        if span.is_recording() {
            span.set("kong.service", &*self.plan.name);
            if tries > 0 {
                let tries = i64::try_from(tries).unwrap_or(i64::MAX);
                span.set_number("http.request.resend_count", tries);
            }
        }
        span
    }

    async fn once(&self, request: Request<RequestBody>, lent: Option<&Lent>) -> Tried {
        // Connecting has its own limit, so this one begins a little too early, and never too late.
        let longest = self.plan.connect_timeout + self.plan.read_timeout;
        let sent = self.client.request(request);
        tokio::pin!(sent);
        let mut progress = 0;
        let answer = loop {
            match tokio::time::timeout(longest, sent.as_mut()).await {
                Ok(answer) => break answer,
                Err(_) => {
                    // While the client's body goes on arriving, the service need not answer.
                    let now = lent.map_or(0, Lent::progress);
                    if now == progress {
                        return Tried::Failed(Problem::GatewayTimeout, Some(Event::Timeout));
                    }
                    progress = now;
                }
            }
        };
        match answer {
            Ok(response) => Tried::Done(response),
            Err(error) => judge(&error),
        }
    }
}

impl Outgoing {
    /// The parts and the body for one try; with `keep` they can be taken once more.
    fn take(&mut self, keep: bool) -> (http::request::Parts, RequestBody, Option<Lent>) {
        let parts = if keep {
            self.parts.clone()
        } else {
            let (empty, ()) = Request::new(()).into_parts();
            std::mem::replace(&mut self.parts, empty)
        };
        match std::mem::replace(&mut self.body, Payload::Whole(Bytes::new())) {
            Payload::Whole(bytes) => {
                let body = RequestBody::whole(bytes.clone());
                self.body = Payload::Whole(bytes);
                (parts, body, None)
            }
            Payload::Stream(body) => {
                let (body, lent) = body.lend();
                (parts, body, Some(lent))
            }
        }
    }

    /// Takes back a body of which nothing was read; false when that cannot be done.
    fn restore(&mut self, lent: Option<Lent>) -> bool {
        match lent {
            None => true,
            Some(lent) => match lent.untouched() {
                Some(body) => {
                    self.body = Payload::Stream(body);
                    true
                }
                None => false,
            },
        }
    }
}

/// Notes what became of one try.
fn end(span: &mut Span, outcome: &Tried) {
    match outcome {
        Tried::Done(response) => span.http_answer(response.status()),
        Tried::Unseen(problem, _) | Tried::BrokeOff(problem) | Tried::Failed(problem, _) => {
            span.error(problem.kind());
        }
    }
}

fn judge(error: &Error) -> Tried {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<BodyError>() {
            Some(BodyError::TooLarge(limit)) => {
                return Tried::Failed(Problem::BodyTooLarge(*limit), None);
            }
            Some(BodyError::Timeout) => return Tried::Failed(Problem::RequestTimeout, None),
            Some(_) => {
                let problem = Problem::BadRequest("the request body broke off");
                return Tried::Failed(problem, None);
            }
            None => {}
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::TimedOut
        {
            let problem = Problem::GatewayTimeout;
            return if error.is_connect() {
                Tried::Unseen(problem, Event::Timeout)
            } else {
                Tried::Failed(problem, Some(Event::Timeout))
            };
        }
        source = cause.source();
    }
    let problem = Problem::BadGateway;
    let source = error
        .source()
        .and_then(|e| e.downcast_ref::<hyper::Error>());
    if !error.is_connect() && source.is_some_and(|e| e.is_incomplete_message() || e.is_canceled()) {
        return Tried::BrokeOff(problem);
    }
    tracing::warn!(error = %with_causes(error), "service failed");
    if error.is_connect() {
        return Tried::Unseen(problem, Event::Tcp);
    }
    Tried::Failed(problem, Some(Event::Tcp))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
