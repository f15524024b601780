//! What the filters' own policies say about their configurations.

use super::error;
use crate::filters::{Known, faults};
use crate::finding::{Finding, Place};
use crate::mesh::Destination;
use crate::schema::filters::{Filters, Setting};
use crate::schema::{At, File, Route};
use mesh_policy::{ConfigError, admission, jwt, rate_limit, routing};
use serde_json::{Map, Value, json};

/// Every finding about `gateway.filters` and the routes' `filters`.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let known = Known::stand_in(agents(file));
    let gateway = file.gateway.filters.as_ref().map(|f| &f.value);
    if let Some(gateway) = gateway {
        all(&known, None, gateway, out);
    }
    for route in file.gateway.routes.iter().flat_map(|r| &r.value) {
        routed(route, gateway, out);
        if let Some(filters) = &route.value.filters {
            all(&known, gateway, &filters.value, out);
        }
    }
}

/// A route to the agents needs somebody who chooses one.
fn routed(route: &At<Route>, gateway: Option<&Filters>, out: &mut Vec<Finding>) {
    let Some(to) = &route.value.to else { return };
    let own = route.value.filters.as_ref().map(|f| &f.value);
    let router = own
        .and_then(|f| f.agent_router.as_ref())
        .or_else(|| gateway.and_then(|f| f.agent_router.as_ref()));
    let routes = router.is_some_and(|router| router.value.config.is_some());
    if to.value == Destination::Agents && !routes {
        let message = format!("{} is agents, and no agent_router chooses one", to.path);
        out.push(error("no_router", to, message).hint(
            "add `agent_router: {rules: [{to: {named: {prefix: /agents/}}}]}` to gateway.filters",
        ));
    }
}

fn agents(file: &File) -> Value {
    let agents = file.agents.iter().filter_map(|agent| {
        let id = agent.value.id.as_ref()?.value.as_str();
        let capabilities: Vec<_> = agent.value.capabilities.iter().map(|c| &c.value).collect();
        Some(json!({"id": id, "capabilities": capabilities}))
    });
    agents.collect()
}

fn all(known: &Known, outer: Option<&Filters>, filters: &Filters, out: &mut Vec<Finding>) {
    if let Some(off) = filters
        .jwt_auth
        .as_ref()
        .filter(|s| s.value.config.is_none())
    {
        let message = format!("{} is off, and nobody would know who is calling", off.path);
        out.push(
            error("no_authentication", off, message).hint(
                "write `jwt_auth: {anonymous: {sub: NAME}}` to let callers in without a token",
            ),
        );
    }
    one(&filters.jwt_auth, outer.map(|o| &o.jwt_auth), out, |said| {
        faults::<jwt::Policy>(known.jwt_auth(said))
    });
    one(
        &filters.rate_limit,
        outer.map(|o| &o.rate_limit),
        out,
        |said| faults::<rate_limit::Policy>(known.rate_limit(said)),
    );
    one(
        &filters.task_admission,
        outer.map(|o| &o.task_admission),
        out,
        |said| faults::<admission::Policy>(known.task_admission(said)),
    );
    one(
        &filters.agent_router,
        outer.map(|o| &o.agent_router),
        out,
        |said| faults::<routing::Policy>(known.agent_router(said)),
    );
}

/// The faults of one filter's configuration, a route's laid over the gateway's. What only the gateway's
/// part is to blame for was said there.
fn one(
    setting: &Option<At<Setting>>,
    outer: Option<&Option<At<Setting>>>,
    out: &mut Vec<Finding>,
    faults: impl Fn(&Map<String, Value>) -> Vec<ConfigError>,
) {
    let Some(at) = setting else { return };
    let Some(config) = &at.value.config else {
        return;
    };
    let outer = outer
        .and_then(Option::as_ref)
        .and_then(|outer| outer.value.config.as_ref());
    let mut whole = outer.cloned().unwrap_or_default();
    whole.extend(config.clone());
    for fault in faults(&whole) {
        let first = fault.path.split(['.', '[']).next().unwrap_or_default();
        if outer.is_some_and(|outer| outer.contains_key(first)) && !config.contains_key(first) {
            continue;
        }
        out.push(filter_fault(at, &fault));
    }
}

/// A fault of a configuration, at its place.
pub(super) fn filter_fault(at: &At<Setting>, fault: &ConfigError) -> Finding {
    let path = match fault.path.as_str() {
        "." | "config" | "" => at.path.clone(),
        path => format!("{}.{path}", at.path),
    };
    let place = place(&at.value, &fault.path).unwrap_or(at.place);
    let message = format!("{path}: {}", fault.message);
    Finding::error("filter_config", place, path, message)
        .hint("docs/filters.md says what the filter takes there")
}

/// The place of `path`, or of the nearest value around it.
fn place(setting: &Setting, path: &str) -> Option<Place> {
    let mut path = path;
    loop {
        if let Some(place) = setting.places.get(path) {
            return Some(*place);
        }
        let end = path.rfind(['.', '['])?;
        path = path.get(..end)?;
    }
}
