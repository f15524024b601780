//! One connection of HTTP/1.1 to a program or a peer, driven by the request that uses it.
//!
//! Where the request's body is in memory, the task that has the request drives the connection too (`wakes.rs` says
//! what that spares), and the first parts of the answer's body are taken along with its head, so that both leave in
//! one write. A body that is still arriving must go on while its answer goes back, whatever the answer's reader does:
//! such a connection gets a task of its own.

use super::body::{Body, Prefix};
use super::connect::Generation;
use super::frames::{BodyError, Patience};
use super::payload::Outgoing;
use super::pool::Idle;
use super::stream::Stream;
use super::tunnel::End;
use super::wakes::OwnWaker;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_protocol::problem;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest answer, in bytes, whose body is waited for a moment so that it leaves with its head.
const SHORT: u64 = 64 * 1024;

type Driver = http1::Connection<TokioIo<Stream>, Outgoing>;

/// A connection of HTTP/1.1. Boxed wherever it goes: it is moved for each request, and its parts are half a kilobyte.
pub(crate) struct Connection {
    sender: http1::SendRequest<Outgoing>,
    /// `None` once a task of its own drives it.
    driver: Option<Driver>,
    /// Whether the driver is done.
    ended: bool,
    waker: OwnWaker,
    /// Whether it has answered a request.
    pub(crate) used: bool,
    /// When its last request ended.
    pub(crate) since: Instant,
    /// Tells connections of one certificate from those of another.
    pub(crate) generation: Generation,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing of it was written.
    Unseen,
    /// The connection ended before anything of the answer came.
    BrokeOff(hyper::Error),
    /// What came is no answer.
    Other(String),
}

/// An answer.
pub(crate) enum Answer {
    /// A response, with as much of its body as was there.
    Response(Response<Body>),
    /// The connection is no longer HTTP.
    Switched(Response<()>, End),
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Response(response) => response.status(),
            Self::Switched(..) => StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// Whether it says that the fault is of something behind who answers.
    pub(crate) fn is_of_fault_behind(&self) -> bool {
        match self {
            Self::Response(response) if response.status().is_server_error() => response
                .headers()
                .get(problem::HEADER_FAULT)
                .is_some_and(|value| value == problem::FAULT_BEHIND),
            _ => false,
        }
    }
}

