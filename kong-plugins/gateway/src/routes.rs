//! Which route a request takes.
//!
//! The order is that of Kong 3's router of flavour `traditional_compatible` (its numbers: `get_priority`
//! in Kong's `kong/router/transform.lua`). Of the routes that take a request, the first by this list wins:
//!
//! 1. more kinds of conditions (methods, hosts, headers, paths),
//! 2. host names without any `*`, before wildcards and before none,
//! 3. more headers, at most 255 of them counted,
//! 4. a regular expression for the path, before a prefix,
//! 5. the higher `regex_priority`, among regular expressions,
//! 6. the longer prefix, among prefixes,
//! 7. the order of the file (Kong without a database has no ages to compare).
//!
//! A route is taken apart by its paths, as Kong does it, so that each competes with its own length. Paths
//! are prefixes of characters, not of segments: `/task` also takes `/tasks`. A regular expression is
//! tried from the path's beginning, as a whole: in `~/a|/b` both sides are (Kong anchors the first alone).

mod conditions;

pub(crate) use conditions::{Conditions, Refused};
use conditions::{Host, PathCondition};
use http::{HeaderMap, HeaderName, Method};
use regex::bytes::Regex;
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
    /// What the protocols of the route leave out.
    pub refused: Refused,
    /// Kong's own plugins, which run before the filters; None when there are none.
    pub plugins: Option<Arc<crate::plugins::Plugins>>,
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
    path: Option<PathCondition>,
    methods: Arc<[Method]>,
    hosts: Arc<[Host]>,
    headers: Arc<[(HeaderName, Vec<HeaderCondition>)]>,
    destination: Arc<Destination>,
}

#[derive(Debug)]
enum HeaderCondition {
    /// In lower case.
    Value(String),
    Pattern(Regex),
}

impl HeaderCondition {
    fn matches(&self, given: &[u8]) -> bool {
        match self {
            Self::Value(value) => given.eq_ignore_ascii_case(value.as_bytes()),
            Self::Pattern(pattern) => pattern.is_match(given),
        }
    }
}

/// A route that takes the request, and the beginning of the path by which it does.
pub(crate) struct Match<'a> {
    pub destination: &'a Arc<Destination>,
    pub prefix: &'a str,
}

impl Table {
    /// Adds a route; the table is complete after [`Table::sort`].
    pub(crate) fn add(&mut self, conditions: Conditions, destination: Destination) {
        let destination = Arc::new(destination);
        let paths: Vec<Option<PathCondition>> = if conditions.paths.is_empty() {
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
        // The sort is stable: what is equal stays in the order of the file.
        self.entries
            .sort_by_key(|entry| std::cmp::Reverse(entry.priority()));
    }

    /// The route for a request; `path` in its normal form, `host` in lower case and without port.
    pub(crate) fn find<'a>(
        &'a self,
        method: &Method,
        host: &str,
        path: &'a str,
        headers: &HeaderMap,
    ) -> Option<Match<'a>> {
        self.entries.iter().find_map(|entry| {
            let prefix = match &entry.path {
                None => "",
                Some(condition) => condition.matched(path)?,
            };
            entry.takes(method, host, headers).then_some(Match {
                destination: &entry.destination,
                prefix,
            })
        })
    }
}

impl Entry {
    fn priority(&self) -> (usize, bool, usize, bool, u32, usize) {
        let kinds = [
            self.path.is_some(),
            !self.methods.is_empty(),
            !self.hosts.is_empty(),
            !self.headers.is_empty(),
        ];
        let kinds = kinds.iter().filter(|given| **given).count();
        let plain = !self.hosts.is_empty() && self.hosts.iter().all(Host::is_plain);
        let (regex, regex_priority, length) = match &self.path {
            Some(PathCondition::Pattern { priority, .. }) => (true, *priority, 0),
            Some(PathCondition::Prefix(prefix)) => (false, 0, prefix.len()),
            None => (false, 0, 0),
        };
        let headers = self.headers.len().min(255);
        (kinds, plain, headers, regex, regex_priority, length)
    }

    fn takes(&self, method: &Method, host: &str, headers: &HeaderMap) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && (self.hosts.is_empty() || self.hosts.iter().any(|h| h.matches(host)))
            && self.headers.iter().all(|(name, conditions)| {
                headers
                    .get_all(name)
                    .iter()
                    .any(|given| conditions.iter().any(|c| c.matches(given.as_bytes())))
            })
    }
}

#[cfg(test)]
mod tests;
