//! `GET /events`: every change of state that the caller may see, from a place in the log or from now on.
//!
//! Server-sent events in the form of `ai.events`. An id is a place in the log, whichever replica wrote it, so a
//! client that lost its connection goes on anywhere, from where it was (`Last-Event-ID`, or `?after=`, which also
//! takes `start`). What is no longer kept by then is said to be missing. Filters: `?task=`, `?type=`, each as often
//! as wanted.

use super::events::Follower;
use super::failure::Failure;
use super::tail::Next;
use super::tasks::store_failure;
use super::{Api, Caller, place::Place};
use crate::run::relay::gap;
use crate::store::{LogPart, Logged};
use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, Uri};
use mesh_protocol::TaskId;
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::problem::FieldError;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Changes read at once by a follower that is behind.
const PART: usize = 256;
/// Between two signs of life on a quiet stream; proxies give up on one after a minute or so.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Before the store is asked again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Most values of one filter.
const MAX_VALUES: usize = 64;

/// Which events a client wants.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    tasks: Vec<TaskId>,
    types: Vec<EventType>,
    after: Option<String>,
}

impl Wanted {
    fn wants(&self, event: &Event) -> bool {
        let task = event.task_id();
        (self.types.is_empty() || self.types.contains(&event.event_type))
            && (self.tasks.is_empty() || self.tasks.iter().any(|t| Some(t.as_str()) == task))
    }
}

/// Follows the log.
pub async fn follow(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let mut wanted = wanted(uri.query().unwrap_or_default()).map_err(Failure::fields)?;
    // One that cannot be read is no place, and said to be.
    let header = headers.get("last-event-id");
    let header = header.map(|v| v.to_str().unwrap_or_default().to_owned());
    let after = header.or_else(|| wanted.after.take());
    let follower = Follower::new(&api)?;
    let live = api
        .tail
        .follow()
        .await
        .map_err(|e| store_failure(&api.metrics, &e))?;
    let store = &api.executor.context().store;
    let now = store.log_after(Default::default(), 0).await;
    let now = now.map_err(|e| store_failure(&api.metrics, &e))?;
    let from_start = after.as_deref() == Some("start");
    let (place, told) = match after.as_deref() {
        None => (Place::at(&now.epoch, now.end), None),
        Some("start") => (Place::start(&now.epoch), None),
        // What is no place of this store leads nowhere: everything that is kept is told, and that more was.
        Some(text) => match text.parse::<Place>() {
            Ok(place) if place.epoch == now.epoch && place.position <= now.end => (place, None),
            _ => (Place::start(&now.epoch), Some(gap(0))),
        },
    };
    let from_start = from_start || told.is_some();
    // Says where the client is, before anything happens.
    let first = [Ok(SseEvent::default().id(place.to_string()))];
    let told = told.map(|gap| sse(&gap, None));
    let feed = Feed {
        api,
        caller,
        wanted,
        place,
        live,
        behind: true,
        from_start,
        follower,
    };
    let events = stream::iter(first)
        .chain(stream::iter(told))
        .chain(feed.run());
    Ok(Sse::new(events).into_response())
}

struct Feed {
    api: Arc<Api>,
    caller: Caller,
    wanted: Wanted,
    place: Place,
    live: Receiver<Next>,
    /// Whether the log has to be read from `place` on before what is live follows.
    behind: bool,
    /// Whether all that is kept is wanted, whatever came before.
    from_start: bool,
    follower: Follower,
}

type Sent = Result<SseEvent, Infallible>;

impl Feed {
    fn run(self) -> impl Stream<Item = Sent> {
        stream::unfold(self, |mut feed| async move {
            let stopping = feed.follower.stopping.clone();
            let next = stopping.run_until_cancelled(feed.next()).await??;
            Some((stream::iter(next), feed))
        })
        .flatten()
    }

