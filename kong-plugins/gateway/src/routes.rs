//! Which route a request takes.
//!
//! As in Kong's traditional router: a route that states more kinds of conditions goes before one that
//! states fewer, then one with plain host names, then more headers, then the longer path, then the
//! order of the file. A route is taken apart by its paths, as Kong does it, so that each competes with
//! its own length. Paths are prefixes of characters, not of segments: `/task` also takes `/tasks`.

use http::{HeaderMap, HeaderName, Method};
use mesh_declarative::{PathHandling, Protocol, Route};
use std::sync::Arc;

/// What a route does with a request. Made by [`crate::build()`].
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// Name of the route.
    pub route: Arc<str>,
    /// Which of the services.
    pub service: usize,
    pub strip_path: bool,
    pub preserve_host: bool,
    /// Filters of the service, then filters of the route.
    pub chain: Arc<[crate::filters::Use]>,
}

/// All routes, the first to be tried first.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: Option<String>,
    methods: Arc<[Method]>,
    hosts: Arc<[Host]>,
    headers: Arc<[(HeaderName, Vec<String>)]>,
    destination: Arc<Destination>,
}

#[derive(Debug)]
enum Host {
    Plain(String),
    /// `*.example.com`: the text after the star.
    Suffix(String),
    /// `example.*`: the text before the star.
    Prefix(String),
}

/// A route's conditions, checked.
pub(crate) struct Conditions {
    paths: Vec<String>,
    methods: Arc<[Method]>,
    hosts: Arc<[Host]>,
    headers: Arc<[(HeaderName, Vec<String>)]>,
}

impl Conditions {
    /// Reads a route's conditions; what is wrong with them goes into `problems`.
    pub(crate) fn read(route: &Route, problems: &mut Vec<String>) -> Self {
        let name = &route.name;
        let mut wrong = |text: String| problems.push(format!("route {name}: {text}"));
        if !route.protocols.contains(&Protocol::Http) {
            wrong("it takes https alone, and this gateway listens without tls".to_owned());
        }
        if route.path_handling != PathHandling::V0 {
            wrong("path_handling v1 is not supported".to_owned());
        }
        if route.regex_priority != 0 {
            wrong("regex_priority is not supported".to_owned());
        }
        let mut paths = Vec::new();
        for path in &route.paths {
            if path.starts_with('~') {
                wrong(format!("regular expression {path} is not supported"));
            } else {
                match crate::path::normalise(path) {
                    // A prefix keeps the end that it has: "/a" is not "/a/".
                    Some(normal) if normal == *path => paths.push(normal),
                    _ => wrong(format!("path {path} is not in its normal form")),
                }
            }
        }
        let mut methods = Vec::new();
        for method in &route.methods {
            match Method::from_bytes(method.as_bytes()) {
                Ok(method) if method.as_str().chars().all(|c| !c.is_ascii_lowercase()) => {
                    methods.push(method);
                }
                _ => wrong(format!("{method} is no method")),
            }
        }
        let mut hosts = Vec::new();
        for host in &route.hosts {
            match Host::read(host) {
                Some(host) => hosts.push(host),
                None => wrong(format!("{host} is no host name")),
            }
        }
        let mut headers = Vec::new();
        for (header, values) in &route.headers {
            match HeaderName::from_bytes(header.as_bytes()) {
                Ok(_) if values.is_empty() || values.iter().any(|v| v.starts_with("~*")) => {
                    wrong(format!(
                        "header {header}: no value, or a regular expression"
                    ));
                }
                Ok(header) => headers.push((
                    header,
                    values.iter().map(|v| v.to_ascii_lowercase()).collect(),
                )),
                Err(_) => wrong(format!("{header} is no header")),
            }
        }
        if route.paths.is_empty() && methods.is_empty() && hosts.is_empty() && headers.is_empty() {
            wrong("it has no paths, methods, hosts or headers".to_owned());
        }
        Self {
            paths,
            methods: methods.into(),
            hosts: hosts.into(),
            headers: headers.into(),
        }
    }
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let plain = |text: &str| !text.is_empty() && !text.contains(['*', '/', ' ', ':']);
        if let Some(rest) = text.strip_prefix('*') {
            return (rest.starts_with('.') && plain(rest)).then(|| Self::Suffix(rest.to_owned()));
        }
        if let Some(rest) = text.strip_suffix('*') {
            return (rest.ends_with('.') && plain(rest)).then(|| Self::Prefix(rest.to_owned()));
        }
        plain(&text).then_some(Self::Plain(text))
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Plain(name) => name == host,
            Self::Suffix(end) => host.len() > end.len() && host.ends_with(end),
            Self::Prefix(start) => host.len() > start.len() && host.starts_with(start),
        }
    }
}

/// A route that takes the request, and the prefix of the path by which it does.
pub(crate) struct Match<'a> {
    pub destination: &'a Arc<Destination>,
    pub prefix: &'a str,
}

impl Table {
    /// Adds a route; the table is complete after [`Table::sort`].
    pub(crate) fn add(&mut self, conditions: Conditions, destination: Destination) {
        let destination = Arc::new(destination);
        let paths: Vec<Option<String>> = if conditions.paths.is_empty() {
            vec![None]
        } else {
            conditions.paths.into_iter().map(Some).collect()
        };
        for path in paths {
            self.entries.push(Entry {
                path,
                methods: Arc::clone(&conditions.methods),
                hosts: Arc::clone(&conditions.hosts),
                headers: Arc::clone(&conditions.headers),
                destination: Arc::clone(&destination),
            });
        }
    }

    /// Brings the routes into the order in which they are tried.
    pub(crate) fn sort(&mut self) {
        self.entries.sort_by_key(|entry| {
            let kinds = [
                entry.path.is_some(),
                !entry.methods.is_empty(),
                !entry.hosts.is_empty(),
                !entry.headers.is_empty(),
            ];
            let kinds = kinds.iter().filter(|given| **given).count();
            let plain =
                !entry.hosts.is_empty() && entry.hosts.iter().all(|h| matches!(h, Host::Plain(_)));
            let length = entry.path.as_ref().map_or(0, String::len);
            std::cmp::Reverse((kinds, plain, entry.headers.len(), length))
        });
    }

    /// The route for a request; `path` in its normal form, `host` in lower case and without port.
    pub(crate) fn find(
        &self,
        method: &Method,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Match<'_>> {
        let entry = self.entries.iter().find(|entry| {
            entry
                .path
                .as_ref()
                .is_none_or(|p| path.starts_with(p.as_str()))
                && (entry.methods.is_empty() || entry.methods.contains(method))
                && (entry.hosts.is_empty() || entry.hosts.iter().any(|h| h.matches(host)))
                && entry.headers.iter().all(|(name, values)| {
                    headers.get_all(name).iter().any(|given| {
                        values
                            .iter()
                            .any(|v| given.as_bytes().eq_ignore_ascii_case(v.as_bytes()))
                    })
                })
        })?;
        Some(Match {
            destination: &entry.destination,
            prefix: entry.path.as_deref().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
