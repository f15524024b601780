//! One connection of HTTP/2 to a peer or a program, shared by the requests of one thread.
//!
//! On the crate below hyper's client: hyper sends each request through two channels and a task, which is a third of
//! what a small request costs here (docs/decisions/sidecar-data-path.md).

use super::body::{Body, Prefix};
use super::connect::Generation;
use super::cork::Corked;
use super::frames::{BodyError, Patience};
use super::payload::Outgoing;
use super::stream::Stream;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of one answer that may arrive before they are read: a quarter of a megabyte in a millisecond's round trip is
/// 2 Gbit/s.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all answers of a connection: that many slow readers may not stop the others.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams at once before the peer has said how many it takes.
const FIRST_STREAMS: usize = 100;
/// How often a peer with open streams is asked whether it is there, and how long it has for saying so.
const PING: Duration = Duration::from_secs(15);

/// A connection of HTTP/2.
pub(crate) struct Connection {
    sender: Mutex<SendRequest<Bytes>>,
    state: Arc<State>,
    /// Tells connections of one certificate from those of another.
    pub(crate) generation: Generation,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// What a connection shares with the task that drives it, which must not hold the sender: the connection ends when
/// nobody does.
#[derive(Debug, Default)]
struct State {
    /// Requests under way.
    open: AtomicUsize,
    /// Whether it takes no more.
    closed: AtomicBool,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The peer did not process it.
    Unseen,
    /// The connection ended before anything of the answer came.
    BrokeOff(h2::Error),
    /// Something else.
    Other(h2::Error),
}

/// A place among the requests of a connection.
struct Slot(Arc<Connection>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    /// Ends when the peer is silent though it owes answers.
    async fn watch(&self, ping: Option<PingPong>) {
        let Some(mut ping) = ping else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(PING).await;
            if self.open.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let answered = tokio::time::timeout(PING, ping.ping(Ping::opaque())).await;
            if !matches!(answered, Ok(Ok(_))) {
                return;
            }
        }
    }
}

impl Connection {
    /// Begins HTTP/2 on `stream`.
    ///
    /// # Errors
    /// h2's, when that cannot be.
    pub(crate) async fn begin(
        stream: Stream,
        max_head: usize,
        generation: Generation,
        tasks: &TaskTracker,
        cut: &CancellationToken,
    ) -> Result<Arc<Self>, h2::Error> {
        let (corked, cork) = Corked::new(stream);
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
            .initial_max_send_streams(FIRST_STREAMS)
            .enable_push(false)
            .handshake(corked)
            .await?;
        let ping = connection.ping_pong();
        let state = Arc::new(State::default());
        let driven = Arc::clone(&state);
        let cut = cut.clone();
        tasks.spawn(async move {
            tokio::select! {
                // What went wrong is told to whoever waits for an answer.
                _ = cork.drive(connection) => {}
                () = driven.watch(ping) => {}
                () = cut.cancelled() => {}
            }
            driven.closed.store(true, Ordering::Relaxed);
        });
        Ok(Arc::new(Self {
            sender: Mutex::new(sender),
            state,
            generation,
        }))
    }

    /// Takes no more requests.
    pub(crate) fn close(&self) {
        self.state.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
    }

