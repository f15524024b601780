//! The tracers of a mesh in one process: one for each service, as if each were a process of its own.

use crate::LocalError;
use crate::app::part;
use mesh_trace::{Config, Tracer};
use std::sync::{Mutex, PoisonError};

/// Makes tracers, and ends them together.
pub(crate) struct Tracers {
    config: Config,
    made: Mutex<Vec<Tracer>>,
}

impl Tracers {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            made: Mutex::default(),
        }
    }

    /// A tracer for `service`; one that is off when nothing is exported.
    pub(crate) fn of(&self, service: &str) -> Result<Tracer, LocalError> {
        let tracer = Tracer::new(service, &self.config).map_err(|e| part(service, &e))?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(tracer.clone());
        Ok(tracer)
    }

    /// Exports what is left; all at the same time, since each may take a few seconds.
    pub(crate) async fn shutdown(self) {
        let made = self
            .made
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let ends: Vec<_> = made
            .into_iter()
            .map(|tracer| tokio::task::spawn_blocking(move || tracer.shutdown()))
            .collect();
        for end in ends {
            if let Err(error) = end.await {
                tracing::warn!(%error, "spans are lost");
            }
        }
    }
}
