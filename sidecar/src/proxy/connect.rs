//! Connections to one target, of one thread: from what is free, or new ones.

use super::pool::Idle;
use super::stream::Stream;
use super::{h1, h2};
use crate::config::{ServiceName, Settings};
use crate::identity::{Alpn, HandshakeError, Identity, Tls};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Requests on one connection of HTTP/2 from which on another one is opened: a lost segment stops them all.
const SHARE: usize = 100;
/// Most connections of HTTP/2 of one thread to one target.
const MOST: usize = 8;
/// How long a peer's connection may be free: half of what its sidecar allows by default.
const PEER_IDLE: Duration = Duration::from_secs(15);
/// The same for a program: servers close after 5 seconds (uvicorn, Node.js), and must not come first.
const APP_IDLE: Duration = Duration::from_secs(4);

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
    /// The system refuses.
    #[error("no connection: {0}")]
    Io(String),
    /// The other side is not who it should be, or refuses us.
    #[error("no handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// There is no certificate yet.
    #[error("no certificate yet")]
    NoIdentity,
    /// It does not speak what it should.
    #[error("no HTTP: {0}")]
    Protocol(String),
}

/// The certificate with which a connection was made; equal when it is the same one.
#[derive(Clone)]
pub(crate) struct Generation(Option<Arc<Tls>>);

impl PartialEq for Generation {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// How a target is reached.
pub(crate) enum Security {
    /// The program on loopback.
    Plain,
    /// A peer.
    Mutual {
        /// Who we are.
        identity: Identity,
        /// Who must answer.
        service: ServiceName,
    },
}

/// What a thread's connections have in common.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// Keeps account of tasks.
    pub(crate) tasks: TaskTracker,
    /// Ends them at once.
    pub(crate) cut: CancellationToken,
}

/// A target of one thread.
pub(crate) struct Target {
    address: SocketAddr,
    security: Security,
    connect_timeout: Duration,
    /// How long the other side may take nothing.
    write_timeout: Option<Duration>,
    max_head: usize,
    ground: Ground,
    idle: Arc<Idle>,
    shared: Mutex<Connections>,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<h2::Connection>, ConnectError>>>;

#[derive(Default)]
struct Connections {
    open: Vec<Arc<h2::Connection>>,
    opening: Option<Opening>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Target {
    pub(crate) fn new(
        address: SocketAddr,
        security: Security,
        settings: &Settings,
        max_head: usize,
        ground: Ground,
    ) -> Self {
        let longest = match security {
            Security::Plain => APP_IDLE,
            Security::Mutual { .. } => PEER_IDLE,
        };
        Self {
            address,
            security,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            write_timeout: super::idle(settings),
            max_head,
            ground,
            idle: Arc::new(Idle::new(longest)),
            shared: Mutex::default(),
        }
    }

    /// Where free connections go.
    pub(crate) fn idle(&self) -> &Arc<Idle> {
        &self.idle
    }

    /// What its connections have in common.
    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    fn present(&self) -> Option<Generation> {
        match &self.security {
            Security::Plain => Some(Generation(None)),
            Security::Mutual { identity, .. } => identity.tls().map(|tls| Generation(Some(tls))),
        }
    }

    /// The present certificate; the first one is waited for.
    async fn generation(&self) -> Result<Generation, ConnectError> {
        match (self.present(), &self.security) {
            (Some(generation), _) => Ok(generation),
            (None, Security::Plain) => Err(ConnectError::NoIdentity),
            (None, Security::Mutual { identity, .. }) => {
                let first = tokio::time::timeout(self.connect_timeout, identity.first());
                Box::pin(first)
                    .await
                    .map(|tls| Generation(Some(tls)))
                    .map_err(|_| ConnectError::NoIdentity)
            }
        }
    }

    /// A connection of HTTP/1.1: a free one, unless `fresh`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(crate) async fn h1(&self, fresh: bool) -> Result<Box<h1::Connection>, ConnectError> {
        let generation = self.generation().await?;
        if !fresh && let Some(free) = self.idle.take(&generation) {
            return Ok(free);
        }
        // Boxed: a handshake is large, and this future is part of every request's.
        Box::pin(self.new_h1(generation)).await
    }

