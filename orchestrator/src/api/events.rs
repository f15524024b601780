//! `GET /task/{id}/events`: what has happened to the task, then what happens, until it ends.
//!
//! Server-sent events, each in the form of `ai.events`. A follower reads the run's own log from
//! where it left off, so it misses nothing however slow it is, and costs the run nothing.

use super::failure::Failure;
use super::tasks::{Found, TaskPath, find};
use super::{Api, Caller, elsewhere};
use crate::run::shown::RunHandle;
use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use mesh_protocol::event::Event;
use prometheus::IntGauge;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

/// Follows a task.
pub async fn follow(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    TaskPath(id): TaskPath,
) -> Result<Response, Failure> {
    let found = find(&api.executor, &caller, &id).await?;
    let follower = Follower::new(&api)?;
    let events = match found {
        Found::Live(handle) => live(handle, follower).left_stream(),
        Found::Stored(run) => elsewhere::events(Arc::clone(&api), *run)
            .map(move |event| {
                // Held until the last event is out.
                let _held = &follower;
                sse(&event)
            })
            .right_stream(),
    };
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// One who follows events, as long as it lives.
pub(super) struct Follower {
    _place: Place,
    /// Cancelled when the API stops.
    pub(super) stopping: CancellationToken,
}

impl Follower {
    /// A place among the followers.
    ///
    /// # Errors
    /// 503: there is none.
    pub(super) fn new(api: &Api) -> Result<Self, Failure> {
        let place = Arc::clone(&api.followers)
            .try_acquire_owned()
            .map_err(|_| Failure::unavailable("as many clients as allowed follow tasks"))?;
        Ok(Self {
            _place: Place::new(place, api.metrics.sse_clients.clone()),
            stopping: api.stopping.clone(),
        })
    }
}

/// A place among the followers; leaves the gauge when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, gauge: IntGauge) -> Self {
        gauge.inc();
        Self {
            _permit: permit,
            gauge,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

struct Live {
    handle: Arc<RunHandle>,
    versions: watch::Receiver<u64>,
    read: usize,
    ended: bool,
    follower: Follower,
}

fn live(
    handle: Arc<RunHandle>,
    follower: Follower,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let start = Live {
        versions: handle.versions(),
        handle,
        read: 0,
        ended: false,
        follower,
    };
    stream::unfold(start, |mut live| async move {
        loop {
            if live.ended {
                return None;
            }
            live.versions.mark_unchanged();
            let (events, ended) = live.handle.events_from(live.read);
            live.ended = ended;
            if !events.is_empty() {
                live.read += events.len();
                return Some((stream::iter(events), live));
            }
            tokio::select! {
                changed = live.versions.changed() => changed.ok()?,
                () = live.follower.stopping.cancelled() => return None,
            }
        }
    })
    .flatten()
    .map(|event| sse(&event))
}

fn sse(event: &Event) -> Result<SseEvent, Infallible> {
    let data = serde_json::to_string(event).unwrap_or_default();
    Ok(SseEvent::default()
        .event(event.event_type.as_str())
        .id(event.id())
        .data(data))
}
