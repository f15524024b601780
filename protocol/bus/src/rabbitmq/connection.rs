//! One connection at a time, replaced when it is lost.

use super::trunk::{self, Trunk};
use super::{HEARD, LEAVE, PATIENCE, buried, declare, fault, publish::Lanes, screen};
use crate::{BrokerUrl, BusError, Topology};
use backon::BackoffBuilder;
use futures_util::{Stream, StreamExt};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Event};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection that says nothing for twice this long is given up, in seconds.
const HEARTBEAT_S: u16 = 10;
/// Largest frame, in bytes, unless the URL says another. The client library keeps room for 64 of them, so
/// the usual 128 KiB would be half of a sidecar's memory. Headers must fit into one: ours do, others'
/// that do not are left out. Bodies are cut into as many as they need.
const FRAME_MAX: u32 = 32 * 1024;
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Pauses between attempts: short at first, since a forced close is over at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// A connection that lasted less counts as a failed attempt: something on it may break every one.
const SETTLED: Duration = Duration::from_secs(5);

/// What publishers, consumers and the task that keeps the connection share.
pub(super) struct Link {
    uri: AMQPUri,
    state: watch::Sender<State>,
    connected: watch::Sender<bool>,
    declared: Mutex<Vec<Topology>>,
    /// When everything was last declared anew since something of it was missed.
    mended: tokio::sync::Mutex<Option<Instant>>,
    suspect: Notify,
    pub(super) closed: CancellationToken,
}

#[derive(Clone)]
enum State {
    Up(Arc<Session>),
    Down { detail: String, refused: bool },
}

/// One connection, from its handshake to its loss.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) trunk: Trunk,
    pub(super) lanes: Lanes,
}

impl Session {
    pub(super) fn usable(&self) -> bool {
        self.connection.status().connected()
    }

    /// The largest content header that the broker takes on this connection, in bytes.
    pub(super) fn room(&self) -> usize {
        buried::room(self.connection.configuration().frame_max())
    }

