//! Whether two kong.yml mean the same to Kong: order where Kong has none, short forms and what has its
//! default make no difference.

use mesh_declarative::{Config, Plugin, Route, Service};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything that Kong would do, by kind and name.
pub fn meaning(config: &Config) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut plugin = |scope: &str, plugin: &Plugin| {
        let mut protocols = plugin.protocols.clone();
        protocols.sort();
        let config = match &plugin.config {
            Value::Null => json!({}),
            config => config.clone(),
        };
        let said = json!({
            "config": config,
            "enabled": plugin.enabled,
            "tags": sorted(&plugin.tags),
            "protocols": protocols,
            "instance_name": plugin.instance_name,
        });
        all.insert(format!("plugin {} of {scope}", plugin.name), said);
    };
    for one in &config.plugins {
        let scope = match (&one.service, &one.route) {
            (Some(service), _) => format!("service {service}"),
            (_, Some(route)) => format!("route {route}"),
            _ => "all".to_owned(),
        };
        plugin(&scope, one);
    }
    let nested = config.services.iter().flat_map(|service| {
        let owner = Some(service.name.clone());
        service
            .routes
            .iter()
            .map(move |route| (owner.clone(), route))
    });
    let apart = config
        .routes
        .iter()
        .map(|route| (route.service.clone(), route));
    let routes: Vec<(Option<String>, &Route)> = nested.chain(apart).collect();
    for (_, route) in &routes {
        for one in &route.plugins {
            plugin(&format!("route {}", route.name), one);
        }
    }
    for service in &config.services {
        for one in &service.plugins {
            plugin(&format!("service {}", service.name), one);
        }
    }
    for (owner, one) in routes {
        let mut protocols: Vec<String> = one.protocols.iter().map(|p| format!("{p:?}")).collect();
        protocols.sort();
        let bare = Route {
            service: owner,
            plugins: Vec::new(),
            protocols: Vec::new(),
            methods: sorted(&one.methods),
            hosts: sorted(&one.hosts),
            paths: sorted(&one.paths),
            snis: sorted(&one.snis),
            tags: sorted(&one.tags),
            // Kong buffers unless it is told otherwise.
            request_buffering: Some(one.request_buffering.unwrap_or(true)),
            response_buffering: Some(one.response_buffering.unwrap_or(true)),
            ..one.clone()
        };
        let said = json!([serde_json::to_value(bare).unwrap(), protocols]);
        all.insert(format!("route {}", one.name), said);
    }
    for one in &config.services {
        let target = one.target().unwrap();
        let bare = Service {
            url: None,
            protocol: None,
            host: None,
            port: None,
            path: None,
            routes: Vec::new(),
            plugins: Vec::new(),
            tags: sorted(&one.tags),
            ..one.clone()
        };
        let said = json!([serde_json::to_value(bare).unwrap(), format!("{target:?}")]);
        all.insert(format!("service {}", one.name), said);
    }
    for one in &config.upstreams {
        let mut one = one.clone();
        one.targets.sort_by(|a, b| a.target.cmp(&b.target));
        one.algorithm
            .get_or_insert_with(|| "round-robin".to_owned());
        one.tags.sort();
        all.insert(
            format!("upstream {}", one.name),
            serde_json::to_value(&one).unwrap(),
        );
    }
    for (number, one) in config.certificates.iter().enumerate() {
        let said = json!([one.cert.trim(), one.key.trim(), one.snis, one.tags]);
        all.insert(format!("certificate {number}"), said);
    }
    all.insert("transform".to_owned(), config.transform.into());
    all.insert(
        "filter chains".to_owned(),
        config.filter_chains.len().into(),
    );
    all
}

/// Says what differs.
pub fn assert_same(before: &Config, after: &Config) {
    let (before, after) = (meaning(before), meaning(after));
    for (name, said) in &before {
        assert_eq!(after.get(name), Some(said), "{name}");
    }
    for name in after.keys() {
        assert!(before.contains_key(name), "{name} was not there before");
    }
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list
}
