//! The ways in and out: HTTP over mTLS between sidecars, plain HTTP on loopback.
//!
//! ```text
//!  program ─HTTP─▶ Outbound: route ▸ service ▸ balance ▸ exchange ──mTLS──▶ Inbound: policy ▸ exchange ─HTTP─▶ program
//!                     │ serve (hyper)         │ connect: h1, h2, pool          │ serve          │ connect
//!                     └ screen                └ payload, body                  └ screen         └ payload, body
//! ```
//!
//! Tasks: one a connection of a client (on the thread that it was dealt to, ended by the drain), with HTTP/2 one a
//! request; one a connection of HTTP/2 to a peer, and one for each body that is still arriving when it is sent.

mod answer;
mod balance;
mod body;
mod breaker;
mod client;
mod connect;
mod cork;
mod drain;
mod exchange;
mod frames;
mod h1;
mod h2;
mod hygiene;
mod inbound;
mod listen;
mod metrics;
mod names;
mod outbound;
mod outlier;
mod payload;
mod pool;
mod retry;
mod route;
mod screen;
mod serve;
mod service;
mod span;
mod stream;
mod threads;
mod tunnel;
mod underway;
mod wakes;
mod window;

pub(crate) use metrics::Metrics;
pub use threads::runtime;

use answer::Fault;
use body::{Body, Held};
use client::Client;
use connect::{ConnectError, Ground};
use exchange::Missed;
use frames::BodyError;
use h1::Answer;
use http::{Response, StatusCode};
use hygiene::Asked;
use metrics::Direction;
use names::Names;
use payload::Payload;
use threads::Threads;
use tunnel::Tunnel;

use crate::SidecarError;
use crate::config::app::Place;
use crate::config::{self, ServiceName, Settings};
use crate::identity::Identity;
use crate::policy::Policy;
use crate::registry::{Announcement, Discovery, Registry};
use mesh_trace::Tracer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often connections that are free are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 4_096;

/// What both ways share.
#[derive(Clone)]
pub(crate) struct Mesh {
    /// Who this service is.
    pub(crate) identity: Identity,
    /// Begins spans.
    pub(crate) tracer: Tracer,
    /// How this service stands in the registry, where it has a way in.
    pub(crate) announcement: Option<Announcement>,
}

impl Mesh {
    /// Where this sidecar runs, where the registry knows.
    fn zone(&self) -> Option<Arc<str>> {
        self.announcement.as_ref().and_then(Announcement::zone)
    }
}

/// A way that is bound and serves nothing yet.
pub(crate) struct Bound<P> {
    listener: TcpListener,
    address: SocketAddr,
    proxy: Arc<P>,
    threads: Threads,
    grounds: Vec<Ground>,
}

/// The way in.
pub(crate) type Inbound = Bound<inbound::Inbound>;
/// The way out.
pub(crate) type Outbound = Bound<outbound::Outbound>;

fn listener(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SidecarError> {
    let listen = |source| SidecarError::Listen { address, source };
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }
    .map_err(listen)?;
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(address).map_err(listen)?;
    let listener = socket.listen(BACKLOG).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok((listener, address))
}

fn grounds(threads: &Threads) -> Vec<Ground> {
    let ground = || Ground {
        tasks: TaskTracker::new(),
        cut: CancellationToken::new(),
    };
    (0..threads.count()).map(|_| ground()).collect()
}

impl Inbound {
    /// Binds the way in.
    ///
    /// # Errors
    /// [`SidecarError`] when the address is taken or there can be no threads.
    pub(crate) fn bind(
        service: &ServiceName,
        config: &config::Inbound,
        app: &Place,
        policy: Arc<Policy>,
        mesh: Mesh,
        metrics: &Metrics,
        threads: u16,
    ) -> Result<Self, SidecarError> {
        let (listener, address) = listener(config.listen)?;
        let threads = Threads::start(threads).map_err(SidecarError::Threads)?;
        let grounds = grounds(&threads);
        let metrics = metrics.directed(Direction::Inbound);
        let proxy = inbound::Inbound::new(service, config, app, policy, mesh, metrics, &grounds);
        Ok(Self {
            listener,
            address,
            proxy: Arc::new(proxy),
            threads,
            grounds,
        })
    }

    /// Serves until `shutdown` is cancelled and what is under way has ended, at most `longest` after it.
    pub(crate) async fn run(self, shutdown: CancellationToken, longest: Duration) {
        let max = self.proxy.limits().max_connections;
        let (proxy, swept) = (Arc::clone(&self.proxy), Arc::clone(&self.proxy));
        self.serve(
            max,
            shutdown,
            longest,
            move |stream, address, thread, drain| {
                Arc::clone(&proxy).connection(stream, address, thread, drain)
            },
            move || swept.sweep(),
        )
        .await;
    }
}

