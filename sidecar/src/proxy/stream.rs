//! A connection below HTTP: plain on loopback, TLS between sidecars; and its writes must go on.
//!
//! One type for both, so that what stands above is compiled once; which of the two it is costs a branch.

use super::frames::Patience;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection below HTTP.
#[derive(Debug)]
pub(crate) struct Stream {
    below: Below,
    /// Runs while the other side takes nothing.
    patience: Patience,
}

#[derive(Debug)]
enum Below {
    Plain(TcpStream),
    /// Boxed: rustls keeps a kilobyte in it.
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! either {
    ($self:expr, $inner:ident => $call:expr) => {
        match &mut $self.below {
            Below::Plain($inner) => $call,
            Below::Tls($inner) => $call,
        }
    };
}

impl Stream {
    /// A connection to or from the program, whose other side may take nothing for at most `longest`.
    pub(crate) fn plain(stream: TcpStream, longest: Option<Duration>) -> Self {
        Self {
            below: Below::Plain(stream),
            patience: Patience::new(longest),
        }
    }

    /// A connection to or from a peer.
    pub(crate) fn tls(stream: impl Into<TlsStream<TcpStream>>, longest: Option<Duration>) -> Self {
        Self {
            below: Below::Tls(Box::new(stream.into())),
            patience: Patience::new(longest),
        }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.patience.renew();
            return poll;
        }
        match self.patience.poll_over(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = either!(self, inner => Pin::new(inner).poll_write(cx, bytes));
        self.watch(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = either!(self, inner => Pin::new(inner).poll_write_vectored(cx, slices));
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.below {
            Below::Plain(inner) => inner.is_write_vectored(),
            Below::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = either!(self, inner => Pin::new(inner).poll_flush(cx));
        self.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = either!(self, inner => Pin::new(inner).poll_shutdown(cx));
        self.watch(cx, poll)
    }
}
