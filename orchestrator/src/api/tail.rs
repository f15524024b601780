//! The end of the log, read once for all who follow it at this replica.
//!
//! It runs while somebody follows. Who is slower than it reads the log by itself from where it was.

use crate::run::executor::Executor;
use crate::store::{Logged, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(100);
/// Changes read at once.
const PART: usize = 512;
/// Changes that wait for followers; some hundred kilobytes, and a second's worth of a busy mesh.
const WAITING: usize = 1024;

/// Next in the log, or that it has to be looked up there.
pub type Next = Option<Arc<Logged>>;

/// What followers share.
pub struct Tail {
    executor: Arc<Executor>,
    stopping: CancellationToken,
    sender: broadcast::Sender<Next>,
    running: Mutex<bool>,
}

impl Tail {
    /// A tail that nobody follows.
    pub fn new(executor: Arc<Executor>, stopping: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            executor,
            stopping,
            sender: broadcast::Sender::new(WAITING),
            running: Mutex::default(),
        })
    }

    /// Everything that is logged after this has returned, and perhaps some before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn follow(self: &Arc<Self>) -> Result<broadcast::Receiver<Next>, StoreError> {
        let receiver = self.sender.subscribe();
        let mut running = self.running.lock().await;
        if !*running {
            let store = &self.executor.context().store;
            let end = store.log_after(Default::default(), 0).await?;
            *running = true;
            let tail = Arc::clone(self);
            self.executor
                .spawn("tail", async move { tail.run(end.epoch, end.end).await });
        }
        Ok(receiver)
    }

    async fn run(self: Arc<Self>, mut epoch: String, mut at: crate::store::Position) {
        loop {
            {
                let mut running = self.running.lock().await;
                if self.sender.receiver_count() == 0 || self.stopping.is_cancelled() {
                    *running = false;
                    return;
                }
            }
            let part = match self.executor.context().store.log_after(at, PART).await {
                Ok(part) => part,
                Err(error) => {
                    self.executor.context().metrics.store_errors.inc();
                    tracing::debug!(%error, "the log is not read, trying again");
                    tokio::time::sleep(LOOK * 10).await;
                    continue;
                }
            };
            if part.missed > 0 || part.epoch != epoch {
                let _nobody = self.sender.send(None);
                epoch = part.epoch;
                at = part.end;
                continue;
            }
            let full = part.changes.len() >= PART;
            for change in part.changes {
                at = change.position;
                let _nobody = self.sender.send(Some(Arc::new(change)));
            }
            if !full {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