impl Connection {
    /// Begins HTTP/1.1 on `stream`.
    ///
    /// # Errors
    /// hyper's, when that cannot be.
    pub(crate) async fn begin(
        stream: Stream,
        max_head: usize,
        generation: Generation,
    ) -> hyper::Result<Box<Self>> {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(max_head.max(8_192))
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            ended: false,
            waker: OwnWaker::new(),
            used: false,
            since: Instant::now(),
            generation,
        }))
    }

    /// Whether it can take another request. Looks at what came meanwhile: mostly nothing, else its end.
    pub(crate) fn is_ready(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.poll_with::<()>(&mut cx, |_| Poll::Pending);
        !self.ended && self.sender.is_ready()
    }

    /// Rests in a pool: nobody is to be woken on its account.
    pub(crate) fn rest(&mut self) {
        self.used = true;
        self.since = Instant::now();
        self.waker.rest();
    }

    /// Sends a request and waits for the head of the answer. A connection that can be used again goes to `pool`, at
    /// once or when the body has gone.
    ///
    /// # Errors
    /// [`Failed`]; the connection is gone.
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: Request<Outgoing>,
        way: &Way<'_>,
    ) -> Result<Answer, Failed> {
        let whole = request.body().is_whole();
        let sent = self.sender.try_send_request(request);
        if !whole && let Some(driver) = self.driver.take() {
            let cut = way.cut.clone();
            way.tasks.spawn(async move {
                tokio::select! {
                    // What went wrong is told to whoever waits for the answer.
                    _ = driver => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        tokio::pin!(sent);
        let answer = std::future::poll_fn(|cx| self.poll_with(cx, |cx| sent.as_mut().poll(cx)));
        let response = answer.await.map_err(|mut failed| {
            if failed.take_message().is_some() {
                return Failed::Unseen;
            }
            let error = failed.into_error();
            if error.is_incomplete_message() || error.is_canceled() || is_io(&error) {
                Failed::BrokeOff(error)
            } else {
                Failed::Other(error.to_string())
            }
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !way.switches {
                return Err(Failed::Other("it switches without being asked".to_owned()));
            }
            return self.switched(response).await;
        }
        let (parts, incoming) = response.into_parts();
        let body = self.body(incoming, way).await;
        Ok(Answer::Response(Response::from_parts(parts, body)))
    }

    async fn body(mut self: Box<Self>, mut incoming: Incoming, way: &Way<'_>) -> Body {
        if incoming.is_end_stream() {
            self.give_back(way.pool);
            return Body::empty();
        }
        let mut prefix = Prefix::default();
        let mut waited = incoming.size_hint().exact().is_none_or(|len| len > SHORT);
        loop {
            let next = {
                let mut cx = Context::from_waker(Waker::noop());
                self.poll_with(&mut cx, |cx| Pin::new(&mut incoming).poll_frame(cx))
            };
            match next {
                Poll::Ready(Some(Ok(frame))) => {
                    let room = prefix.push(frame);
                    if incoming.is_end_stream() || prefix.is_ended() {
                        break;
                    }
                    if !room {
                        return self.streaming(prefix, incoming, way);
                    }
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => {
                    prefix.fail(BodyError::Broken);
                    return Body::whole(prefix);
                }
                Poll::Pending if waited => return self.streaming(prefix, incoming, way),
                Poll::Pending => {
                    // Many servers write the head and then the body: the second is often a moment behind.
                    waited = true;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.give_back(way.pool);
        Body::whole(prefix)
    }

    fn streaming(self: Box<Self>, prefix: Prefix, incoming: Incoming, way: &Way<'_>) -> Body {
        Body::streaming_h1(
            prefix,
            Box::new(Streaming {
                connection: Some(self),
                incoming,
                patience: Patience::new(way.idle),
                pool: Arc::clone(way.pool),
            }),
        )
    }

    async fn switched(mut self: Box<Self>, response: Response<Incoming>) -> Result<Answer, Failed> {
        let (parts, _) = response.into_parts();
        let Some(mut driver) = self.driver.take() else {
            return Err(Failed::Unseen);
        };
        // It ends here as HTTP; an error is told by what reads the stream next.
        if !self.ended {
            let mut poll = |cx: &mut Context<'_>| driver.poll_without_shutdown(cx).map(drop);
            std::future::poll_fn(|cx| self.waker.poll(cx, &mut poll)).await;
        }
        let rest = driver.into_parts();
        let end = End {
            stream: rest.io.into_inner(),
            read: rest.read_buf,
        };
        Ok(Answer::Switched(Response::from_parts(parts, ()), end))
    }

    /// Polls `wanted`, and the connection where nobody else does. A connection that has ended is let go of: what it did
    /// not take up lies in its channels, and only without it does whoever waits for an answer hear that there is none.
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Self {
            driver,
            ended,
            waker,
            ..
        } = self;
        waker.poll(cx, |cx| {
            if let Some(driver) = driver.as_mut().filter(|_| !*ended) {
                // An error is told to whoever waits for the answer or its body.
                *ended = driver.poll_without_shutdown(cx).is_ready();
            }
            let polled = wanted(cx);
            if polled.is_pending() && *ended && driver.take().is_some() {
                return wanted(cx);
            }
            polled
        })
    }

    fn give_back(mut self: Box<Self>, pool: &Arc<Idle>) {
        if !self.ended && self.sender.is_ready() {
            self.rest();
            pool.put(self);
        }
    }
}

/// What a request needs to know of its way beside the connection.
pub(crate) struct Way<'a> {
    /// Where the connection goes when it is free.
    pub(crate) pool: &'a Arc<Idle>,
    /// For the next part of the answer's body.
    pub(crate) idle: Option<Duration>,
    /// Whether the request asks for another protocol.
    pub(crate) switches: bool,
    /// Keeps account of tasks.
    pub(crate) tasks: &'a TaskTracker,
    /// Ends them at once.
    pub(crate) cut: &'a CancellationToken,
}

/// The rest of an answer's body, and the connection that it comes by.
pub(crate) struct Streaming {
    /// Gone when the body has.
    connection: Option<Box<Connection>>,
    incoming: Incoming,
    patience: Patience,
    pool: Arc<Idle>,
}

impl Streaming {
    /// The next part.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let incoming = &mut self.incoming;
        match connection.poll_with(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx)) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.renew();
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.connection = None;
                Poll::Ready(Some(Err(BodyError::Broken)))
            }
            Poll::Pending => {
                ready!(self.patience.poll_over(cx));
                self.connection = None;
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back(&self.pool);
        }
    }

    /// Whether everything was read.
    pub(crate) fn is_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// What is known of the length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn is_io(error: &hyper::Error) -> bool {
    use std::error::Error;
    error
        .source()
        .is_some_and(|cause| cause.is::<std::io::Error>())
}
