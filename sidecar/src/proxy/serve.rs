//! One connection of a client: HTTP/1.1, HTTP/2, or what HTTP/1.1 was upgraded to.
//!
//! hyper's own timers would be set and taken back for each request. Here one timer looks at the connection now and
//! then: what has not brought a head since the last look but one is ended.

use super::body::Body;
use super::client::Client;
use super::cork::Corked;
use super::drain::Drain;
use super::h2::{CONNECTION_WINDOW, STREAM_WINDOW};
use super::screen::Screened;
use super::stream::Stream;
use super::tunnel::End;
use crate::config::ConnectionLimits;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

/// Streams that were reset and are not forgotten yet, before the connection is closed: hyper's default for remote
/// resets is 20; programs that cancel much have more.
const MAX_RESETS: usize = 64;
/// Most headers of a request; hyper's default.
const MAX_HEADERS: usize = 100;
/// How a connection of HTTP/2 begins, as far as no method of HTTP/1.1 that is common does.
const PREFACE: &[u8] = b"PRI";
/// Pause before a beginning that is too short to judge is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(2);
/// How long, and for how many bytes, a client may go on sending after the last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// The answer to a head that does not arrive.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a client may hold.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For the TLS handshake.
    pub(crate) handshake: Duration,
    /// For the head of a request.
    pub(crate) head: Duration,
    /// Longest head, in bytes.
    pub(crate) max_head: usize,
    /// Most connections.
    pub(crate) max_connections: usize,
    max_streams: u32,
}

impl From<&ConnectionLimits> for Limits {
    fn from(limits: &ConnectionLimits) -> Self {
        Self {
            handshake: Duration::from_millis(limits.handshake_timeout_ms),
            head: Duration::from_millis(limits.head_timeout_ms),
            max_head: limits.max_head_bytes,
            max_connections: limits.max_connections,
            max_streams: limits.max_streams,
        }
    }
}

/// Answers the requests of one connection.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Whether the client speaks HTTP/2 without being asked; nothing is taken from the stream.
///
/// # Errors
/// The system's, and `UnexpectedEof` for a client that says nothing.
pub(crate) async fn begins_h2(stream: &tokio::net::TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let read = stream.peek(&mut start).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (seen, wanted) = (start.get(..read), PREFACE.get(..read));
        if seen != wanted {
            return Ok(false);
        }
        if read == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

/// Why a connection is to end before its client ends it.
enum Why {
    Drain,
    Idle,
}

/// Why a connection ended that brought no request to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misread {
    /// A head that cannot be read or is too long, or frames that break the protocol; it was answered by what reads
    /// them.
    Malformed,
    /// A head that did not arrive in time.
    HeadTimeout,
}

impl Misread {
    /// Every [`Self::reason`].
    pub(crate) const REASONS: [&'static str; 2] = ["malformed", "head_timeout"];

    /// A word for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HeadTimeout => "head_timeout",
        }
    }

    fn of(error: &hyper::Error) -> Option<Self> {
        let frames = || {
            let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
            // Found here, not said by the other side.
            Some(cause.is_library())
        };
        (error.is_parse() || frames().unwrap_or(false)).then_some(Self::Malformed)
    }
}

/// Looks at a connection now and then, and hears when it is to end.
struct Watch<'a> {
    client: &'a Client,
    look: Duration,
    next: Pin<Box<Sleep>>,
    /// Requests at the last look, and how often that was the number.
    seen: Option<(u64, u8)>,
    drain: Drain,
    drained: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    /// Whether both were polled once, and so have the task's waker.
    known: bool,
}

impl<'a> Watch<'a> {
    fn new(client: &'a Client, head: Duration, drain: &Drain) -> Self {
        let look = head / 2;
        let owned = drain.clone();
        Self {
            client,
            look,
            next: Box::pin(tokio::time::sleep(look)),
            seen: client.idle_after().map(|begun| (begun, 0)),
            drain: drain.clone(),
            drained: Box::pin(async move { owned.begun().await }),
            known: false,
        }
    }

