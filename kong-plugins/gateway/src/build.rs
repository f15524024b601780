//! From a kong.yml to a gateway that is bound: everything that can fail fails here.

use crate::config::{BuildError, Config, Deps, RunError};
use crate::filters::{Plan, RootPlan, Set, Use};
use crate::metrics::{ByRoute, Metrics};
use crate::routes::{Conditions, Destination, Table};
use crate::upstream::ServicePlan;
use crate::worker::{self, Shared};
use bytes::Bytes;
use mesh_declarative::{FilterChain, FilterUse, Plugin, Route};
use mesh_wasm_host::{Engine, Module, Shared as FilterShared};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A gateway that listens and does not answer yet.
pub struct Bound {
    address: SocketAddr,
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    sets: Vec<Set>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.address)
            .field("workers", &self.sets.len())
            .finish_non_exhaustive()
    }
}

/// Checks the kong.yml, listens, compiles the filters and gives them their configurations.
///
/// # Errors
/// [`BuildError`], which names what cannot be run.
pub async fn build(config: Config, deps: Deps) -> Result<Bound, BuildError> {
    let checked = Checked::read(&config.declarative).map_err(BuildError::Declarative)?;
    let listener = listen(config.listen)?;
    let (listener, address) = listener;
    let workers = config.workers.max(1);
    let store = Arc::new(FilterShared::default());
    let metrics =
        Metrics::register(&deps.metrics, Arc::clone(&store)).map_err(BuildError::Metrics)?;
    let instances = u32::try_from(workers * checked.filters.len().max(1)).unwrap_or(u32::MAX);
    let engine = Engine::new(config.limits, instances).map_err(BuildError::Engine)?;
    let modules = compile(&engine, &config.filters_dir, &checked.filters).await?;
    let plans: Vec<Arc<Plan>> = modules
        .into_iter()
        .zip(checked.filters)
        .map(|(module, (_, roots))| Arc::new(Plan { module, roots }))
        .collect();
    let sets = (0..workers)
        .map(|_| Set::new(&plans, Arc::clone(&store), metrics.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|(filter, source)| BuildError::Filter { filter, source })?;
    let shared = Shared {
        by_route: ByRoute::new(&metrics, checked.route_names.into_iter()),
        table: checked.table,
        services: checked.services,
        connections: Arc::new(Semaphore::new(config.max_connections)),
        metrics,
        local_port: address.port(),
        config,
    };
    Ok(Bound {
        address,
        listener,
        shared: Arc::new(shared),
        sets,
    })
}

impl Bound {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`, then finishes the requests in flight, for as long as the drain lasts.
    ///
    /// # Errors
    /// [`RunError`] when a worker cannot be started or ends by itself; the others are ended then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        worker::run(self.listener, self.shared, self.sets, shutdown).await
    }
}

fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), BuildError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| BuildError::Listen { address, source })
}

/// Filters and their configurations, in the order in which chains first name them.
type Filters = Vec<(String, Vec<RootPlan>)>;

async fn compile(
    engine: &Engine,
    directory: &Path,
    filters: &Filters,
) -> Result<Vec<Module>, BuildError> {
    let mut running = Vec::new();
    for (name, _) in filters {
        let path = directory.join(format!("{name}.wasm"));
        let (engine, filter) = (engine.clone(), name.clone());
        // Compiling is all computation; each module takes a thread of its own.
        running.push(tokio::task::spawn_blocking(move || {
            let bytes = std::fs::read(&path).map_err(|source| BuildError::Module {
                filter: filter.clone(),
                path: path.clone(),
                source,
            })?;
            let start = std::time::Instant::now();
            let module =
                Module::compile(&engine, &filter, &bytes).map_err(|source| BuildError::Filter {
                    filter: filter.clone(),
                    source,
                })?;
            tracing::info!(
                filter,
                bytes = bytes.len(),
                duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                "filter compiled"
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

/// A kong.yml that can be run.
struct Checked {
    table: Table,
    services: Vec<ServicePlan>,
    route_names: Vec<Arc<str>>,
    filters: Filters,
}

impl Checked {
    fn read(config: &mesh_declarative::Config) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let upstreams: Vec<String> = config.upstreams.iter().map(|u| u.name.clone()).collect();
        for upstream in &upstreams {
            problems.push(format!("upstream {upstream} is not supported"));
        }
        plugins("kong.yml", &config.plugins, &mut problems);
        let mut filters = Filters::new();
        let mut chains = Chains::read(&config.filter_chains, &mut filters, &mut problems);
        let mut services: Vec<ServicePlan> = Vec::new();
        // By name: where in `services`, or None for a service that is disabled or wrong.
        let mut by_name: HashMap<&str, Option<usize>> = HashMap::new();
        let mut routes: Vec<(&Route, &str)> = Vec::new();
        for service in &config.services {
            let name = service.name.as_str();
            plugins(&format!("service {name}"), &service.plugins, &mut problems);
            let plan =
                ServicePlan::read(service, &upstreams, &mut problems).filter(|_| service.enabled);
            let index = plan.map(|plan| {
                services.push(plan);
                services.len() - 1
            });
            if by_name.insert(name, index).is_some() {
                problems.push(format!("service {name} is there twice"));
            }
            for route in &service.routes {
                if route.service.is_some() {
                    problems.push(format!(
                        "route {}: it stands in a service and names one",
                        route.name
                    ));
                }
                routes.push((route, name));
            }
        }
        for route in &config.routes {
            match &route.service {
                Some(service) => routes.push((route, service)),
                None => problems.push(format!("route {}: it names no service", route.name)),
            }
        }
        let mut table = Table::default();
        let mut route_names: Vec<Arc<str>> = Vec::new();
        for (route, service) in routes {
            let name = route.name.as_str();
            if route_names.iter().any(|n| **n == *name) {
                problems.push(format!("route {name} is there twice"));
            }
            route_names.push(name.into());
            plugins(&format!("route {name}"), &route.plugins, &mut problems);
            let conditions = Conditions::read(route, &mut problems);
            let chain = chains.of(service, name);
            match by_name.get(service) {
                None => problems.push(format!("route {name}: no service {service}")),
                Some(None) => {}
                Some(Some(index)) => table.add(
                    conditions,
                    Destination {
                        route: name.into(),
                        service: *index,
                        strip_path: route.strip_path,
                        preserve_host: route.preserve_host,
                        chain: chain.into(),
                    },
                ),
            }
        }
        chains.unused(&by_name, &route_names, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        table.sort();
        Ok(Self {
            table,
            services,
            route_names,
            filters,
        })
    }
}

/// Filter chains by the service or route that they belong to.
#[derive(Default)]
struct Chains {
    services: HashMap<String, Vec<Use>>,
    routes: HashMap<String, Vec<Use>>,
}

impl Chains {
    fn read(chains: &[FilterChain], filters: &mut Filters, problems: &mut Vec<String>) -> Self {
        let mut all = Self::default();
        for chain in chains {
            let (owners, owner) = match (&chain.service, &chain.route) {
                (Some(service), None) => (&mut all.services, service),
                (None, Some(route)) => (&mut all.routes, route),
                _ => {
                    let name = chain.name.as_deref().unwrap_or("without a name");
                    problems.push(format!(
                        "filter chain {name}: it needs exactly one of service and route"
                    ));
                    continue;
                }
            };
            let name = chain.name.as_deref().unwrap_or(owner);
            let uses = chain
                .filters
                .iter()
                .filter(|filter| filter.enabled && chain.enabled)
                .filter_map(|filter| place(name, filter, filters, problems))
                .collect();
            if owners.insert(owner.clone(), uses).is_some() {
                problems.push(format!("filter chain {name}: {owner} has another one"));
            }
        }
        all
    }

    /// The filters of a route: its service's, then its own.
    fn of(&mut self, service: &str, route: &str) -> Vec<Use> {
        let of = |chains: &HashMap<String, Vec<Use>>, owner: &str| {
            chains.get(owner).cloned().unwrap_or_default()
        };
        let mut chain = of(&self.services, service);
        chain.extend(of(&self.routes, route));
        chain
    }

    /// Chains whose service or route does not exist would run nowhere.
    fn unused(
        &self,
        services: &HashMap<&str, Option<usize>>,
        routes: &[Arc<str>],
        problems: &mut Vec<String>,
    ) {
        for service in self.services.keys() {
            if !services.contains_key(service.as_str()) {
                problems.push(format!("filter chain of service {service}: there is none"));
            }
        }
        for route in self.routes.keys() {
            if !routes.iter().any(|r| **r == **route) {
                problems.push(format!("filter chain of route {route}: there is none"));
            }
        }
    }
}

fn place(
    chain: &str,
    filter: &FilterUse,
    filters: &mut Filters,
    problems: &mut Vec<String>,
) -> Option<Use> {
    let name = filter.name.as_str();
    // The name becomes a file's name; a `-` breaks the metrics of a real Kong.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        problems.push(format!("filter {name}: a name has letters, digits and _"));
        return None;
    }
    let config = match &filter.config {
        Value::Null => Bytes::new(),
        Value::String(text) => Bytes::from(text.clone()),
        Value::Object(_) => Bytes::from(filter.config.to_string()),
        _ => {
            problems.push(format!(
                "filter {name}: its config is no object and no text"
            ));
            return None;
        }
    };
    let module = match filters.iter().position(|(n, _)| n == name) {
        Some(module) => module,
        None => {
            filters.push((name.to_owned(), Vec::new()));
            filters.len() - 1
        }
    };
    let (_, roots) = filters.get_mut(module)?;
    roots.push(RootPlan {
        name: chain.to_owned(),
        config,
    });
    Some(Use {
        module,
        root: roots.len() - 1,
    })
}

fn plugins(place: &str, plugins: &[Plugin], problems: &mut Vec<String>) {
    for plugin in plugins.iter().filter(|p| p.enabled) {
        problems.push(format!("{place}: plugin {} is not supported", plugin.name));
    }
}
