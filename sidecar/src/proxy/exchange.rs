//! One try: a request to one target, and its answer.

use super::body::Body;
use super::connect::{ConnectError, Target};
use super::h1::{self, Answer, Way};
use super::h2;
use super::outlier::Outcome;
use super::payload::Payload;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is spoken with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::Http1 => Version::HTTP_11,
            Self::Http2 => Version::HTTP_2,
        }
    }
}

/// A request on its way.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
}

/// How one try is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    pub(crate) protocol: Protocol,
    /// Until when the head of the answer must be there.
    pub(crate) deadline: Instant,
    /// How long that is from the beginning.
    pub(crate) patience: Duration,
    /// For the next part of a body.
    pub(crate) idle: Option<Duration>,
    /// Whether the request asks for another protocol.
    pub(crate) switches: bool,
    /// Whether the request may be needed for another try: then its headers are copied.
    pub(crate) keep: bool,
}

/// Why a try brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missed {
    /// There is no connection.
    #[error(transparent)]
    Unconnected(ConnectError),
    /// The target did not process the request.
    #[error("connection was closed")]
    Unseen,
    /// The connection ended before anything of the answer came; the request may have been processed.
    #[error("connection ended before the answer: {0}")]
    BrokeOff(String),
    /// What came is no answer.
    #[error("no answer: {0}")]
    Failed(String),
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
}

impl Missed {
    /// A word for traces.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unconnected(ConnectError::NoIdentity) => "no_identity",
            Self::Unconnected(_) => "unconnected",
            Self::Unseen => "unseen",
            Self::BrokeOff(_) => "broke_off",
            Self::Failed(_) => "no_answer",
            Self::Late => "timeout",
        }
    }
}

impl Outgoing {
    fn request(&mut self, version: Version, keep: bool) -> Request<super::payload::Outgoing> {
        let mut request = Request::new(self.payload.lend());
        if keep {
            request.method_mut().clone_from(&self.method);
            request.uri_mut().clone_from(&self.uri);
            request.headers_mut().clone_from(&self.headers);
        } else {
            *request.method_mut() = std::mem::take(&mut self.method);
            *request.uri_mut() = std::mem::take(&mut self.uri);
            *request.headers_mut() = std::mem::take(&mut self.headers);
        }
        *request.version_mut() = version;
        request
    }
}

/// Makes one try.
///
/// A connection that rested may be closed by the other side in the moment in which it is taken: what was not
/// written at all is sent on a new one, whatever it is.
///
/// # Errors
/// [`Missed`].
pub(crate) async fn attempt(
    target: &Arc<Target>,
    request: &mut Outgoing,
    how: Try,
) -> Result<Answer, Missed> {
    match how.protocol {
        Protocol::Http1 => over_h1(target, request, how).await,
        Protocol::Http2 => over_h2(target, request, how).await.map(Answer::Response),
    }
}

async fn over_h1(target: &Arc<Target>, request: &mut Outgoing, how: Try) -> Result<Answer, Missed> {
    let mut fresh = false;
    loop {
        let connection = target.h1(fresh).await.map_err(Missed::Unconnected)?;
        let rested = connection.used;
        // Nothing can be unseen on a new connection but what is lost with it.
        let sent = request.request(Version::HTTP_11, how.keep || rested);
        let ground = target.ground();
        let way = Way {
            pool: target.idle(),
            idle: how.idle,
            switches: how.switches,
            tasks: &ground.tasks,
            cut: &ground.cut,
        };
        let sending = connection.send(sent, &way);
        match within((how.deadline, how.patience), &request.payload, sending).await? {
            Ok(answer) => return Ok(answer),
            Err(h1::Failed::Unseen) if rested && request.payload.is_replayable() => fresh = true,
            Err(h1::Failed::Unseen) => return Err(Missed::Unseen),
            Err(h1::Failed::BrokeOff(error)) => {
                let again = rested && request.method.is_idempotent();
                if !again || !request.payload.is_replayable() {
                    return Err(Missed::BrokeOff(error.to_string()));
                }
                fresh = true;
            }
            Err(h1::Failed::Other(why)) => return Err(Missed::Failed(why)),
        }
    }
}

async fn over_h2(
    target: &Arc<Target>,
    request: &mut Outgoing,
    how: Try,
) -> Result<Response<Body>, Missed> {
    let mut again = true;
    loop {
        let connection = target.h2().await.map_err(Missed::Unconnected)?;
        let sent = request.request(Version::HTTP_2, how.keep || again);
        let sending = connection.send(sent, how.idle, &target.ground().tasks);
        match within((how.deadline, how.patience), &request.payload, sending).await? {
            Ok(response) => return Ok(response),
            Err(h2::Failed::Unseen) if again && request.payload.is_replayable() => again = false,
            Err(h2::Failed::Unseen) => return Err(Missed::Unseen),
            Err(h2::Failed::BrokeOff(error)) => return Err(Missed::BrokeOff(error.to_string())),
            Err(h2::Failed::Other(error)) => return Err(Missed::Failed(error.to_string())),
        }
    }
}

/// Least bytes a second of a body that is waited for, on average over a time limit: a byte now and then would hold a
/// connection for ever. A modem had fifty times that.
const LEAST_RATE: u64 = 100;

/// Waits until the deadline; while the client's body goes on arriving, a target need not answer.
async fn within<F: Future>(
    (deadline, patience): (Instant, Duration),
    payload: &Payload,
    future: F,
) -> Result<F::Output, Missed> {
    tokio::pin!(future);
    let mut until = deadline;
    let mut progress = payload.progress();
    loop {
        match tokio::time::timeout_at(until, future.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(_) => {
                let now = payload.progress();
                if now == progress {
                    return Err(Missed::Late);
                }
                let least = LEAST_RATE.saturating_mul(patience.as_secs());
                if !now.ended && now.came - progress.came < least {
                    payload.give_up();
                    return Err(Missed::Late);
                }
                progress = now;
                until = Instant::now() + patience;
            }
        }
    }
}

/// What came of a try; `None` where the instance has nothing to do with it.
pub(crate) fn outcome(result: &Result<Answer, Missed>, payload: &Payload) -> Option<Outcome> {
    Some(match result {
        Ok(answer) if answer.is_of_fault_behind() => Outcome::FaultBehind,
        Ok(answer) => Outcome::Answered(answer.status()),
        Err(_) if payload.fault().is_some() => return None,
        Err(Missed::Unconnected(ConnectError::NoIdentity)) => return None,
        Err(Missed::Unconnected(_) | Missed::Unseen) => Outcome::NotSent,
        Err(Missed::BrokeOff(_) | Missed::Failed(_)) => Outcome::BrokeOff,
        Err(Missed::Late) => Outcome::TimedOut,
    })
}
