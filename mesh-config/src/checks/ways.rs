//! Which of the gateway's routes takes a request: none takes what another one is there for.
//!
//! The order is that of Kong's router (`traditional_compatible`): more kinds of conditions (paths, methods,
//! hosts, headers, SNIs) go first, then the longer prefix. The mesh's own routes are guarded by filters and
//! those of services are not, so a service's route that takes what an own route is there for opens a way
//! around the guard. Names and paths are looked up in tables: five thousand routes are checked in one pass.

use super::{error, warning};
use crate::compile::default_routes;
use crate::finding::{Finding, Place};
use crate::schema::{At, File, FrontedRoute};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

/// One of the mesh's own routes.
struct Own {
    name: String,
    methods: Vec<String>,
}

impl Own {
    fn kinds(&self) -> usize {
        1 + usize::from(!self.methods.is_empty())
    }
}

/// Every finding about routes that stand together.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let own = own(file);
    let mut names: HashMap<&str, Option<Place>> = HashMap::new();
    let mut by_path: BTreeMap<&str, Vec<&Own>> = BTreeMap::new();
    for (route, paths) in &own {
        names.insert(&route.name, None);
        for path in paths {
            by_path.entry(path).or_default().push(route);
        }
    }
    let mut taken: HashMap<&str, Vec<(&FrontedRoute, &At<String>)>> = HashMap::new();
    for service in &file.services {
        for at in service.value.routes.iter().flat_map(|r| &r.value) {
            let route = &at.value;
            if let Some(name) = &route.name {
                match names.get(name.value.as_str()) {
                    Some(first) => {
                        let whose = match first {
                            Some(place) => format!("first in line {}", place.line),
                            None => "and is one of the gateway's own".to_owned(),
                        };
                        let message = format!("route {} stands twice, {whose}", name.value);
                        out.push(
                            error("duplicate_route", name, message)
                                .hint("give each route of all services a name of its own"),
                        );
                    }
                    None => {
                        names.insert(&name.value, Some(name.place));
                    }
                }
            }
            if !route.conditioned {
                let message = format!("{} takes every request", at.path);
                out.push(
                    error("missing", at, message).hint("add `paths: [/api]`, or hosts, or methods"),
                );
            }
            for path in &route.paths {
                against_own(route, path, &by_path, out);
                let others = taken.entry(&path.value).or_default();
                if let Some((_, first)) = others.iter().find(|(other, _)| same(route, other)) {
                    let message = format!("{} already takes {}", first.path, path.value);
                    out.push(warning("duplicate_path", path, message).hint(
                        "a request takes one route: give each its own paths, methods or hosts",
                    ));
                }
                others.push((route, path));
            }
        }
    }
}

/// The mesh's own routes with their paths, as far as they can be read.
fn own(file: &File) -> Vec<(Own, Vec<String>)> {
    match &file.gateway.routes {
        Some(routes) => routes
            .value
            .iter()
            .map(|at| {
                let route = &at.value;
                let own = Own {
                    name: route
                        .name
                        .as_ref()
                        .map_or_else(String::new, |n| n.value.clone()),
                    methods: route.methods.iter().map(|m| m.value.clone()).collect(),
                };
                (own, route.paths.iter().map(|p| p.value.clone()).collect())
            })
            .collect(),
        None if file.agents.is_empty() => Vec::new(),
        None => default_routes()
            .into_iter()
            .map(|route| {
                let own = Own {
                    name: route.name,
                    methods: route.methods,
                };
                (own, route.paths)
            })
            .collect(),
    }
}

fn kinds(route: &FrontedRoute) -> usize {
    let headers = route.headers.as_ref().is_some_and(|h| !h.value.is_empty());
    [
        !route.paths.is_empty(),
        !route.methods.is_empty(),
        !route.hosts.is_empty(),
        headers,
        !route.snis.is_empty(),
    ]
    .into_iter()
    .filter(|given| *given)
    .count()
}

