//! What is legal and probably not meant: ways that nothing takes, limits that do not limit, doors without locks.

use super::{ids, warning};
use crate::finding::{Finding, Place};
use crate::mesh::Destination;
use crate::schema::filters::{Filters, Setting};
use crate::schema::{At, File, Intention, Route, Services};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::Worker;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::time::Duration;

const GATEWAY: &str = crate::mesh::GATEWAY;
/// Paths of the orchestrator that take POST and no task.
const NO_TASKS: [&str; 3] = ["/register", "/ws", "/internal"];

/// Every finding of this kind.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    public(file, out);
    intentions(file, out);
    admission(file, out);
    buckets(file, out);
    limits(file, out);
}

/// Who comes from elsewhere is asked for a token, and everybody on the way reads it.
fn public(file: &File, out: &mut Vec<Finding>) {
    let gateway = &file.gateway;
    let Some(listen) = gateway
        .listen
        .as_ref()
        .filter(|l| !l.value.ip().is_loopback())
    else {
        return;
    };
    let auth = gateway.auth.as_ref().map(|auth| &auth.value);
    let development = auth.and_then(|auth| auth.development.as_ref());
    // That is worse, and was said.
    if development.is_some_and(|d| d.value) {
        return;
    }
    let message = format!("{} is open to other machines without TLS", listen.path);
    // The door of gateway.tls beside it does not close this one.
    let hint = if gateway.tls.is_some() {
        "write `listen: 127.0.0.1:PORT`: clients come in by gateway.tls"
    } else {
        "let a load balancer with TLS come to 127.0.0.1, or make sure that this network is yours alone"
    };
    out.push(warning("public_without_tls", listen, message).hint(hint));
}

fn intentions(file: &File, out: &mut Vec<Finding>) {
    let Some(intentions) = &file.intentions else {
        return;
    };
    let agents: HashSet<&str> = ids(file).collect();
    let routes = file.gateway.routes.iter().flat_map(|r| &r.value);
    let routed = routes.filter_map(|r| r.value.to.as_ref());
    let routed = routed.into_iter().any(|to| to.value == Destination::Agents);
    let mut seen: HashSet<String> = HashSet::new();
    for at in &intentions.value {
        let raw = &at.value;
        let (Some(from), Some(to)) = (&raw.from, &raw.to) else {
            continue;
        };
        let known = |name: &str| agents.contains(name) || name == GATEWAY || name == ORCHESTRATOR;
        let all = [from, to].into_iter().flat_map(|s| names(&s.value));
        if !all.into_iter().all(known) {
            continue;
        }
        let why = if !seen.insert(written(raw)) {
            Some("says what another one says already")
        } else if only(&to.value, GATEWAY) {
            Some("leads to the gateway, which nobody of the mesh calls")
        } else if only(&from.value, GATEWAY)
            && !routed
            && names(&to.value).all(|n| agents.contains(n))
            && !matches!(to.value, Services::Any)
        {
            Some("lets the gateway call agents, and no route leads to agents")
        } else {
            let mut from = names(&from.value);
            match (from.next(), from.next()) {
                (Some(one), None) if only(&to.value, one) => Some("leads from a service to itself"),
                _ => None,
            }
        };
        if let Some(why) = why {
            let message = format!("{} {why}", at.path);
            out.push(
                warning("unused_intention", at, message)
                    .hint("leave it out, or write the way that is meant"),
            );
        }
    }
}

fn names(services: &Services) -> impl Iterator<Item = &str> {
    let named = match services {
        Services::Any => [].as_slice(),
        Services::Named(names) => names,
    };
    named.iter().map(|name| name.value.as_str())
}

fn only(services: &Services, name: &str) -> bool {
    let mut all = names(services);
    all.next() == Some(name) && all.all(|other| other == name)
}

/// An intention without its places.
fn written(raw: &Intention) -> String {
    let services = |at: &Option<At<Services>>| match at.as_ref().map(|at| &at.value) {
        Some(services @ Services::Named(_)) => names(services).collect::<Vec<_>>().join(","),
        _ => "*".to_owned(),
    };
    let texts = |list: &[At<String>]| list.iter().map(|t| t.value.clone()).collect::<Vec<_>>();
    let callers = raw.callers.as_ref().map(|callers| &callers.value);
    let action = raw.action.as_ref().map(|at| at.value).unwrap_or_default();
    format!(
        "{} {} {action:?} {:?} {:?} {callers:?}",
        services(&raw.from),
        services(&raw.to),
        texts(&raw.methods),
        texts(&raw.paths)
    )
}

/// What one scope says of a filter: a route's own word, or else the gateway's.
fn setting<'f>(
    file: &'f File,
    route: Option<&'f Route>,
    of: impl Fn(&'f Filters) -> &'f Option<At<Setting>>,
) -> Option<&'f At<Setting>> {
    let own = route.and_then(|route| route.filters.as_ref());
    let gateway = file.gateway.filters.as_ref();
    own.and_then(|f| of(&f.value).as_ref())
        .or_else(|| gateway.and_then(|f| of(&f.value).as_ref()))
}

