//! One configuration, ready to run: what a reload replaces. And what outlives every reload.

use crate::access::Access;
use crate::balance::Pool;
use crate::checked::{Checked, Filters};
use crate::config::{BuildError, Config};
use crate::filters::{Plan, Set};
use crate::metrics::{ByRoute, Metrics};
use crate::plugins::rate::Counters;
use crate::routes::Table;
use crate::upstream::ServicePlan;
use mesh_trace::Tracer;
use mesh_wasm_host::{Cache, Engine, Module, Shared as FilterShared};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What all workers read, and no reload changes.
pub(crate) struct Process {
    pub connections: Arc<Semaphore>,
    pub metrics: Metrics,
    pub local_port: u16,
    /// Values and metrics of the filters.
    pub store: Arc<FilterShared>,
    /// Counters of the plugin rate-limiting.
    pub counters: Counters,
    pub access: Option<Arc<Access>>,
    pub tracer: Tracer,
}

/// What all workers read of one configuration, and none changes.
pub(crate) struct Generation {
    pub config: Config,
    pub table: Table,
    pub services: Vec<ServicePlan>,
    pub pools: Vec<Arc<Pool>>,
    pub by_route: ByRoute,
}

impl Generation {
    /// Checks a configuration, compiles its filters and gives them their configurations, with the VMs
    /// of all workers. Nothing that runs is touched.
    pub(crate) async fn make(
        config: Config,
        process: &Process,
    ) -> Result<(Arc<Self>, Vec<Set>), BuildError> {
        let checked = Checked::read(&config.declarative).map_err(BuildError::Declarative)?;
        let workers = config.workers.max(1);
        let instances = u32::try_from(workers * checked.filters.len().max(1)).unwrap_or(u32::MAX);
        let engine = Engine::new(config.limits, instances).map_err(BuildError::Engine)?;
        let cache = config.cache.as_deref().and_then(|directory| {
            Cache::open(directory)
                .inspect_err(|error| tracing::warn!(%error, "filters are compiled anew"))
                .ok()
        });
        let modules = compile(&engine, &config.filters_dir, &checked.filters, cache).await?;
        for (name, _) in &checked.filters {
            process.metrics.filter(name);
        }
        let plans: Vec<Arc<Plan>> = modules
            .into_iter()
            .zip(checked.filters)
            .map(|(module, (_, roots))| Arc::new(Plan { module, roots }))
            .collect();
        let (store, metrics) = (Arc::clone(&process.store), process.metrics.clone());
        // Filters read keys and build tables now: not on a thread that answers.
        let sets = tokio::task::spawn_blocking(move || {
            (0..workers)
                .map(|_| Set::new(&plans, Arc::clone(&store), metrics.clone()))
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|e| BuildError::Cut(e.to_string()))?
        .map_err(|(filter, source)| BuildError::Filter { filter, source })?;
        let generation = Self {
            by_route: ByRoute::new(&process.metrics, checked.route_names.into_iter()),
            table: checked.table,
            services: checked.services,
            pools: checked.pools,
            config,
        };
        Ok((Arc::new(generation), sets))
    }
}

async fn compile(
    engine: &Engine,
    directory: &Path,
    filters: &Filters,
    cache: Option<Cache>,
) -> Result<Vec<Module>, BuildError> {
    let mut running = Vec::new();
    for (name, _) in filters {
        let path = directory.join(format!("{name}.wasm"));
        let (engine, filter, cache) = (engine.clone(), name.clone(), cache.clone());
        // Compiling is all computation; each module takes a thread of its own.
        running.push(tokio::task::spawn_blocking(move || {
            let bytes = std::fs::read(&path).map_err(|source| BuildError::Module {
                filter: filter.clone(),
                path: path.clone(),
                source,
            })?;
            let start = std::time::Instant::now();
            let module =
                Module::cached(&engine, &filter, &bytes, cache.as_ref()).map_err(|source| {
                    BuildError::Filter {
                        filter: filter.clone(),
                        source,
                    }
                })?;
            tracing::info!(
                filter,
                bytes = bytes.len(),
                duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                "filter is there"
            );
            Ok(module)
        }));
    }
    let mut modules = Vec::with_capacity(running.len());
    for task in running {
        modules.push(task.await.map_err(|e| BuildError::Cut(e.to_string()))??);
    }
    Ok(modules)
}
