//! A connection of HTTP/2 whose writes are gathered until its task has nothing more to say.
//!
//! h2 writes, and flushes, once for each frame that is not small: with TLS below that is a record and a system call
//! for each answer. Here what it writes is gathered, and leaves when the connection's task has polled to the end: the
//! frames of all streams that were ready in one turn leave together.

use super::stream::Stream;
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered before they leave all the same: two records of TLS.
const GATHERED: usize = 32 * 1024;
/// Room that is kept between turns; what a burst needed beyond goes back.
const ROOM: usize = 16 * 1024;

/// Whether what is gathered is to leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// A flush is only noted.
    holding: AtomicBool,
    /// One was noted.
    noted: AtomicBool,
}

/// A connection whose writes are gathered.
#[derive(Debug)]
pub(crate) struct Corked {
    inner: Stream,
    gathered: BytesMut,
    switch: Switch,
    /// Whether anything was read: a handshake flushes once, and that must be one.
    begun: bool,
}

impl Corked {
    /// The connection, and what its task drives it with.
    pub(crate) fn new(inner: Stream) -> (Self, Switch) {
        let switch = Switch::default();
        let corked = Self {
            inner,
            gathered: BytesMut::new(),
            switch: switch.clone(),
            begun: false,
        };
        (corked, switch)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        if self.gathered.capacity() > ROOM {
            self.gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Switch {
    /// Polls `connection`; then what was gathered leaves.
    pub(crate) fn poll<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.0.holding.store(true, Ordering::Relaxed);
        let polled = connection.as_mut().poll(cx);
        self.0.holding.store(false, Ordering::Relaxed);
        if polled.is_ready() || !self.0.noted.swap(false, Ordering::Relaxed) {
            return polled;
        }
        // Now the flush, with which every poll ends, is one.
        connection.poll(cx)
    }

    /// Polls `connection` to its end.
    pub(crate) async fn drive<F: Future>(&self, connection: F) -> F::Output {
        tokio::pin!(connection);
        std::future::poll_fn(|cx| self.poll(connection.as_mut(), cx)).await
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        this.begun |= polled.is_ready();
        polled
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        self.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.begun && self.switch.0.holding.load(Ordering::Relaxed) {
            if !self.gathered.is_empty() {
                self.switch.0.noted.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