fn config(at: Option<&At<Setting>>) -> Option<&Map<String, Value>> {
    at.and_then(|at| at.value.config.as_ref())
}

fn admission(file: &File, out: &mut Vec<Finding>) {
    for route in file.gateway.routes.iter().flat_map(|r| &r.value) {
        let raw = &route.value;
        let to = raw.to.as_ref().map(|to| to.value).unwrap_or_default();
        let kept = raw.strip_path.as_ref().is_some_and(|strip| !strip.value);
        let posts = raw.methods.is_empty() || raw.methods.iter().any(|m| m.value == "POST");
        let other = |path: &At<String>| NO_TASKS.iter().any(|p| path.value.starts_with(p));
        let admitted = config(setting(file, Some(raw), |f| &f.task_admission)).is_some();
        if to == Destination::Orchestrator
            && kept
            && posts
            && admitted
            && let Some(path) = raw.paths.iter().find(|path| other(path))
        {
            let message = format!(
                "{}: no tasks come by this route, and task_admission refuses all else",
                path.path
            );
            out.push(
                warning("admission_without_tasks", path, message)
                    .hint("add `filters: {task_admission: false}` to the route"),
            );
        }
    }
}

fn buckets(file: &File, out: &mut Vec<Finding>) {
    let routes = file.gateway.routes.iter().flat_map(|r| &r.value);
    let own = routes.filter(|route| route.value.filters.is_some());
    let scopes = own.map(|route| Some(&route.value)).chain([None]);
    let mut said: HashSet<Place> = HashSet::new();
    for scope in scopes {
        let anonymous = config(setting(file, scope, |f| &f.jwt_auth))
            .is_some_and(|jwt| jwt.get("anonymous").is_some_and(|a| !a.is_null()));
        let Some(limiter) = setting(file, scope, |f| &f.rate_limit).filter(|_| anonymous) else {
            continue;
        };
        for (n, limit) in limits_of(limiter).enumerate() {
            let by = limit.get("by").and_then(Value::as_array);
            let consumer = |by: &Vec<Value>| matches!(by.as_slice(), [Value::String(one)] if one == "consumer");
            if !by.is_some_and(consumer) {
                continue;
            }
            let path = format!("limits[{n}].by");
            let place = limiter
                .value
                .places
                .get(&path)
                .copied()
                .unwrap_or(limiter.place);
            if said.insert(place) {
                let path = format!("{}.{path}", limiter.path);
                let message = format!(
                    "{path}: all callers without a token are one consumer, and share this limit"
                );
                out.push(
                    Finding::warning("shared_bucket", place, path, message)
                        .hint("write `by: [consumer, address]` for a limit of each one's own"),
                );
            }
        }
    }
}

fn limits_of(at: &At<Setting>) -> impl Iterator<Item = &Map<String, Value>> {
    let limits = config(Some(at)).and_then(|config| config.get("limits"));
    let limits = limits.and_then(Value::as_array).into_iter().flatten();
    limits.filter_map(Value::as_object)
}

/// With bounded queues, what one caller may do in a window must fit into them.
fn limits(file: &File, out: &mut Vec<Finding>) {
    let Some(most) = &file.messaging.max_length else {
        return;
    };
    let loaded = config(setting(file, None, |f| &f.task_admission));
    if loaded.is_some_and(|config| config.get("load").is_some_and(|load| !load.is_null())) {
        return;
    }
    let Some(limiter) = setting(file, None, |f| &f.rate_limit) else {
        return;
    };
    let usual = Worker::default();
    for (n, limit) in limits_of(limiter).enumerate() {
        let number = |name: &str| limit.get(name).and_then(Value::as_u64);
        let (Some(quota), Some(window)) = (number("quota"), number("window_s")) else {
            continue;
        };
        if limit.get("unit").is_some() {
            continue;
        }
        let window = Duration::from_secs(window);
        let sure = file.agents.iter().map(|agent| {
            let agent = &agent.value;
            let call = agent.timeout.as_ref().map(|at| at.value);
            let call = call.unwrap_or(Duration::from_millis(usual.timeout_ms));
            let turns = window
                .as_millis()
                .checked_div(call.as_millis())
                .unwrap_or(0);
            let at_once = agent
                .concurrency
                .as_ref()
                .map_or(usual.concurrency, |at| at.value);
            u128::from(most.value) + turns * u128::from(at_once)
        });
        let sure: u128 = sure.sum();
        let asked = u128::from(quota.max(number("burst").unwrap_or(0)));
        if asked > sure && !file.agents.is_empty() {
            let path = format!("limits[{n}].quota");
            let place = limiter
                .value
                .places
                .get(&path)
                .copied()
                .unwrap_or(limiter.place);
            let path = format!("{}.{path}", limiter.path);
            let message = format!(
                "{path}: one caller may submit {asked} in {window:?}, and queues and agents are sure to take {sure}"
            );
            out.push(Finding::warning("limit_above_queue", place, path, message).hint(
                "lower it, raise messaging.max_length, or refuse in time: `task_admission: {load: {}}`",
            ));
        }
    }
}