    /// What is to be sent next; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Sent>> {
        let heartbeat = tokio::time::sleep(HEARTBEAT);
        tokio::pin!(heartbeat);
        loop {
            let sent = tokio::select! {
                sent = self.more() => sent?,
                () = &mut heartbeat => {
                    // With the place, since nothing that the client wanted may have happened for long.
                    let beat = SseEvent::default().id(self.place.to_string());
                    return Some(vec![Ok(beat.comment("still here"))]);
                }
            };
            if !sent.is_empty() {
                return Some(sent);
            }
        }
    }

    async fn more(&mut self) -> Option<Vec<Sent>> {
        if self.behind {
            return Some(self.catch_up().await);
        }
        match self.live.recv().await {
            Ok(Some(change)) if change.position > self.place.position => Some(self.show(&change)),
            Ok(Some(_)) => Some(Vec::new()),
            Ok(None) | Err(RecvError::Lagged(_)) => {
                self.behind = true;
                Some(Vec::new())
            }
            Err(RecvError::Closed) => None,
        }
    }

    async fn catch_up(&mut self) -> Vec<Sent> {
        let store = &self.api.executor.context().store;
        let read = store.log_after(self.place.before(), PART).await;
        let part: LogPart = match read {
            Ok(part) => part,
            Err(error) => {
                self.api.metrics.store_errors.inc();
                tracing::debug!(%error, "the log is not read, trying again");
                tokio::time::sleep(AGAIN).await;
                return Vec::new();
            }
        };
        if part.epoch != self.place.epoch {
            self.place = Place::start(&part.epoch);
            self.from_start = true;
            return vec![sse(&gap(0), None)];
        }
        self.behind = part.changes.len() >= PART;
        let mut sent = Vec::new();
        if part.missed > 0 && !self.from_start {
            sent.push(sse(&gap(part.missed), None));
        }
        self.from_start = false;
        for change in &part.changes {
            sent.extend(self.show(change));
        }
        sent
    }

    /// The events of a change that the client may see and has not seen.
    fn show(&mut self, change: &Logged) -> Vec<Sent> {
        let seen = self.place.seen_of(change.position);
        self.place = Place::at(&self.place.epoch, change.position);
        if !self.caller.may_read(change.owner.as_ref()) {
            return Vec::new();
        }
        let last = change.events.len();
        let places = (1..=last).map(|nth| self.place.within(nth, last));
        let events = change.events.iter().zip(places).skip(seen);
        events
            .filter(|(event, _)| self.wanted.wants(event))
            .map(|(event, place)| sse(event, Some(&place)))
            .collect()
    }
}

fn sse(event: &Event, place: Option<&Place>) -> Sent {
    let data = serde_json::to_string(event).unwrap_or_default();
    let sent = SseEvent::default().event(event.event_type.as_str());
    let sent = match place {
        Some(place) => sent.id(place.to_string()),
        None => sent,
    };
    Ok(sent.data(data))
}

fn wanted(query: &str) -> Result<Wanted, Vec<FieldError>> {
    let mut wanted = Wanted::default();
    let mut faults = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "task" => match value.parse() {
                Ok(task) => wanted.tasks.push(task),
                Err(error) => faults.push(FieldError::new("task", "invalid", error.to_string())),
            },
            "type" => match EventType::parse(&value) {
                Some(kind) => wanted.types.push(kind),
                None => {
                    let known = EventType::ALL.map(EventType::as_str).join(", ");
                    let detail = format!("type must be one of {known}");
                    faults.push(FieldError::new("type", "invalid", detail));
                }
            },
            "after" => wanted.after = Some(value.into_owned()),
            _ => {}
        }
        if wanted.tasks.len() > MAX_VALUES || wanted.types.len() > MAX_VALUES {
            let detail = format!("at most {MAX_VALUES} values are taken");
            faults.push(FieldError::new(name, "too_many", detail));
            break;
        }
    }
    if faults.is_empty() {
        Ok(wanted)
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_their_faults() {
        let all = wanted("task=a&task=b&type=task.failed&after=start&other=x").unwrap();
        assert_eq!(all.tasks.len(), 2);
        assert_eq!(all.types, [EventType::TaskFailed]);
        assert_eq!(all.after.as_deref(), Some("start"));
        let faults = wanted("task=a/b&type=odd").unwrap_err();
        let fields: Vec<_> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["task", "type"]);
        let many = "task=a&".repeat(MAX_VALUES + 1);
        assert_eq!(wanted(&many).unwrap_err()[0].code, "too_many");
    }
}
