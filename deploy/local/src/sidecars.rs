//! The sidecars of a mesh in one process: each built from its rendered configuration.

use crate::LocalError;
use crate::app::{free, part};
use crate::tracers::Tracers;
use mesh_bus::Bus;
use mesh_config::Mesh;
use mesh_sidecar::config::{Config, IdentitySource};
use mesh_sidecar::registry::{self, Memory, Registry};
use mesh_sidecar::{Bound, Deps};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the sidecars of one mesh share.
pub(crate) struct Sidecars<'a> {
    base: &'a Path,
    bus: Arc<dyn Bus>,
    tracers: &'a Tracers,
    /// The registry within the process; each sidecar asks Consul by itself.
    memory: Option<Arc<Memory>>,
}

impl<'a> Sidecars<'a> {
    pub(crate) fn new(
        mesh: &Mesh,
        base: &'a Path,
        bus: Arc<dyn Bus>,
        tracers: &'a Tracers,
    ) -> Self {
        let consul = mesh.trust.registry.consul.is_some();
        Self {
            base,
            bus,
            tracers,
            memory: (!consul).then(Memory::new),
        }
    }

    /// Builds one.
    pub(crate) async fn build(&self, mut config: Config) -> Result<Bound, LocalError> {
        let name = format!("sidecar {}", config.service);
        located(&mut config, self.base);
        let listeners = [
            Some(config.admin_listen),
            config.inbound.as_ref().map(|inbound| inbound.listen),
            config.outbound.as_ref().map(|outbound| outbound.listen),
        ];
        for listen in listeners.into_iter().flatten() {
            free(&name, listen).await?;
        }
        let registry: Arc<dyn Registry> = match &self.memory {
            Some(memory) => Arc::clone(memory) as Arc<dyn Registry>,
            None => registry::connect(&config.registry).map_err(|e| part(&name, &e))?,
        };
        let tracer = self.tracers.of(&format!("{}-sidecar", config.service))?;
        let deps = Deps {
            bus: Some(Arc::clone(&self.bus)),
            registry,
            tracer,
            // The log is the whole process's.
            logs: None,
            // Sidecars have the same metrics, so each has its own registry.
            metrics: prometheus::Registry::new(),
        };
        mesh_sidecar::build(config, deps)
            .await
            .map_err(|e| part(&name, &e))
    }
}

/// Files that mesh.yaml names are found from its directory.
fn located(config: &mut Config, base: &Path) {
    let here = |path: &mut PathBuf| *path = base.join(&*path);
    match &mut config.identity.source {
        IdentitySource::Development { directory, .. } => here(directory),
        IdentitySource::Files {
            certificate,
            key,
            roots,
        } => {
            here(certificate);
            here(key);
            here(roots);
        }
        IdentitySource::Vault { token_file, .. } => token_file.iter_mut().for_each(here),
        IdentitySource::Consul {} | IdentitySource::None => {}
    }
    if let Some(consul) = &mut config.registry.consul {
        consul.ca_file.iter_mut().for_each(here);
        consul.token_file.iter_mut().for_each(here);
    }
    config.policy.audit.iter_mut().for_each(here);
    if let Some(worker) = &mut config.worker {
        worker.state_dir.iter_mut().for_each(here);
    }
}
