//! A route's conditions, read and checked.

use super::HeaderCondition;
use http::{HeaderName, Method, StatusCode};
use mesh_declarative::{PathHandling, Protocol, Route};
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// Longest regular expression, and the most memory that a compiled one may take, in bytes. Matching is
/// linear in the length of the path whatever the expression is.
const PATTERN_BYTES: usize = 4096;
const COMPILED_BYTES: usize = 1024 * 1024;

/// A condition on the path.
#[derive(Debug)]
pub(super) enum PathCondition {
    Prefix(String),
    Pattern { pattern: Regex, priority: u32 },
}

impl PathCondition {
    /// The beginning of `path` that the condition takes.
    pub(super) fn matched<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()).then(|| {
                // The prefix of the path, so that both kinds lend from the request.
                path.get(..prefix.len()).unwrap_or_default()
            }),
            Self::Pattern { pattern, .. } => pattern.find(path).map(|m| m.as_str()),
        }
    }
}

/// A condition on the host.
#[derive(Debug)]
pub(super) enum Host {
    Plain(String),
    /// `*.example.com`: the text after the star.
    Suffix(String),
    /// `example.*`: the text before the star.
    Prefix(String),
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

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Plain(name) => name == host,
            Self::Suffix(end) => host.len() > end.len() && host.ends_with(end),
            Self::Prefix(start) => host.len() > start.len() && host.starts_with(start),
        }
    }
}

/// What a route's protocols leave out: such a request takes the route, and is answered by Kong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refused {
    /// The route takes https alone: 426, or the status of a redirection.
    pub plain: Option<StatusCode>,
    /// The route takes gRPC alone.
    pub not_grpc: bool,
}

impl Refused {
    fn read(route: &Route, wrong: &mut impl FnMut(String)) -> Self {
        let takes = |protocol| route.protocols.contains(&protocol);
        if route.protocols.is_empty() {
            wrong("protocols: it takes none".to_owned());
        }
        let grpc = takes(Protocol::Grpc) || takes(Protocol::Grpcs);
        if grpc && (takes(Protocol::Http) || takes(Protocol::Https)) {
            wrong("protocols: grpc and http in one route".to_owned());
        }
        if grpc && !takes(Protocol::Grpc) {
            wrong("protocols: grpcs alone, and this gateway listens without tls".to_owned());
        }
        if grpc && (route.strip_path || !route.methods.is_empty()) {
            wrong("protocols: a route of grpc has strip_path false and no methods".to_owned());
        }
        let status = route.https_redirect_status_code;
        if ![426, 301, 302, 307, 308].contains(&status) {
            wrong("https_redirect_status_code is none of 426, 301, 302, 307, 308".to_owned());
        }
        Self {
            plain: (!grpc && !takes(Protocol::Http))
                .then(|| StatusCode::from_u16(status).ok())
                .flatten(),
            not_grpc: grpc,
        }
    }
}

/// A route's conditions, checked.
pub(crate) struct Conditions {
    pub(super) paths: Vec<PathCondition>,
    pub(super) methods: Arc<[Method]>,
    pub(super) hosts: Arc<[Host]>,
    pub(super) headers: Arc<[(HeaderName, Vec<HeaderCondition>)]>,
    pub(crate) refused: Refused,
}