    fn sender(&self) -> MutexGuard<'_, SendRequest<Bytes>> {
        // What a panic leaves of it is still h2's to judge.
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another request would not have to wait.
    pub(crate) fn has_room(&self) -> bool {
        self.open() < self.sender().current_max_send_streams()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Outgoing>,
        idle: Option<Duration>,
        tasks: &TaskTracker,
    ) -> Result<Response<Body>, Failed> {
        let (parts, body) = request.into_parts();
        let ends = body.is_end_stream();
        self.state.open.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(Arc::clone(self));
        let sent = self
            .sender()
            .send_request(Request::from_parts(parts, ()), ends);
        let (response, stream) = match sent {
            Ok(sent) => sent,
            Err(_) => {
                self.close();
                return Err(Failed::Unseen);
            }
        };
        if !ends {
            send_body(stream, body, tasks);
        }
        let (parts, mut incoming) = response.await.map_err(judge)?.into_parts();
        let mut prefix = Prefix::default();
        let mut cx = Context::from_waker(Waker::noop());
        while !incoming.is_end_stream() {
            match poll_frame(&mut incoming, &mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if !prefix.push(frame) || prefix.is_ended() {
                        break;
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    prefix.fail(BodyError::Broken);
                    return Ok(Response::from_parts(parts, Body::whole(prefix)));
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        let body = if prefix.is_ended() || incoming.is_end_stream() {
            Body::whole(prefix)
        } else {
            let rest = Streaming {
                incoming,
                patience: Patience::new(idle),
                ended: false,
                _slot: slot,
            };
            Body::streaming_h2(prefix, Box::new(rest))
        };
        Ok(Response::from_parts(parts, body))
    }
}

fn judge(error: h2::Error) -> Failed {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // Only streams that the peer has not begun end by its farewell.
    if error.is_remote() && (refused || error.is_go_away()) {
        return Failed::Unseen;
    }
    if error.is_io() {
        Failed::BrokeOff(error)
    } else {
        Failed::Other(error)
    }
}

/// Sends a body: at once where it is in memory, which h2 then keeps until there is room for it, else in a task.
fn send_body(mut stream: SendStream<Bytes>, body: Outgoing, tasks: &TaskTracker) {
    match body {
        Outgoing::Whole(data, trailers) => {
            // A stream that takes nothing more says so by the answer.
            let data = data.unwrap_or_default();
            let _ = stream.send_data(data, trailers.is_none());
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(*trailers);
            }
        }
        body @ Outgoing::Lent(_) => {
            tasks.spawn(pump(stream, body));
        }
    }
}

/// Sends a body as fast as it comes and the peer takes it. Ends with the stream, which ends with its answer.
async fn pump(mut stream: SendStream<Bytes>, mut body: Outgoing) {
    loop {
        let next = std::future::poll_fn(|cx| {
            // An answer that does not wait for the body may end the stream.
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let frame = match next.await {
            None => return,
            Some(None) => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            Some(Some(Err(_))) => {
                stream.send_reset(Reason::CANCEL);
                return;
            }
            Some(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(mut data) => {
                while !data.is_empty() {
                    stream.reserve_capacity(data.len());
                    let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await
                    else {
                        return;
                    };
                    let part = data.split_to(room.min(data.len()));
                    if stream.send_data(part, false).is_err() {
                        return;
                    }
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = stream.send_trailers(trailers);
                }
                return;
            }
        }
    }
}

/// The next part of an answer's body; room for as much more is given at once.
fn poll_frame(
    incoming: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    match ready!(incoming.poll_data(cx)) {
        Some(Ok(data)) => {
            // An error comes with the next part.
            let _ = incoming.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        Some(Err(error)) => Poll::Ready(Some(Err(error))),
        None => Poll::Ready(match ready!(incoming.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|t| Ok(Frame::trailers(t))),
            Err(error) => Some(Err(error)),
        }),
    }
}

/// The rest of an answer's body.
pub(crate) struct Streaming {
    incoming: RecvStream,
    patience: Patience,
    ended: bool,
    _slot: Slot,
}

impl Streaming {
    /// The next part.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match poll_frame(&mut self.incoming, cx) {
            Poll::Ready(frame) => {
                self.patience.renew();
                self.ended = match &frame {
                    Some(Ok(frame)) => frame.is_trailers(),
                    Some(Err(_)) | None => true,
                };
                Poll::Ready(frame.map(|f| f.map_err(|_| BodyError::Broken)))
            }
            Poll::Pending => {
                ready!(self.patience.poll_over(cx));
                self.ended = true;
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }

    /// Whether everything was read.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }
}
