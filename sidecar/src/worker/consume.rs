//! Gets the agent's deliveries and starts a task for each; drains at the end.

use super::{Lane, Worker};
use backon::{BackoffBuilder, ExponentialBuilder};
use mesh_bus::{BusError, Deliveries};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First pause before the queue is asked for again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long steps have for giving their deliveries back once the drain has lasted long enough, and the
/// broker for ending the consumer.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Declares and consumes until `shutdown`, then drains.
pub(super) async fn run(worker: Worker, shutdown: CancellationToken) {
    let lane = &worker.lane;
    let steps = TaskTracker::new();
    // The prefetch bounds the deliveries of one connection. After a reconnect those of the lost one
    // may still be at the agent, hence room for both.
    let places = Arc::new(Semaphore::new(usize::from(worker.concurrency) * 2));
    let pauses = || {
        ExponentialBuilder::default()
            .with_min_delay(PAUSE.0)
            .with_max_delay(PAUSE.1)
            .without_max_times()
            .with_jitter()
            .build()
    };
    let mut pause = pauses();
    let mut open = None;
    loop {
        let begun = tokio::select! {
            () = shutdown.cancelled() => break,
            begun = begin(&worker) => begun,
        };
        match begun {
            Ok(mut deliveries) => {
                lane.status.queue_consumed();
                tracing::info!(agent = %lane.agent, "taking steps");
                pause = pauses();
                match take(lane, &mut deliveries, &places, &steps, &shutdown).await {
                    Ended::Told => {
                        open = Some(deliveries);
                        break;
                    }
                    Ended::Away => {
                        let why = "no steps are taken while the agent is away and others take them";
                        tracing::warn!(agent = %lane.agent, "{why}");
                        lane.status.queue_failed(why.to_owned());
                        lane.absence.takes(false);
                        // A broker that is away says no goodbye.
                        let _ = tokio::time::timeout(GIVE_BACK, leave(deliveries)).await;
                        tokio::select! {
                            () = shutdown.cancelled() => break,
                            () = lane.rest() => continue,
                        }
                    }
                    Ended::Lost => {}
                }
                let why = "queue ended, it is declared again".to_owned();
                tracing::warn!(agent = %lane.agent, "{why}");
                lane.status.queue_failed(why);
            }
            Err(error) => {
                tracing::warn!(agent = %lane.agent, %error, "queue cannot be consumed");
                lane.status.queue_failed(error.to_string());
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause.next().unwrap_or(PAUSE.1)) => {}
        }
    }
    lane.status.draining();
    drain(&worker, &steps, open).await;
}

async fn begin(worker: &Worker) -> Result<Deliveries, BusError> {
    let lane = &worker.lane;
    lane.bus.declare(&worker.topology).await?;
    lane.absence.takes(true);
    lane.bus
        .consume(&lane.agent.task_queue(), worker.concurrency)
        .await
}

/// Why no more deliveries come.
enum Ended {
    /// The worker was told to stop.
    Told,
    /// The agent is away, and its steps are for others.
    Away,
    /// The queue is gone, or the connection for good.
    Lost,
}

/// Starts a task for each delivery, until there are no more.
async fn take(
    lane: &Arc<Lane>,
    deliveries: &mut Deliveries,
    places: &Arc<Semaphore>,
    steps: &TaskTracker,
    shutdown: &CancellationToken,
) -> Ended {
    loop {
        let next = async {
            let place = Arc::clone(places).acquire_owned().await.ok();
            (place, deliveries.next().await)
        };
        let (place, delivery) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ended::Told,
            () = lane.is_to_rest() => return Ended::Away,
            next = next => next,
        };
        let Some(delivery) = delivery else {
            return Ended::Lost;
        };
        let lane = Arc::clone(lane);
        // Boxed at once: the runtime moves a future several times before it runs, and this one is
        // large.
        steps.spawn(Box::pin(async move {
            lane.carry_out(delivery).await;
            drop(place);
        }));
    }
}

/// Stops consuming, lets the steps finish for a while, then has them given back.
async fn drain(worker: &Worker, steps: &TaskTracker, open: Option<Deliveries>) {
    steps.close();
    let leftovers = async {
        if let Some(deliveries) = open {
            leave(deliveries).await;
        }
    };
    // A broker that is away says no goodbye: the drain is for the steps.
    let leftovers = tokio::time::timeout(GIVE_BACK, leftovers);
    let finished = async { tokio::join!(steps.wait(), leftovers) };
    if tokio::time::timeout(worker.drain, finished).await.is_err() {
        tracing::warn!(agent = %worker.lane.agent, steps = steps.len(), "drain is over, giving steps back");
    }
    worker.lane.give_up.cancel();
    if tokio::time::timeout(GIVE_BACK, steps.wait()).await.is_err() {
        tracing::warn!(agent = %worker.lane.agent, "steps go back with the connection");
    }
}

/// Stops consuming and gives back what was handed out and not begun.
async fn leave(mut deliveries: Deliveries) {
    deliveries.stopper().cancel();
    // Polled to its end, so that the backend can say goodbye.
    while let Some(delivery) = deliveries.next().await {
        if let Err(error) = delivery.give_back().await {
            tracing::debug!(%error, "delivery goes back with the connection");
        }
    }
}
