//! Routes: which requests go to a service.

use crate::{Plugin, yes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One route. A request matches when it satisfies every kind of condition that is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique name.
    pub name: String,
    /// Service it leads to; left out in a route that stands in its service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Prefixes of the path; with a leading `~` a regular expression from the path's beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Methods, in upper case; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Host names, with `*` as the first or last label; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Headers and the values of which one must be there; a value with a leading `~*` is a regular
    /// expression.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Names that a client of https asks for; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snis: Vec<String>,
    /// Protocols of the client.
    #[serde(default = "protocols", skip_serializing_if = "is_protocols")]
    pub protocols: Vec<Protocol>,
    /// Whether the part of the path that matched is removed.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub strip_path: bool,
    /// Whether the service receives the client's `Host`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preserve_host: bool,
    /// Order among regular expressions, the highest first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub regex_priority: i32,
    /// Answer to a plain request for a route that takes https alone: 426, or a redirection.
    #[serde(default = "redirect", skip_serializing_if = "is_redirect")]
    pub https_redirect_status_code: u16,
    /// How service path and rest of the path are joined.
    #[serde(default, skip_serializing_if = "PathHandling::is_default")]
    pub path_handling: PathHandling,
    /// Whether Kong reads a request whole before it passes it on; it does when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_buffering: Option<bool>,
    /// Whether Kong reads an answer whole before it passes it on; it does when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_buffering: Option<bool>,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Plugins of this route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
}

/// Protocols of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC without TLS.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
}

/// How service path and rest of the path are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathHandling {
    /// With exactly one `/` between them.
    #[default]
    V0,
    /// By plain concatenation.
    V1,
}

impl PathHandling {
    fn is_default(&self) -> bool {
        *self == Self::V0
    }
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: String::new(),
            service: None,
            paths: Vec::new(),
            methods: Vec::new(),
            hosts: Vec::new(),
            headers: BTreeMap::new(),
            snis: Vec::new(),
            protocols: protocols(),
            strip_path: true,
            preserve_host: false,
            regex_priority: 0,
            https_redirect_status_code: redirect(),
            path_handling: PathHandling::V0,
            request_buffering: None,
            response_buffering: None,
            tags: Vec::new(),
            plugins: Vec::new(),
        }
    }
}

fn protocols() -> Vec<Protocol> {
    vec![Protocol::Http, Protocol::Https]
}

fn is_protocols(value: &[Protocol]) -> bool {
    value == [Protocol::Http, Protocol::Https]
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

fn redirect() -> u16 {
    426
}

fn is_redirect(value: &u16) -> bool {
    *value == redirect()
}
