//! Following tasks that another replica runs: by looking into the store.
//!
//! A look every half second, for as long as a client waits. Who wants to hear sooner asks the replica that
//! runs the task, and most do: it is the one that accepted it.

use super::Api;
use super::tasks::Found;
use crate::run::events::of_run;
use crate::store::RunRecord;
use futures_util::stream::{self, Stream, StreamExt};
use mesh_protocol::TaskId;
use mesh_protocol::event::Event;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks into the store.
const LOOK: Duration = Duration::from_millis(500);

/// The run as it ended, or as it is when it has not by `until` or the API stops.
pub async fn ended(api: &Api, mut run: Found, until: Instant) -> Found {
    let time_is_up = async {
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = api.stopping.cancelled() => {}
        }
    };
    tokio::pin!(time_is_up);
    if let Found::Live(handle) = &run {
        let mut versions = handle.versions();
        let over = |_: &u64| handle.has_left() || handle.read(|run| run.status.is_ended());
        tokio::select! {
            _ = versions.wait_for(over) => {}
            () = &mut time_is_up => {}
        }
        if !handle.has_left() {
            return run;
        }
    }
    let id = run.read(|run| run.task_id.clone());
    while !run.read(|run| run.status.is_ended()) {
        tokio::select! {
            stored = look(api, &id) => match stored {
                Some(stored) => run = Found::Stored(Box::new(stored)),
                None => continue,
            },
            () = &mut time_is_up => break,
        }
    }
    run
}

/// What has happened to a run, then what happens, until it ends or is gone, or the API stops.
pub fn events(api: Arc<Api>, run: RunRecord) -> impl Stream<Item = Event> {
    let start = Follow {
        api,
        run,
        told: None,
    };
    stream::unfold(start, |mut follow| async move {
        if follow.told.is_some() {
            if follow.run.status.is_ended() {
                return None;
            }
            follow.run = tokio::select! {
                run = changed(&follow.api, &follow.run) => run?,
                () = follow.api.stopping.cancelled() => return None,
            };
        }
        let told = follow.told.get_or_insert_default();
        let mut fresh = of_run(&follow.run);
        fresh.retain(|event| told.insert(event.id()));
        Some((stream::iter(fresh), follow))
    })
    .flatten()
}

/// A run that is followed, and the events that were told; none before the first.
struct Follow {
    api: Arc<Api>,
    run: RunRecord,
    told: Option<HashSet<String>>,
}

/// The run once it is another than `run`; none when it is gone.
async fn changed(api: &Api, run: &RunRecord) -> Option<RunRecord> {
    loop {
        tokio::time::sleep(LOOK).await;
        match api.executor.context().store.load(&run.task_id).await {
            Ok(Some(now)) if now != *run => return Some(now),
            Ok(None) => return None,
            // The same, or the store is away.
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

async fn look(api: &Api, id: &TaskId) -> Option<RunRecord> {
    tokio::time::sleep(LOOK).await;
    api.executor.context().store.load(id).await.ok().flatten()
}
