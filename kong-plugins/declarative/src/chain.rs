//! What runs on a request: Kong's own plugins, and chains of Proxy-Wasm filters.

use crate::yes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One of Kong's plugins.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Name of the plugin.
    pub name: String,
    /// The service that it runs for, in a plugin that stands beside the services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The route that it runs for, in a plugin that stands beside the services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Its name among those of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,
    /// Protocols of the requests that it runs for; all that it knows when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    /// Its configuration; null when it has none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    /// Whether it runs.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Filters of one service or of one route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterChain {
    /// Unique name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The service, exactly one of `service` and `route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The route, exactly one of `service` and `route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Whether it runs.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The filters, in the order in which they run.
    pub filters: Vec<FilterUse>,
}

/// One filter of a chain.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterUse {
    /// File name of the module without `.wasm`.
    pub name: String,
    /// Whether it runs.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
    /// Its configuration: an object becomes JSON text, a string is handed over as it is, null is empty.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            name: String::new(),
            service: None,
            route: None,
            instance_name: None,
            protocols: Vec::new(),
            config: Value::Null,
            enabled: true,
            tags: Vec::new(),
        }
    }
}

impl Default for FilterChain {
    fn default() -> Self {
        Self {
            name: None,
            service: None,
            route: None,
            enabled: true,
            tags: Vec::new(),
            filters: Vec::new(),
        }
    }
}

impl Default for FilterUse {
    fn default() -> Self {
        Self {
            name: String::new(),
            enabled: true,
            config: Value::Null,
        }
    }
}

// Configurations hold keys and passwords: they stay out of Debug.
impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FilterUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterUse")
            .field("name", &self.name)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}