impl Outbound {
    /// Binds the way out.
    ///
    /// # Errors
    /// [`SidecarError`] when the address is taken or there can be no threads.
    pub(crate) fn bind(
        config: &config::Outbound,
        registry: Arc<dyn Registry>,
        discovery: Discovery,
        mesh: Mesh,
        metrics: &Metrics,
        threads: u16,
    ) -> Result<Self, SidecarError> {
        let (listener, address) = listener(config.listen)?;
        let threads = Threads::start(threads).map_err(SidecarError::Threads)?;
        let grounds = grounds(&threads);
        let metrics = metrics.directed(Direction::Outbound);
        let names = Names::new(registry, discovery, config.known.clone());
        let proxy = outbound::Outbound::new(config.clone(), names, mesh, metrics, &grounds);
        Ok(Self {
            listener,
            address,
            proxy: Arc::new(proxy),
            threads,
            grounds,
        })
    }

    /// Serves until `shutdown` is cancelled and what is under way has ended, at most `longest` after it.
    pub(crate) async fn run(self, shutdown: CancellationToken, longest: Duration) {
        let max = self.proxy.limits().max_connections;
        let (proxy, swept) = (Arc::clone(&self.proxy), Arc::clone(&self.proxy));
        self.serve(
            max,
            shutdown,
            longest,
            move |stream, _, thread, drain| Arc::clone(&proxy).connection(stream, thread, drain),
            move || swept.sweep(),
        )
        .await;
    }
}

impl<P> Bound<P> {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn serve<F, C>(
        self,
        max_connections: usize,
        shutdown: CancellationToken,
        longest: Duration,
        connection: F,
        sweep: impl Fn(),
    ) where
        F: Fn(tokio::net::TcpStream, SocketAddr, usize, drain::Drain) -> C,
        C: Future<Output = ()> + Send + 'static,
    {
        let serving = listen::serve(
            self.listener,
            &self.threads,
            max_connections,
            &shutdown,
            longest,
            connection,
        );
        let sweeping = async {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweep();
            }
        };
        tokio::select! {
            () = serving => {}
            () = sweeping => {}
        }
        for ground in &self.grounds {
            ground.cut.cancel();
            ground.tasks.close();
        }
        for ground in &self.grounds {
            ground.tasks.wait().await;
        }
        self.threads.end().await;
    }
}

/// The time limit for the next piece of a body.
fn idle(settings: &Settings) -> Option<Duration> {
    (settings.idle_timeout_ms > 0).then(|| Duration::from_millis(settings.idle_timeout_ms))
}

/// Why a client's body was not taken.
fn of_client(error: BodyError) -> Fault {
    match error {
        BodyError::Timeout => Fault::RequestTimeout,
        BodyError::Broken | BodyError::Withdrawn => {
            Fault::BadRequest("the request's body broke off, or is no body".into())
        }
    }
}

/// Why a try brought no answer; where the client's side broke off, it is that.
fn of_missed(missed: Missed, payload: &Payload) -> Fault {
    if let Some(error) = payload.fault() {
        return of_client(error);
    }
    tracing::debug!(%missed, "request was not answered");
    match missed {
        Missed::Unconnected(ConnectError::NoIdentity) => Fault::NoIdentity,
        Missed::Unconnected(error) => Fault::BadGateway(error.to_string().into()),
        Missed::Unseen => Fault::BadGateway("the connection was closed".into()),
        Missed::BrokeOff(why) => {
            Fault::BadGateway(format!("the connection ended before the answer: {why}").into())
        }
        Missed::Failed(why) => Fault::BadGateway(format!("what came is no answer: {why}").into()),
        Missed::Late => Fault::GatewayTimeout,
    }
}

/// An answer on its way to the client: headers of one hop go, and `held` lives until its last byte has gone.
fn finish<H: Held + 'static>(
    answer: Answer,
    asked: Asked,
    client: &Client,
    idle: Option<Duration>,
    mut held: H,
) -> Result<Response<Body>, Fault> {
    match answer {
        Answer::Response(response) => {
            let (mut parts, mut body) = response.into_parts();
            hygiene::clean_response(&mut parts.headers);
            parts.version = http::Version::HTTP_11;
            held.answered(parts.status.as_u16());
            if body.is_streaming() {
                body = body.holding(Box::new(held));
            }
            Ok(Response::from_parts(parts, body))
        }
        Answer::Switched(response, end) if asked.websocket => {
            held.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
            let (mut parts, ()) = response.into_parts();
            hygiene::clean_response(&mut parts.headers);
            tunnel::set(&mut parts.headers);
            client.leave(Tunnel::new(end, idle, Box::new(held)));
            Ok(Response::from_parts(parts, Body::empty()))
        }
        Answer::Switched(..) => Err(Fault::BadGateway("what came is no answer".into())),
    }
}
