//! Another configuration for a gateway that runs, without a dropped request.
//!
//! ```text
//! handle ─ checks, compiles, configures ─▶ a worker each: takes it, and keeps the old one for the
//!                                          requests that began with it
//! ```
//!
//! A configuration that cannot be run changes nothing.

use crate::config::{BuildError, Config};
use crate::filters::Set;
use crate::generation::{Generation, Process};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// A configuration on its way to one worker.
pub(crate) struct Next {
    pub generation: Arc<Generation>,
    pub set: Set,
    /// Told when new requests meet it.
    pub taken: oneshot::Sender<()>,
}

/// Gives a gateway another configuration while it runs. Clones are the same handle.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    process: Arc<Process>,
    workers: Vec<mpsc::Sender<Next>>,
    /// The configuration that runs; locked while another one is loaded.
    current: Mutex<Config>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("workers", &self.0.workers.len())
            .finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(
        process: Arc<Process>,
        workers: Vec<mpsc::Sender<Next>>,
        current: Config,
    ) -> Self {
        Self(Arc::new(Inner {
            process,
            workers,
            current: Mutex::new(current),
        }))
    }

    /// Loads `config` and returns when every new request meets it, on all workers. Requests in flight
    /// end with the configuration they began with. The gateway must be running.
    ///
    /// Modules are read and compiled anew. Values that filters share and the counters of rate-limiting
    /// stay. The access log's file is opened anew, even when the configuration cannot be run.
    ///
    /// # Errors
    /// [`BuildError`], which names what cannot be run, or what cannot change; what ran runs on.
    pub async fn reload(&self, config: Config) -> Result<(), BuildError> {
        let inner = &*self.0;
        let mut current = inner.current.lock().await;
        if let Some(access) = &inner.process.access {
            access.reopen();
        }
        let result = inner.load(&config, &current).await;
        let outcome = if result.is_ok() { "loaded" } else { "refused" };
        inner.count(outcome);
        if result.is_ok() {
            *current = config;
        }
        result
    }

    /// Counts a configuration that could not even be read among those that were refused.
    pub fn unreadable(&self) {
        self.0.count("refused");
    }

    /// The same with another kong.yml alone.
    ///
    /// # Errors
    /// As [`Handle::reload`].
    pub async fn reload_declarative(
        &self,
        declarative: mesh_declarative::Config,
    ) -> Result<(), BuildError> {
        let mut config = self.0.current.lock().await.clone();
        config.declarative = declarative;
        self.reload(config).await
    }
}

impl Inner {
    fn count(&self, outcome: &str) {
        let reloads = &self.process.metrics.reloads;
        reloads.with_label_values(&[outcome]).inc();
    }

    async fn load(&self, config: &Config, current: &Config) -> Result<(), BuildError> {
        for (field, same) in [
            ("listen", config.listen == current.listen),
            ("workers", config.workers == current.workers),
            (
                "max_connections",
                config.max_connections == current.max_connections,
            ),
            ("access_log", config.access_log == current.access_log),
        ] {
            if !same {
                return Err(BuildError::Fixed(field));
            }
        }
        let (generation, sets) = Generation::make(config.clone(), &self.process).await?;
        let pools = generation.pools.clone();
        let mut waiting = Vec::with_capacity(sets.len());
        for (worker, set) in self.workers.iter().zip(sets) {
            let (taken, told) = oneshot::channel();
            let next = Next {
                generation: Arc::clone(&generation),
                set,
                taken,
            };
            worker.send(next).await.map_err(|_| BuildError::Gone)?;
            waiting.push(told);
        }
        for told in waiting {
            told.await.map_err(|_| BuildError::Gone)?;
        }
        self.process.metrics.pools.replace(pools);
        Ok(())
    }
}