    async fn new_h1(&self, generation: Generation) -> Result<Box<h1::Connection>, ConnectError> {
        let connect = async {
            let stream = self.stream(&generation, Alpn::Http1).await?;
            h1::Connection::begin(stream, self.max_head, generation.clone())
                .await
                .map_err(|e| ConnectError::Protocol(e.to_string()))
        };
        tokio::time::timeout(self.connect_timeout, connect)
            .await
            .unwrap_or(Err(ConnectError::Timeout))
    }

    async fn stream(&self, generation: &Generation, alpn: Alpn) -> Result<Stream, ConnectError> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|e| ConnectError::Io(e.to_string()))?;
        // Without it small requests wait for an acknowledgement; with an error they only wait.
        let _ = stream.set_nodelay(true);
        match (&self.security, &generation.0) {
            (Security::Mutual { service, .. }, Some(tls)) => {
                let limit = self.connect_timeout;
                let connected = tls.connect_within(stream, service, alpn, limit).await?;
                if connected.h2 != (alpn == Alpn::H2) {
                    let spoken = "peer does not speak what was asked for";
                    return Err(ConnectError::Protocol(spoken.to_owned()));
                }
                Ok(Stream::tls(connected.stream, self.write_timeout))
            }
            (Security::Mutual { .. }, None) => Err(ConnectError::NoIdentity),
            (Security::Plain, _) => Ok(Stream::plain(stream, self.write_timeout)),
        }
    }

    // A list of connections is whole whatever happened to the last holder.
    fn shared(&self) -> MutexGuard<'_, Connections> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of HTTP/2 with room for a request.
    ///
    /// While a connection of the present certificate is opened, one of the last serves on.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(crate) async fn h2(self: &Arc<Self>) -> Result<Arc<h2::Connection>, ConnectError> {
        let generation = self.generation().await?;
        let opening = {
            let mut shared = self.shared();
            shared.open.retain(|connection| !connection.is_closed());
            let best = shared
                .open
                .iter()
                .min_by_key(|c| (c.generation != generation, c.open()))
                .cloned();
            let usable = match &best {
                Some(best) if best.generation == generation => {
                    if best.open() < SHARE {
                        return Ok(Arc::clone(best));
                    }
                    best.has_room()
                }
                Some(_) => true,
                None => false,
            };
            let full = shared.open.len() >= MOST;
            match best {
                // Beyond that they wait for each other.
                Some(best) if full && best.generation == generation => return Ok(best),
                best => {
                    let opening = shared
                        .opening
                        .get_or_insert_with(|| self.open(generation))
                        .clone();
                    match best {
                        Some(best) if usable => return Ok(best),
                        _ => opening,
                    }
                }
            }
        };
        opening.await
    }

    fn open(self: &Arc<Self>, generation: Generation) -> Opening {
        let target = Arc::clone(self);
        let connect = async move {
            let begun = async {
                let stream = target.stream(&generation, Alpn::H2).await?;
                let Ground { tasks, cut } = &target.ground;
                h2::Connection::begin(stream, target.max_head, generation.clone(), tasks, cut)
                    .await
                    .map_err(|e| ConnectError::Protocol(e.to_string()))
            };
            let begun = tokio::time::timeout(target.connect_timeout, begun)
                .await
                .unwrap_or(Err(ConnectError::Timeout));
            let mut shared = target.shared();
            shared.opening = None;
            if let Ok(connection) = &begun {
                shared.open.push(Arc::clone(connection));
            }
            drop(shared);
            begun
        };
        let opening = connect.boxed().shared();
        // Whoever began it may lose interest; the others wait on.
        self.ground.tasks.spawn(opening.clone());
        opening
    }

    /// Closes what has been free for too long or is of an older certificate; how many connections are left.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let Some(generation) = self.present() else {
            return 0;
        };
        let mut shared = self.shared();
        // One that is let go of here ends when its last answer has.
        shared.open.retain(|connection| {
            !connection.is_closed()
                && (connection.generation == generation || connection.open() > 0)
        });
        let open = shared.open.len();
        drop(shared);
        open + self.idle.sweep(now, &generation)
    }

    /// Takes no more requests: lets go of all connections, which end with their last answer.
    pub(crate) fn retire(&self) {
        self.shared().open.clear();
        self.idle.clear();
    }
}
