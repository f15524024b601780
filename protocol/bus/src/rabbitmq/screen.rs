//! The connection's stream, with every frame made legible before the client library reads it.
//!
//! ```text
//!   broker ──▶ TCP or TLS ──▶ Screen: whole frames of the kinds that legible.rs mends ──▶ library
//!                   ◀────────────────── passed on as it is ──────────────────────────────
//! ```
//!
//! Bodies, most of what comes, are passed on as they arrive; they are the library's to hand out, not
//! to read.

use super::{buried, legible};
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::{AMQPUriTcpExt, TLSConfig};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A frame's type, channel and length.
const BEFORE_PAYLOAD: usize = 7;
/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// Largest frame that is held until it is whole. Brokers have frames of 128 KiB, and an operator who
/// raises that has bodies in mind.
const MAX_HELD: usize = 16 * 1024 * 1024;

/// Connects as the library would by itself, but for the screen in between.
pub(super) async fn connect(
    uri: AMQPUri,
    options: ConnectionProperties,
) -> Result<Connection, lapin::Error> {
    let tokio = Tokio::current();
    // Known once the broker has said it, which is before the first delivery.
    let frame_max = Arc::new(AtomicU32::new(u32::MAX));
    let screened = Screened {
        tokio: tokio.clone(),
        frame_max: frame_max.clone(),
    };
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), screened));
    let dial = {
        let (plain, frame_max) = (Runtime::new(tokio), frame_max.clone());
        async move |uri: AMQPUri, _| {
            let tls = TLSConfig::default();
            let stream = uri.connect_with_config_async(tls, &plain).await?;
            Ok(AsyncTcpStream::Plain(Screen::new(
                stream,
                frame_max.clone(),
            )))
        }
    };
    let connection = Connection::connector(uri, runtime, dial, options).await?;
    frame_max.store(connection.configuration().frame_max(), Ordering::Relaxed);
    Ok(connection)
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

struct Screen {
    wire: Box<dyn Wire>,
    frame_max: Arc<AtomicU32>,
    chunk: Box<[u8]>,
    /// What came and was not read yet.
    bytes: Vec<u8>,
    /// How many of these are to be read as they are.
    clear: usize,
    /// How many more are to be, once they come: the rest of a body.
    passing: usize,
}

impl Screen {
    fn new(wire: impl Wire + 'static, frame_max: Arc<AtomicU32>) -> Self {
        Self {
            wire: Box::new(wire),
            frame_max,
            chunk: vec![0; CHUNK].into(),
            bytes: Vec::new(),
            clear: 0,
            passing: 0,
        }
    }

    /// Looks at what came, as far as it is whole.
    fn look(&mut self) -> io::Result<()> {
        let room = buried::room(self.frame_max.load(Ordering::Relaxed));
        loop {
            let passed = self.passing.min(self.bytes.len() - self.clear);
            self.clear += passed;
            self.passing -= passed;
            let Some(&[kind, _, _, a, b, c, d]) = self
                .bytes
                .get(self.clear..)
                .and_then(<[u8]>::first_chunk::<BEFORE_PAYLOAD>)
            else {
                return Ok(());
            };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if !legible::concerns(kind) {
                self.passing = BEFORE_PAYLOAD + length + 1;
                continue;
            }
            if length > MAX_HELD {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the broker sends a frame of {length} bytes"),
                ));
            }
            let start = self.clear + BEFORE_PAYLOAD;
            let Some(payload) = self.bytes.get_mut(start..start + length) else {
                return Ok(());
            };
            self.passing = BEFORE_PAYLOAD + length + 1;
            if let Some(mended) = legible::mend(kind, payload, room) {
                tracing::warn!(
                    bytes = length,
                    "a message came with headers that cannot stay"
                );
                self.passing = BEFORE_PAYLOAD + mended.len() + 1;
                let said = (mended.len() as u32).to_be_bytes();
                self.bytes.splice(start - said.len()..start, said);
                self.bytes.splice(start..start + length, mended);
            }
        }
    }
}

impl AsyncRead for Screen {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let screen = &mut *self;
        while screen.clear == 0 {
            let came = ready!(Pin::new(&mut screen.wire).poll_read(context, &mut screen.chunk))?;
            if came == 0 {
                return Poll::Ready(Ok(0));
            }
            screen.bytes.extend_from_slice(&screen.chunk[..came]);
            screen.look()?;
        }
        let length = screen.clear.min(into.len());
        into[..length].copy_from_slice(&screen.bytes[..length]);
        screen.bytes.drain(..length);
        screen.clear -= length;
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Screen {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_close(context)
    }
}

/// Tokio, as a reactor whose streams have a screen: the library takes no others.
#[derive(Debug, Clone)]
struct Screened {
    tokio: Tokio,
    frame_max: Arc<AtomicU32>,
}

impl Reactor for Screened {
    type TcpStream = Screen;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Screen>> + Send + 'static {
        let connecting = self.tokio.tcp_connect_addr(address);
        let frame_max = self.frame_max.clone();
        async move { Ok(Screen::new(connecting.await?, frame_max)) }
    }
}