impl Conditions {
    /// Reads a route's conditions; what is wrong with them goes into `problems`.
    pub(crate) fn read(route: &Route, problems: &mut Vec<String>) -> Self {
        let name = &route.name;
        let mut wrong = |text: String| problems.push(format!("route {name}: {text}"));
        let refused = Refused::read(route, &mut wrong);
        if route.path_handling != PathHandling::V0 {
            wrong("path_handling v1 is not supported".to_owned());
        }
        if !route.snis.is_empty() {
            wrong("snis are not supported".to_owned());
        }
        // Bodies flow here, unless a filter asks for them whole.
        for (field, buffering) in [
            ("request_buffering", route.request_buffering),
            ("response_buffering", route.response_buffering),
        ] {
            if buffering == Some(true) {
                wrong(format!("{field} true is not supported"));
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
        let paths = paths(route, &mut wrong);
        let headers = headers(route, &mut wrong);
        if route.paths.is_empty() && methods.is_empty() && hosts.is_empty() && headers.is_empty() {
            wrong("it has no paths, methods, hosts or headers".to_owned());
        }
        Self {
            paths,
            methods: methods.into(),
            hosts: hosts.into(),
            headers: headers.into(),
            refused,
        }
    }
}

fn paths(route: &Route, wrong: &mut impl FnMut(String)) -> Vec<PathCondition> {
    let mut paths = Vec::new();
    let priority = u32::try_from(route.regex_priority).unwrap_or_else(|_| {
        // In Kong it would spill into the bits of the other conditions.
        wrong("regex_priority is negative".to_owned());
        0
    });
    for path in &route.paths {
        if let Some(text) = path.strip_prefix('~') {
            match pattern(text) {
                Ok(pattern) => paths.push(PathCondition::Pattern { pattern, priority }),
                Err(problem) => wrong(format!("path {path}: {problem}")),
            }
            continue;
        }
        match crate::path::normalise(path) {
            // A prefix keeps the end that it has: "/a" is not "/a/".
            Some(normal) if normal == *path => paths.push(PathCondition::Prefix(normal)),
            _ => wrong(format!("path {path} is not in its normal form")),
        }
    }
    paths
}

fn pattern(text: &str) -> Result<Regex, String> {
    if !text.trim_start_matches('^').starts_with('/') {
        return Err("a regular expression for a path begins with ~/".to_owned());
    }
    if text.len() > PATTERN_BYTES {
        return Err(format!("more than {PATTERN_BYTES} bytes"));
    }
    RegexBuilder::new(&format!("^(?:{text})"))
        .size_limit(COMPILED_BYTES)
        .build()
        .map_err(|e| one_line(&e))
}

fn headers(
    route: &Route,
    wrong: &mut impl FnMut(String),
) -> Vec<(HeaderName, Vec<HeaderCondition>)> {
    let mut headers = Vec::new();
    for (header, values) in &route.headers {
        let Ok(name) = HeaderName::from_bytes(header.as_bytes()) else {
            wrong(format!("{header} is no header"));
            continue;
        };
        if name == http::header::HOST {
            wrong("header host: that is what hosts are for".to_owned());
        }
        if values.is_empty() {
            wrong(format!("header {header}: no value"));
        }
        let mut conditions = Vec::new();
        for value in values {
            match value.strip_prefix("~*") {
                None => conditions.push(HeaderCondition::Value(value.to_ascii_lowercase())),
                Some(text) => match header_pattern(text) {
                    Ok(pattern) => conditions.push(HeaderCondition::Pattern(pattern)),
                    Err(problem) => wrong(format!("header {header}: {problem}")),
                },
            }
        }
        headers.push((name, conditions));
    }
    headers
}

/// Kong compares value and expression in lower case. That turns `\D` into `\d`, so such is refused.
fn header_pattern(text: &str) -> Result<regex::bytes::Regex, String> {
    if text.len() > PATTERN_BYTES {
        return Err(format!("more than {PATTERN_BYTES} bytes"));
    }
    let mut escaped = false;
    for c in text.chars() {
        if escaped && c.is_ascii_uppercase() {
            return Err(format!("Kong reads \\{c} in lower case, as another class"));
        }
        escaped = c == '\\' && !escaped;
    }
    regex::bytes::RegexBuilder::new(text)
        .case_insensitive(true)
        .size_limit(COMPILED_BYTES)
        .build()
        .map_err(|e| one_line(&e))
}

/// What is wrong with an expression; the crate draws it over several lines, the last has the reason.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    format!("no regular expression that runs here: {reason}")
}