/// Whether a method is taken by both.
fn meet(route: &FrontedRoute, own: &Own) -> bool {
    own.methods.is_empty()
        || route.methods.is_empty()
        || route.methods.iter().any(|m| own.methods.contains(&m.value))
}

fn against_own(
    route: &FrontedRoute,
    path: &At<String>,
    own: &BTreeMap<&str, Vec<&Own>>,
    out: &mut Vec<Finding>,
) {
    if own.is_empty() {
        return;
    }
    let service = kinds(route);
    if let Some(expression) = path.value.strip_prefix('~') {
        // Expressions go before prefixes of as many kinds. One that Kong's engine alone understands
        // cannot be judged here.
        let Ok(expression) = regex::Regex::new(&format!("^(?:{expression})")) else {
            return;
        };
        let hit = own.iter().find_map(|(theirs, routes)| {
            let takes = |o: &&&Own| service >= o.kinds() && meet(route, o);
            let first = routes.iter().find(takes)?;
            expression.is_match(theirs).then_some((*theirs, *first))
        });
        if let Some((theirs, hit)) = hit {
            let message = format!(
                "{} takes {theirs} of route {} without its filters",
                path.path, hit.name
            );
            out.push(
                error("route_shadows", path, message)
                    .hint("narrow the expression, or write a prefix"),
            );
        }
        return;
    }
    if let Some(same) = own.get(path.value.as_str()) {
        if let Some(hit) = same.iter().find(|o| service >= o.kinds() && meet(route, o)) {
            let message = format!(
                "{} takes {} of the mesh's own route {}",
                path.path, path.value, hit.name
            );
            out.push(
                error("duplicate_path", path, message)
                    .hint("what comes that way is guarded by filters: choose another path"),
            );
        }
        return;
    }
    // Longer than an own one: its requests do not meet the filters, which may be meant.
    let prefixes = path.value.char_indices().skip(1).map(|(end, _)| end);
    let within = prefixes
        .filter_map(|end| path.value.get(..end))
        .filter_map(|prefix| own.get(prefix).map(|routes| (prefix, routes)))
        .find_map(|(prefix, routes)| {
            let hit = routes
                .iter()
                .find(|o| service >= o.kinds() && meet(route, o))?;
            Some((prefix, *hit))
        });
    if let Some((prefix, hit)) = within {
        let message = format!(
            "{} lies within {prefix} of route {}, and goes past its filters",
            path.path, hit.name
        );
        out.push(
            warning("route_shadows", path, message)
                .hint("choose a path outside it, if that is not meant"),
        );
    }
    // Shorter, and first all the same because of what else it asks for.
    let after = (Bound::Excluded(path.value.as_str()), Bound::Unbounded);
    let below = own
        .range::<str, _>(after)
        .take_while(|(theirs, _)| theirs.starts_with(path.value.as_str()))
        .find_map(|(theirs, routes)| {
            let hit = routes
                .iter()
                .find(|o| service > o.kinds() && meet(route, o))?;
            Some((*theirs, *hit))
        });
    if let Some((theirs, hit)) = below {
        let message = format!(
            "{} takes {theirs} of route {} without its filters: more conditions go first",
            path.path, hit.name
        );
        out.push(
            error("route_shadows", path, message)
                .hint("choose a path that does not begin its paths"),
        );
    }
}

/// Whether nothing but chance decides between two routes of one path.
fn same(one: &FrontedRoute, other: &FrontedRoute) -> bool {
    let set = |list: &[At<String>]| -> HashSet<String> {
        list.iter().map(|at| at.value.clone()).collect()
    };
    let overlap = |a: &[At<String>], b: &[At<String>]| {
        let (a, b) = (set(a), set(b));
        (a.is_empty() && b.is_empty()) || !a.is_disjoint(&b)
    };
    let headers = |route: &FrontedRoute| route.headers.as_ref().map(|h| h.value.clone());
    overlap(&one.methods, &other.methods)
        && overlap(&one.hosts, &other.hosts)
        && overlap(&one.snis, &other.snis)
        && headers(one) == headers(other)
}
