//! WebSocket: two connections of HTTP/1.1 that become something else, joined.

use super::stream::Stream;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Version};
use std::any::Any;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Bytes that are copied at a time, each way.
const BUFFER: usize = 16 * 1024;

/// A connection that is no longer HTTP, and what of it was read already.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) stream: Stream,
    pub(crate) read: Bytes,
}

/// The far end of a tunnel, which waits for the near one.
pub(crate) struct Tunnel {
    far: End,
    /// Longest silence of both sides; none for ever.
    longest: Option<Duration>,
    /// What counts the request as under way.
    _held: Box<dyn Any + Send>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// Whether a request asks for a WebSocket. What else `Upgrade` may name is left out, as every header of one hop is.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    headers.contains_key(UPGRADE)
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names(headers, &UPGRADE, "websocket")
        && names(headers, &CONNECTION, "upgrade")
}

fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(header).iter();
    let mut words = values.flat_map(|v| v.as_bytes().split(|b| *b == b','));
    words.any(|w| w.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Writes what asks for a WebSocket, or says that it is one.
pub(crate) fn set(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

impl Tunnel {
    /// A tunnel to `far`; `held` is dropped when it ends.
    pub(crate) fn new(far: End, longest: Option<Duration>, held: Box<dyn Any + Send>) -> Self {
        Self {
            far,
            longest,
            _held: held,
        }
    }

    /// Carries bytes both ways until one side ends, or both are silent for too long.
    pub(crate) async fn run(self, near: End) {
        let (near_in, near_out) = tokio::io::split(near.stream);
        let (far_in, far_out) = tokio::io::split(self.far.stream);
        let last = Last(Mutex::new(Instant::now()));
        let silence = async {
            let Some(longest) = self.longest else {
                return std::future::pending().await;
            };
            loop {
                let end = last.get() + longest;
                if end <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(end).await;
            }
        };
        let both = async {
            let up = copy(near.read, near_in, far_out, &last);
            let down = copy(self.far.read, far_in, near_out, &last);
            tokio::join!(up, down);
        };
        tokio::select! {
            () = both => {}
            () = silence => {}
        }
    }
}

/// When anything passed.
struct Last(Mutex<Instant>);

impl Last {
    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Copies until the end or an error, which the other side then learns as an end.
async fn copy(
    read: Bytes,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: &Last,
) {
    let mut buffer = Vec::from(read);
    let mut filled = buffer.len();
    buffer.resize(BUFFER.max(filled), 0);
    loop {
        let part = buffer.get(..filled).unwrap_or_default();
        if !part.is_empty() && (to.write_all(part).await.is_err() || to.flush().await.is_err()) {
            break;
        }
        last.is_now();
        match from.read(&mut buffer).await {
            Ok(read @ 1..) => filled = read,
            Ok(0) | Err(_) => break,
        }
    }
    // The other side may have gone already.
    let _ = to.shutdown().await;
}
