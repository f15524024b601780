//! A kong.yml, read as a whole: what leads where, and what cannot be run, all of it by name.

use crate::balance::Pool;
use crate::filters::{RootPlan, Use};
use crate::plugins::Scopes;
use crate::routes::{Conditions, Destination, Table};
use crate::upstream::ServicePlan;
use bytes::Bytes;
use mesh_declarative::{FilterChain, FilterUse, Route, Upstream};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Filters and their configurations, in the order in which chains first name them.
pub(crate) type Filters = Vec<(String, Vec<RootPlan>)>;

/// A kong.yml that can be run.
pub(crate) struct Checked {
    pub table: Table,
    pub services: Vec<ServicePlan>,
    /// Pools that kong.yml names, of whose health the gateway keeps count.
    pub pools: Vec<Arc<Pool>>,
    pub route_names: Vec<Arc<str>>,
    pub filters: Filters,
}

impl Checked {
    pub(crate) fn read(config: &mesh_declarative::Config) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        if !config.certificates.is_empty() {
            problems.push("certificates: tls towards clients is not supported".to_owned());
        }
        let pools = pools(&config.upstreams, &mut problems);
        let plugins = Scopes::read(config, &mut problems);
        let mut filters = Filters::new();
        let mut chains = Chains::read(&config.filter_chains, &mut filters, &mut problems);
        let mut services: Vec<ServicePlan> = Vec::new();
        // By name: where in `services`, or None for a service that is disabled or wrong.
        let mut by_name: HashMap<&str, Option<usize>> = HashMap::new();
        let mut routes: Vec<(&Route, &str)> = Vec::new();
        for service in &config.services {
            let name = service.name.as_str();
            let plan =
                ServicePlan::read(service, &pools, &mut problems).filter(|_| service.enabled);
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
            let conditions = Conditions::read(route, &mut problems);
            let refused = conditions.refused;
            let chain = chains.of(service, name);
            match by_name.get(service) {
                None => problems.push(format!("route {name}: no service {service}")),
                Some(None) => {}
                Some(Some(index)) => {
                    if route.preserve_host && services.get(*index).is_some_and(|s| s.h2) {
                        problems.push(format!(
                            "route {name}: preserve_host with a service of grpc is not supported"
                        ));
                    }
                    table.add(
                        conditions,
                        Destination {
                            route: name.into(),
                            service: *index,
                            strip_path: route.strip_path,
                            preserve_host: route.preserve_host,
                            refused,
                            plugins: plugins.of(service, name),
                            chain: chain.into(),
                        },
                    );
                }
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
            pools: pools.into_iter().map(|(_, pool)| pool).collect(),
            route_names,
            filters,
        })
    }
}

fn pools(upstreams: &[Upstream], problems: &mut Vec<String>) -> Vec<(String, Arc<Pool>)> {
    let mut pools: Vec<(String, Arc<Pool>)> = Vec::new();
    for upstream in upstreams {
        let name = &upstream.name;
        if pools.iter().any(|(n, _)| n == name) {
            problems.push(format!("upstream {name} is there twice"));
        }
        // A service's host could be meant for the address or for the pool.
        if crate::balance::address(name).is_some() {
            problems.push(format!("upstream {name}: an address is no name"));
        }
        pools.push((name.clone(), Arc::new(Pool::read(upstream, problems))));
    }
    pools
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
