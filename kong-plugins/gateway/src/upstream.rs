//! The client of one service, with its own pool and its own patience.

use crate::answer::Problem;
use crate::body::{BodyError, RequestBody};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_declarative::Service;
use std::error::Error as _;
use std::time::Duration;

/// How long an idle connection is kept, well below what servers keep theirs.
const IDLE: Duration = Duration::from_secs(15);
/// Idle connections per worker and service; more than a worker uses at once on two cores.
const MAX_IDLE: usize = 128;

/// A service, checked: an address and no name.
#[derive(Debug, Clone)]
pub(crate) struct ServicePlan {
    /// `host:port`, an address.
    pub authority: String,
    /// `Host` that the service receives.
    pub host: String,
    /// The service's own path.
    pub path: String,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
}

impl ServicePlan {
    /// Checks a service; what is wrong with it goes into `problems`.
    pub(crate) fn read(
        service: &Service,
        upstreams: &[String],
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        let target = match service.target() {
            Ok(target) => target,
            Err(error) => {
                problems.push(error.to_string());
                return None;
            }
        };
        let name = &service.name;
        let mut wrong = |text: String| problems.push(format!("service {name}: {text}"));
        if target.tls {
            wrong("https to a service is not supported".to_owned());
        }
        if upstreams.contains(&target.host) {
            wrong(format!("upstream {} is not supported", target.host));
            return None;
        }
        let bare = target.host.trim_start_matches('[').trim_end_matches(']');
        // Nothing here asks a name server: a name that could change hands is no address.
        let address = match bare {
            "localhost" => "127.0.0.1",
            bare if bare.parse::<std::net::IpAddr>().is_ok() => &target.host,
            _ => {
                wrong(format!("host {} is no address", target.host));
                return None;
            }
        };
        if target.port == 0 {
            wrong("port 0 is no port".to_owned());
        }
        let port = target.port;
        Some(Self {
            authority: format!("{address}:{port}"),
            host: match port {
                80 => target.host.clone(),
                port => format!("{}:{port}", target.host),
            },
            path: target.path,
            connect_timeout: Duration::from_millis(service.connect_timeout.into()),
            read_timeout: Duration::from_millis(service.read_timeout.into()),
        })
    }
}

/// The client of one service.
pub(crate) struct Upstream {
    pub plan: ServicePlan,
    client: Client<HttpConnector, RequestBody>,
}

impl Upstream {
    /// Must be made within a runtime.
    pub(crate) fn new(plan: ServicePlan) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(plan.connect_timeout));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .set_host(false)
            .build(connector);
        Self { plan, client }
    }

    /// Sends a request; `replay` is its body where that is in memory.
    ///
    /// A connection can be closed by the service in the moment in which it is taken from the pool. Where
    /// the method may be repeated, and the body is still there, the request goes out once more.
    pub(crate) async fn send(
        &self,
        parts: http::request::Parts,
        body: RequestBody,
        replay: Option<Bytes>,
    ) -> Result<Response<Incoming>, Problem> {
        let again = match replay {
            Some(bytes) if parts.method.is_idempotent() => Some((parts.clone(), bytes)),
            _ => None,
        };
        let answer = self.once(Request::from_parts(parts, body)).await?;
        match (answer, again) {
            (Ok(response), _) => Ok(response),
            (Err(error), Some((parts, bytes))) if broke_off(&error) => {
                let request = Request::from_parts(parts, RequestBody::whole(bytes));
                self.once(request).await?.map_err(|e| problem(&e))
            }
            (Err(error), _) => Err(problem(&error)),
        }
    }

    async fn once(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Result<Response<Incoming>, Error>, Problem> {
        // Connecting has its own limit, so this one begins a little too early, and never too late.
        let longest = self.plan.connect_timeout + self.plan.read_timeout;
        tokio::time::timeout(longest, self.client.request(request))
            .await
            .map_err(|_| Problem::GatewayTimeout)
    }
}

/// Whether the connection ended before any of the answer came.
fn broke_off(error: &Error) -> bool {
    let source = error
        .source()
        .and_then(|e| e.downcast_ref::<hyper::Error>());
    !error.is_connect() && source.is_some_and(|e| e.is_incomplete_message() || e.is_canceled())
}

fn problem(error: &Error) -> Problem {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<BodyError>() {
            Some(BodyError::TooLarge(limit)) => return Problem::BodyTooLarge(*limit),
            Some(BodyError::Timeout) => return Problem::RequestTimeout,
            _ => {}
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::TimedOut
        {
            return Problem::GatewayTimeout;
        }
        source = cause.source();
    }
    tracing::warn!(error = %with_causes(error), "service failed");
    Problem::BadGateway
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
