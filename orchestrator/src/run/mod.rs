//! Runs: from a checked plan to the end of its task.
//!
//! ```text
//!  API ──submit──▶ store ──▶ actor of the run ──dispatch──▶ outlet ──▶ bus
//!                              ▲   │ each transition: store, then show, then act, then ack
//!  API ──cancel── inbox ───────┘   ▼
//!  lane ──results─▶ inbox        shown state ──▶ GET, SSE, Prefer: wait
//!   └─ another replica's ──▶ store ──▶ its tenure ──▶ inbox
//!                              └── log ──▶ relay ──▶ ai.events, reply queues;  GET /events
//! ```
//!
//! [`dag`] and [`machine`] decide and are pure; [`admission`] lets tasks in, [`executor`] and `actor` act;
//! `keep` writes, `outlet` publishes, [`relay`] tells; `tenure` keeps this replica's lease and takes over what others leave; [`lane`] declares the
//! topology and hears results; [`trace`] has the spans of both; [`shown`] is what others may see of a run:
//! never more than is stored.

mod actor;
pub mod admission;
mod change;
pub mod clock;
pub mod dag;
pub mod events;
pub mod executor;
mod keep;
pub mod lane;
pub mod machine;
pub mod message;
mod outlet;
pub mod relay;
pub mod shown;
mod tenure;
pub mod trace;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod waiting_tests;

use mesh_protocol::{TaskId, Timestamp};

/// Begin of every id that is made here; the plan's ids begin so too.
const PREFIX: &str = "task_";

/// Begin of the ids of collaborations, as the plan's coordinator makes them.
const COLLABORATION: &str = "collab_";

/// A task id that no other has: the time in milliseconds first, so that ids sort by it.
pub fn new_task_id() -> TaskId {
    new_id(PREFIX)
}

/// The same for a collaboration. Lists have these behind the tasks, each kind in the order of its times.
pub fn new_collaboration_id() -> TaskId {
    new_id(COLLABORATION)
}

fn new_id(prefix: &str) -> TaskId {
    loop {
        // Always an id: letters, digits and '_'. The loop stands for the panic that would say so.
        if let Ok(id) = format!("{prefix}{}", uuid::Uuid::now_v7().simple()).parse() {
            return id;
        }
    }
}

/// What the ids made from `time` on begin with, or sort after.
pub fn new_task_id_prefix(time: Timestamp) -> String {
    format!("{PREFIX}{:012x}", time.millis())
}

#[cfg(test)]
mod id_tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let before = new_task_id_prefix(Timestamp::from_millis(Timestamp::now().millis() - 1));
        for make in [new_task_id, new_collaboration_id] {
            let ids: Vec<TaskId> = (0..1000).map(|_| make()).collect();
            assert!(ids.is_sorted());
        }
        let ids = [new_task_id()];
        assert!(ids[0].as_str() > before.as_str());
    }
}
