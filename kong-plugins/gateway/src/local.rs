//! What one worker has of a configuration, and which of them new requests meet.

use crate::balance;
use crate::filters::Set;
use crate::generation::{Generation, Process};
use crate::upstream::Upstream;
use crate::worker;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// One thread's configuration.
pub(crate) struct Worker {
    current: RefCell<Rc<Local>>,
}

/// A configuration on one thread. A request holds the one it began with.
pub(crate) struct Local {
    pub process: Arc<Process>,
    pub generation: Arc<Generation>,
    pub set: Rc<RefCell<Set>>,
    pub services: Vec<Upstream>,
    tasks: Vec<AbortHandle>,
}

impl Worker {
    pub(crate) fn new(local: Local) -> Self {
        Self {
            current: RefCell::new(Rc::new(local)),
        }
    }

    /// The configuration that new requests meet.
    pub(crate) fn local(&self) -> Rc<Local> {
        Rc::clone(&self.current.borrow())
    }

    /// Puts another one in its place.
    pub(crate) fn replace(&self, local: Local) {
        self.current.replace(Rc::new(local)).retire();
    }
}

impl Local {
    /// Must be made on the worker's thread, which then runs its tasks; of the process, the first worker
    /// asks after health.
    pub(crate) fn new(
        process: &Arc<Process>,
        generation: Arc<Generation>,
        set: Rc<RefCell<Set>>,
        first: bool,
    ) -> Self {
        let tick = tokio::task::spawn_local(worker::tick(Rc::clone(&set)));
        let mut tasks = vec![tick.abort_handle()];
        if first {
            for pool in &generation.pools {
                let task = tokio::task::spawn_local(balance::watch(Arc::clone(pool)));
                tasks.push(task.abort_handle());
            }
        }
        Self {
            process: Arc::clone(process),
            services: generation
                .services
                .iter()
                .cloned()
                .map(|plan| Upstream::new(plan, process.tracer.clone()))
                .collect(),
            generation,
            set,
            tasks,
        }
    }

    /// Ends what runs without requests: a filter of an older configuration does not tick on.
    pub(crate) fn retire(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.retire();
    }
}
