//! The filter chains of kong.yml: which filters run on which route, and with what.

use super::RenderError;
use super::sidecar::gateway_outbound;
use crate::derive::{self, derived};
use crate::filters::{Filters, Known, Setting};
use crate::mesh::{Destination, Mesh, Route};
use crate::secret::Secrets;
use mesh_declarative::{FilterChain, FilterUse};
use mesh_policy::config::{Dimension, JwtAuth, RateLimit};
use mesh_policy::{ConfigError, Filter, admission, jwt, rate_limit, routing};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What the mesh knows and filters need; `guard` is what `gateway.auth` comes to.
pub(super) fn known(mesh: &Mesh, guard: &JwtAuth, secrets: &Secrets) -> Result<Known, RenderError> {
    let key = &mesh.gateway.assertion_key;
    let agents = mesh
        .agents
        .iter()
        .map(|agent| json!({"id": agent.id, "capabilities": agent.capabilities}));
    Ok(Known {
        revision: mesh.revision.clone(),
        issuers: written(&guard.issuers)?,
        assertion: written(&guard.assertion)?,
        table_key: derived(key, secrets, derive::RATE_LIMIT_TABLE)?,
        sidecar: gateway_outbound(mesh).to_string(),
        token: derived(key, secrets, derive::INTERNAL_TOKEN)?,
        agents: agents.collect(),
        max_body: mesh.orchestrator.limits.max_body_bytes as u64,
    })
}

/// The chain of one route, in the order in which the filters run.
pub(super) fn chain(
    mesh: &Mesh,
    route: &Route,
    known: &Known,
    secrets: &Secrets,
) -> Result<FilterChain, RenderError> {
    let said = route.filters.over(&mesh.gateway.filters);
    let empty = Map::new();
    let guard = match &said.jwt_auth {
        Setting::On(said) => said,
        Setting::Unsaid | Setting::Off => &empty,
    };
    let tested = secrets.are_known();
    let mut by_agent = false;
    let mut filters = vec![filter::<jwt::Policy>(known.jwt_auth(guard), tested)?];
    if let Setting::On(said) = &said.rate_limit {
        let config = known.rate_limit(said);
        by_agent = config.as_ref().is_ok_and(is_by_agent);
        filters.push(filter::<rate_limit::Policy>(config, tested)?);
    }
    if let Some(said) = admission(&said, route) {
        filters.push(filter::<admission::Policy>(
            known.task_admission(said),
            tested,
        )?);
    }
    if let (Setting::On(said), Destination::Agents) = (&said.agent_router, route.to) {
        let router = filter::<routing::Policy>(known.agent_router(said), tested)?;
        // Who limits by agent has to know it; otherwise the cheaper refusals come first.
        let place = if by_agent { 1 } else { filters.len() };
        filters.insert(place, router);
    }
    Ok(FilterChain {
        name: Some(route.name.clone()),
        route: Some(route.name.clone()),
        filters,
        ..FilterChain::default()
    })
}

fn is_by_agent(config: &RateLimit) -> bool {
    let mut by = config.limits.iter().flat_map(|limit| &limit.by);
    by.any(|dimension| *dimension == Dimension::Agent)
}

/// Where tasks come in: elsewhere the filter would only read bodies that it has nothing to say about.
fn admission<'a>(said: &'a Filters, route: &Route) -> Option<&'a Map<String, Value>> {
    let posts = route.methods.is_empty() || route.methods.iter().any(|method| method == "POST");
    match &said.task_admission {
        Setting::On(said) if posts && route.to == Destination::Orchestrator => Some(said),
        _ => None,
    }
}

/// A filter with a bad configuration refuses everything: better to refuse here, with the field.
fn filter<F: Filter>(
    config: Result<F::Config, Vec<ConfigError>>,
    tested: bool,
) -> Result<FilterUse, RenderError>
where
    F::Config: Serialize,
{
    let refused = |faults: Vec<ConfigError>| RenderError::Filter {
        filter: F::NAME,
        problem: faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    };
    let config = config.map_err(refused)?;
    if tested && let Err(faults) = F::compile(&config) {
        return Err(refused(faults));
    }
    Ok(FilterUse {
        name: F::NAME.to_owned(),
        config: written(&config)?,
        ..FilterUse::default()
    })
}

fn written(value: &impl Serialize) -> Result<Value, RenderError> {
    serde_json::to_value(value).map_err(|error| RenderError::Write {
        part: "kong.yml",
        detail: error.to_string(),
    })
}
