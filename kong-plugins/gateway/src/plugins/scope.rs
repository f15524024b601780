//! Which plugin runs on which route: the most specific of each name.

use super::{Cors, IpRestriction, Plugins, RateLimiting, SizeLimiting, Transformer, read};
use mesh_declarative::{Config, Plugin};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// All plugins of a kong.yml, read once each.
#[derive(Default)]
pub(crate) struct Scopes {
    global: Plugins,
    services: HashMap<String, Plugins>,
    routes: HashMap<String, Plugins>,
}

/// prometheus, whose switches are on whatever they say, but for what does not exist here.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Prometheus {
    per_consumer: bool,
    #[serde(rename = "status_code_metrics")]
    _status_code: bool,
    #[serde(rename = "latency_metrics")]
    _latency: bool,
    #[serde(rename = "bandwidth_metrics")]
    _bandwidth: bool,
    #[serde(rename = "upstream_health_metrics")]
    _upstream_health: bool,
    #[serde(rename = "wasm_metrics")]
    _wasm: bool,
}

impl Scopes {
    /// Reads all plugins; what cannot be run goes into `problems`.
    pub(crate) fn read(config: &Config, problems: &mut Vec<String>) -> Self {
        let mut scopes = Self::default();
        for plugin in &config.plugins {
            match (&plugin.service, &plugin.route) {
                (None, None) => add(&mut scopes.global, "kong.yml", "", plugin, problems),
                (Some(service), None) => scopes.of_service(service, plugin, problems),
                (None, Some(route)) => scopes.of_route(route, plugin, problems),
                (Some(_), Some(_)) => problems.push(format!(
                    "plugin {}: it names a service and a route, which is not supported",
                    plugin.name
                )),
            }
        }
        let inside = |plugin: &Plugin, place: &str, problems: &mut Vec<String>| {
            if plugin.service.is_some() || plugin.route.is_some() {
                problems.push(format!(
                    "{place}: plugin {}: it stands in its place and names one",
                    plugin.name
                ));
            }
        };
        for service in &config.services {
            for plugin in &service.plugins {
                inside(plugin, &format!("service {}", service.name), problems);
                scopes.of_service(&service.name, plugin, problems);
            }
        }
        let nested = config.services.iter().flat_map(|s| &s.routes);
        for route in nested.chain(&config.routes) {
            for plugin in &route.plugins {
                inside(plugin, &format!("route {}", route.name), problems);
                scopes.of_route(&route.name, plugin, problems);
            }
        }
        let services: Vec<&str> = config.services.iter().map(|s| &*s.name).collect();
        let nested = config.services.iter().flat_map(|s| &s.routes);
        let routes: Vec<&str> = nested.chain(&config.routes).map(|r| &*r.name).collect();
        for (kind, owners, known) in [
            ("service", &scopes.services, services),
            ("route", &scopes.routes, routes),
        ] {
            for owner in owners.keys().filter(|o| !known.contains(&o.as_str())) {
                problems.push(format!("plugin of {kind} {owner}: there is none"));
            }
        }
        scopes
    }

    fn of_service(&mut self, service: &str, plugin: &Plugin, problems: &mut Vec<String>) {
        let place = format!("service {service}");
        let plugins = self.services.entry(service.to_owned()).or_default();
        add(plugins, &place, &place, plugin, problems);
    }

    fn of_route(&mut self, route: &str, plugin: &Plugin, problems: &mut Vec<String>) {
        let place = format!("route {route}");
        let plugins = self.routes.entry(route.to_owned()).or_default();
        add(plugins, &place, &place, plugin, problems);
    }

    /// The plugins that run on a route; None when none does.
    pub(crate) fn of(&self, service: &str, route: &str) -> Option<Arc<Plugins>> {
        let mut plugins = self.routes.get(route).cloned().unwrap_or_default();
        for wider in [self.services.get(service), Some(&self.global)]
            .into_iter()
            .flatten()
        {
            plugins.cors = plugins.cors.or_else(|| wider.cors.clone());
            plugins.ip = plugins.ip.or_else(|| wider.ip.clone());
            plugins.size = plugins.size.or_else(|| wider.size.clone());
            plugins.rate = plugins.rate.or_else(|| wider.rate.clone());
            plugins.transform = plugins.transform.or_else(|| wider.transform.clone());
        }
        (!plugins.is_empty()).then(|| Arc::new(plugins))
    }
}

/// Puts a plugin into its place; `scope` is what its counters belong to.
fn add(
    plugins: &mut Plugins,
    place: &str,
    scope: &str,
    plugin: &Plugin,
    problems: &mut Vec<String>,
) {
    if !plugin.enabled {
        return;
    }
    let name = plugin.name.as_str();
    if plugin.instance_name.is_some() || !plugin.protocols.is_empty() {
        problems.push(format!(
            "{place}: plugin {name}: instance_name and protocols are not supported"
        ));
    }
    let config = &plugin.config;
    let result = match name {
        "cors" => put(&mut plugins.cors, read(config).and_then(Cors::new)),
        "ip-restriction" => put(&mut plugins.ip, read(config).and_then(IpRestriction::new)),
        "request-size-limiting" => put(&mut plugins.size, read(config).and_then(SizeLimiting::new)),
        "rate-limiting" => {
            let made = read(config).and_then(|c| RateLimiting::new(c, scope));
            put(&mut plugins.rate, made)
        }
        "request-transformer" => put(
            &mut plugins.transform,
            read(config).and_then(Transformer::new),
        ),
        "prometheus" => read::<Prometheus>(config).and_then(|config| {
            if config.per_consumer {
                return Err("per_consumer: there are no consumers here".to_owned());
            }
            Ok(())
        }),
        "jwt" => Err(
            "is not supported: its tokens are checked by the filter jwt_auth; \
                      write a filter chain with it instead"
                .to_owned(),
        ),
        _ => Err("is not supported".to_owned()),
    };
    if let Err(problem) = result {
        problems.push(format!("{place}: plugin {name} {problem}"));
    }
}

fn put<T>(place: &mut Option<Arc<T>>, made: Result<T, String>) -> Result<(), String> {
    match place.replace(Arc::new(made?)) {
        None => Ok(()),
        Some(_) => Err("is there twice".to_owned()),
    }
}