    /// Ready when the connection is to end. Asked after each poll of it, so it costs two loads mostly; a
    /// connection is a task, whose waker never changes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Why> {
        if (!self.known || self.drain.has_begun()) && self.drained.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Why::Drain);
        }
        while !self.known || self.next.is_elapsed() {
            self.known = true;
            if self.next.as_mut().poll(cx).is_pending() {
                break;
            }
            self.seen = match (self.client.idle_after(), self.seen) {
                (None, _) => None,
                (Some(now), Some((then, times))) if now == then => {
                    if times >= 1 {
                        return Poll::Ready(Why::Idle);
                    }
                    Some((now, times + 1))
                }
                (Some(now), _) => Some((now, 0)),
            };
            self.next.as_mut().reset(Instant::now() + self.look);
            if self.next.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}

/// Serves a connection of HTTP/1.1, and the tunnel that may come of it; says what could not be read.
pub(crate) async fn h1<H: Handler>(
    stream: Stream,
    handler: Arc<H>,
    limits: &Limits,
    drain: &Drain,
    client: Arc<Client>,
) -> Option<Misread> {
    let screened = Screened::new(stream, Arc::clone(&client));
    let service = {
        let handler = Arc::clone(&handler);
        service_fn(move |request| {
            let handler = Arc::clone(&handler);
            async move { Ok::<_, Infallible>(handler.answer(request).await) }
        })
    };
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(limits.max_head.max(8_192))
        .serve_connection(TokioIo::new(screened), service);
    let mut watch = Watch::new(&client, limits.head, drain);
    let mut draining = false;
    let ended = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            if draining {
                return Poll::Pending;
            }
            match watch.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Why::Idle) => return Poll::Ready(Err(())),
                Poll::Ready(Why::Drain) => {
                    // The request under way is finished; then the connection is closed.
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    });
    let ended = ended.await;
    drop(watch);
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let mut misread = None;
    match ended {
        Err(()) => {
            let told = async {
                if client.is_within_head() {
                    misread = Some(Misread::HeadTimeout);
                    stream.write_all(TOO_SLOW).await?;
                }
                stream.shutdown().await
            };
            // A client that takes nothing either is left alone.
            let _ = tokio::time::timeout(limits.head, told).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "connection ended early");
            misread = Misread::of(&error);
        }
        Ok(Ok(())) => {
            if let Some(tunnel) = client.take_tunnel() {
                let read = parts.read_buf;
                Box::pin(tunnel.run(End { stream, read })).await;
                return None;
            }
        }
    }
    linger(stream).await;
    misread
}

/// Reads what a client still sends after the last answer, for a moment: a connection that is closed with bytes
/// unread is reset, and the client may lose that answer (RFC 9112, section 9.6).
async fn linger(mut stream: Stream) {
    let mut left = LINGER_BYTES;
    let mut part = vec![0; 4 * 1024];
    let reading = async {
        while let Ok(read @ 1..) = stream.read(&mut part).await {
            left = match left.checked_sub(read) {
                Some(left) => left,
                None => return,
            };
        }
    };
    // A client that is still sending then has had its time.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// Serves a connection of HTTP/2; says what could not be read.
pub(crate) async fn h2<H: Handler>(
    stream: Stream,
    handler: Arc<H>,
    limits: &Limits,
    drain: &Drain,
    client: Arc<Client>,
) -> Option<Misread> {
    let service = {
        let handler = Arc::clone(&handler);
        service_fn(move |request| {
            // Boxed: hyper moves it into a stream, and that into a task.
            let answer = Box::pin(Arc::clone(&handler).answer(request));
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let (corked, switch) = Corked::new(stream);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(limits.head))
        .keep_alive_timeout(limits.head)
        .serve_connection(TokioIo::new(corked), service);
    tokio::pin!(connection);
    let mut watch = Watch::new(&client, limits.head, drain);
    let why = std::future::poll_fn(|cx| match switch.poll(connection.as_mut(), cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => watch.poll(cx).map(Ok),
    });
    let ended = match why.await {
        Err(ended) => ended,
        Ok(why) => {
            // Streams that have begun are finished; then the connection is closed.
            connection.as_mut().graceful_shutdown();
            let ending = switch.drive(connection);
            match why {
                Why::Drain => ending.await,
                // There are none, and a client that does not take its leave is left.
                Why::Idle => tokio::time::timeout(limits.head, ending)
                    .await
                    .unwrap_or(Ok(())),
            }
        }
    };
    let error = ended.err()?;
    tracing::debug!(%error, "connection ended early");
    Misread::of(&error)
}
