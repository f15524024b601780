//! One change of a run, written until it stands, or until it is clear that it never will.

use super::executor::{Executor, pauses};
use super::shown::RunHandle;
use crate::store::{Change, Created, StoreError, Updated};
use mesh_protocol::TaskId;
use std::time::Duration;

/// Longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Whether a transition stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Stands,
    /// The run had ended there before: nothing more happens to it here.
    EndedElsewhere,
    /// Another replica has taken the run over.
    Superseded,
    /// The process leaves, with nothing stored.
    Leaving,
}

/// Writes `change` until it stands.
///
/// A store that has lost the run or its last changes, or has something else in its place, gets the whole of
/// it again: this process knows better, as long as no other has taken over.
pub(super) async fn keep(executor: &Executor, handle: &RunHandle, change: &Change) -> Kept {
    let context = executor.context();
    let (id, fence) = handle.read(|run| (run.task_id.clone(), run.fence));
    let mut pauses = pauses();
    loop {
        let kept = match context.store.update(&id, fence, change).await {
            Ok(Updated::Written) => Ok(Kept::Stands),
            Ok(Updated::EndedBefore) => Ok(Kept::EndedElsewhere),
            Ok(Updated::Superseded) => Ok(Kept::Superseded),
            Ok(Updated::Gone) | Err(StoreError::Corrupt { .. }) => {
                write_again(executor, handle, change, &id).await
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(kept) => return kept,
            Err(error) => {
                context.metrics.store_errors.inc();
                tracing::warn!(task_id = %id, %error, "a change is not stored, trying again");
            }
        }
        if executor.pause(pauses.next().unwrap_or(MAX_PAUSE)).await {
            return Kept::Leaving;
        }
    }
}

async fn write_again(
    executor: &Executor,
    handle: &RunHandle,
    change: &Change,
    id: &TaskId,
) -> Result<Kept, StoreError> {
    let context = executor.context();
    let mut whole = handle.read(Clone::clone);
    whole.apply(change.clone());
    let created = match context.store.create(&whole, executor.replica()).await? {
        // The client came again before the store knew this task again: the key is the other task's.
        Created::Earlier(_) => {
            whole.key = None;
            context.store.create(&whole, executor.replica()).await?
        }
        created => created,
    };
    if created == Created::Superseded {
        return Ok(Kept::Superseded);
    }
    tracing::warn!(task_id = %id, "the store had lost a task that goes on, and has it again");
    context.metrics.written_again.inc();
    Ok(Kept::Stands)
}