    /// Before trying again what failed: on a lost connection the next one is waited for anyway.
    pub(super) async fn pause(&self, pauses: &mut impl Iterator<Item = Duration>) {
        if self.usable() {
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }
}

impl Link {
    pub(super) fn new(url: &BrokerUrl) -> Result<Self, BusError> {
        let mut uri: AMQPUri = url.expose().parse().map_err(|_| BusError::Refused {
            detail: format!("{url} is no AMQP URL"),
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        Ok(Self {
            uri,
            state: watch::Sender::new(State::Down {
                detail: "not connected yet".to_owned(),
                refused: false,
            }),
            connected: watch::Sender::new(false),
            declared: Mutex::new(Vec::new()),
            mended: tokio::sync::Mutex::default(),
            suspect: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// The connection, waiting for one until `deadline`.
    pub(super) async fn session(&self, deadline: Instant) -> Result<Arc<Session>, BusError> {
        tokio::time::timeout_at(deadline, self.next_session())
            .await
            .unwrap_or_else(|_| Err(self.why_down()))
    }

    /// The connection, if there is one now.
    pub(super) fn current_session(&self) -> Option<Arc<Session>> {
        match &*self.state.borrow() {
            State::Up(session) if session.usable() && !self.closed.is_cancelled() => {
                Some(session.clone())
            }
            _ => None,
        }
    }

    /// The connection, however long it takes.
    pub(super) async fn next_session(&self) -> Result<Arc<Session>, BusError> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        if let Some(session) = self.current_session() {
            return Ok(session);
        }
        self.suspect.notify_one();
        let mut state = self.state.subscribe();
        let up = state.wait_for(|state| matches!(state, State::Up(session) if session.usable()));
        match self.closed.run_until_cancelled(up).await {
            Some(Ok(state)) => match &*state {
                State::Up(session) => Ok(session.clone()),
                State::Down { .. } => Err(closed()),
            },
            _ => Err(closed()),
        }
    }

    /// What a caller hears whose patience ended.
    pub(super) fn why_down(&self) -> BusError {
        match &*self.state.borrow() {
            State::Up(_) => BusError::Unavailable {
                detail: "the broker did not answer in time".to_owned(),
            },
            State::Down { detail, refused } => {
                let detail = detail.clone();
                if *refused {
                    BusError::Refused { detail }
                } else {
                    BusError::Unavailable { detail }
                }
            }
        }
    }

    /// Keeps `topology` for brokers that come back without it.
    pub(super) fn remember(&self, topology: &Topology) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        if !declared.contains(topology) {
            declared.push(topology.clone());
        }
    }

    /// Whether `queue` was declared with a place for dead letters.
    pub(super) fn buries(&self, queue: &str) -> bool {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queues = declared.iter().flat_map(|topology| &topology.queues);
        queues.any(|known| known.name == queue && known.dead_letters)
    }

    /// Whether what is published so should find something that was declared here.
    pub(super) fn expects(&self, exchange: &str, key: &str) -> bool {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.iter().any(|topology| {
            if exchange.is_empty() {
                return topology.queues.iter().any(|queue| queue.name == key)
                    || topology.delays.iter().any(|queue| queue.name == key);
            }
            topology
                .exchanges
                .iter()
                .any(|known| known.name == exchange)
        })
    }

    /// Declares everything anew, since something of it was missed by what was begun at `begun`: once for all who miss
    /// it at the same time.
    pub(super) async fn mend(&self, session: &Session, begun: Instant) {
        let mut mended = self.mended.lock().await;
        if mended.is_none_or(|last| last < begun) {
            tokio::time::sleep(HEARD).await;
            *mended = Some(Instant::now());
            self.restore(session).await;
        }
    }

    /// What was declared of which `queue` is a part.
    pub(super) fn around(&self, queue: &str) -> Vec<Topology> {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |topology: &&Topology| topology.queues.iter().any(|known| known.name == queue);
        declared.iter().filter(of).cloned().collect()
    }

    /// Declares on `session` whatever was declared before.
    pub(super) async fn restore(&self, session: &Session) {
        let declared = self
            .declared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for topology in &declared {
            // A broker that is recovering may leave a question unanswered, and keep the connection all the same.
            let restored = tokio::time::timeout(PATIENCE, declare::on(session, topology)).await;
            let late = || BusError::Unavailable {
                detail: "declaring: no answer in time".to_owned(),
            };
            if let Err(error) = restored.unwrap_or_else(|_| Err(late())) {
                tracing::error!(%error, "the topology could not be restored");
            }
        }
    }

    /// The first attempt, made by the caller, so that wrong credentials are heard of at start.
    pub(super) async fn first_connection(&self) -> Result<Option<Connection>, BusError> {
        match self.open().await {
            Ok(connection) => Ok(Some(connection)),
            Err(refused @ BusError::Refused { .. }) => Err(refused),
            Err(error) => {
                tracing::warn!(%error, "waiting for the broker");
                self.down(&error);
                Ok(None)
            }
        }
    }

    async fn open(&self) -> Result<Connection, BusError> {
        let name = format!("mesh-{}", std::process::id());
        let options = ConnectionProperties::default().with_connection_name(name.into());
        match tokio::time::timeout(CONNECT, screen::connect(self.uri.clone(), options)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(fault::of("connecting", &error)),
            Err(_) => Err(BusError::Unavailable {
                detail: "connecting: no answer in time".to_owned(),
            }),
        }
    }

    fn down(&self, error: &BusError) {
        let refused = matches!(error, BusError::Refused { .. });
        let detail = match error {
            BusError::Refused { detail } | BusError::Unavailable { detail } => detail.clone(),
            other => other.to_string(),
        };
        self.state.send_replace(State::Down { detail, refused });
        self.connected.send_replace(false);
    }

    /// Keeps the connection until the bus is closed.
    pub(super) async fn run(self: Arc<Self>, mut first: Option<Connection>) {
        let mut pauses = pauses();
        loop {
            let connection = match first.take() {
                Some(connection) => Some(connection),
                None => {
                    self.closed
                        .run_until_cancelled(self.reconnect(&mut pauses))
                        .await
                }
            };
            let Some(connection) = connection else { break };
            let begun = Instant::now();
            let mut events = Box::pin(connection.events_listener());
            let (trunk, line) = trunk::lay();
            let session = Arc::new(Session {
                connection,
                trunk,
                lanes: Lanes::default(),
            });
            self.restore(&session).await;
            if session.usable() {
                tracing::info!("connected to the broker");
                self.state.send_replace(State::Up(session.clone()));
                self.connected.send_replace(true);
            }
            let lost = async {
                tokio::select! {
                    detail = self.watch(&session, &mut events) => detail,
                    // Ends with the last publisher, and the session here is one.
                    () = trunk::carry(&session.connection, line) => "left alone".to_owned(),
                }
            };
            match self.closed.run_until_cancelled(lost).await {
                Some(detail) => {
                    tracing::warn!(detail, "lost the broker");
                    self.down(&BusError::Unavailable { detail });
                    if begun.elapsed() >= SETTLED {
                        pauses = self::pauses();
                    } else {
                        let pause = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE));
                        self.closed.run_until_cancelled(pause).await;
                    }
                }
                None => {
                    self.down(&closed());
                    let bye = session.connection.close(200, "leaving".into());
                    if let Ok(Err(error)) = tokio::time::timeout(LEAVE, bye).await {
                        tracing::debug!(%error, "left the broker");
                    }
                    break;
                }
            }
        }
        self.down(&closed());
    }

    async fn reconnect(&self, pauses: &mut impl Iterator<Item = Duration>) -> Connection {
        loop {
            match self.open().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, "waiting for the broker");
                    self.down(&error);
                }
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// Returns why, once `session` is lost.
    async fn watch(
        &self,
        session: &Session,
        events: &mut (impl Stream<Item = Event> + Unpin),
    ) -> String {
        let mut detail = "connection lost".to_owned();
        while session.usable() {
            tokio::select! {
                event = events.next() => match event {
                    // Errors of single channels arrive here too.
                    Some(Event::Error(error)) => detail = fault::text(&error),
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "the broker blocks publishers");
                    }
                    Some(_) => {}
                    None => break,
                },
                () = self.suspect.notified() => {}
            }
        }
        detail
    }
}

/// Growing pauses, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> + use<> {
    backon::ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

fn closed() -> BusError {
    BusError::Unavailable {
        detail: "the bus was closed".to_owned(),
    }
}
