//! Envoy with the filters in it.
//!
//! One process has a listener per chain of filters. What an Envoy must be told so that the filters decide
//! there as they do elsewhere stands here, with the reason beside it ([`connection_manager`]).

use crate::binary::program_of;
use crate::server::{Server, directory, free_port};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Headers of a request, and their size: far above what any other gateway takes, so that the filters decide.
const MAX_HEADERS: u32 = 4096;
const MAX_HEAD_KB: u32 = 4096;
/// Worker threads, each with its own VMs: what is exact must be so across them.
const WORKERS: &str = "2";

/// One filter of a chain.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Name of its module, without `.wasm`.
    pub name: String,
    /// Its configuration, in JSON.
    pub config: String,
}

/// What an Envoy is started with.
#[derive(Debug)]
pub struct Setup {
    /// Directory of the modules.
    pub modules: PathBuf,
    /// Where requests go that pass.
    pub upstream: SocketAddr,
    /// Chains of filters by name; each gets a listener.
    pub chains: BTreeMap<String, Vec<Filter>>,
    /// Addresses that filters dispatch to; each is a cluster named `host:port`.
    pub dispatch: Vec<SocketAddr>,
    /// Longest request body, in bytes.
    pub max_body: u32,
}

/// An Envoy that runs.
#[derive(Debug)]
pub struct Envoy {
    server: Server,
    directory: TempDir,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Envoy {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub async fn start(setup: &Setup) -> Self {
        let directory = directory("envoy");
        let listeners: BTreeMap<String, SocketAddr> = setup
            .chains
            .keys()
            .map(|name| {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
                (name.clone(), address)
            })
            .collect();
        let bootstrap = bootstrap(setup, &listeners);
        // JSON is YAML.
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, format!("{bootstrap:#}\n")).expect("write the bootstrap");
        let arguments = [
            "-c",
            &file.display().to_string(),
            "--concurrency",
            WORKERS,
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ];
        let server = Server::start(
            &program_of("envoy", "envoy"),
            &arguments,
            &[],
            directory.path(),
        );
        for address in listeners.values() {
            server.listens_on(address.port()).await;
        }
        Self {
            server,
            directory,
            listeners,
        }
    }

    /// Where the chain `name` listens.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn address(&self, name: &str) -> SocketAddr {
        *self
            .listeners
            .get(name)
            .unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// Its process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// What it and its filters have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("envoy.log")).unwrap_or_default()
    }
}

fn bootstrap(setup: &Setup, addresses: &BTreeMap<String, SocketAddr>) -> Value {
    let listeners = setup.chains.iter().filter_map(|(name, chain)| {
        let address = addresses.get(name)?;
        Some(listener(name, *address, chain, setup))
    });
    let mut named = vec![setup.upstream];
    named.extend(&setup.dispatch);
    named.dedup();
    json!({
        "static_resources": {
            "listeners": listeners.collect::<Vec<_>>(),
            "clusters": named.iter().map(|address| cluster(*address)).collect::<Vec<_>>(),
        },
        // No bound on connections is wanted here, and so no warning that there is none.
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 10_000,
            },
        }]},
    })
}

fn listener(name: &str, address: SocketAddr, chain: &[Filter], setup: &Setup) -> Value {
    json!({
        "name": name,
        "address": socket(address),
        // Filters that look at bodies hold them here.
        "per_connection_buffer_limit_bytes": setup.max_body,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": connection_manager(name, chain, setup),
        }]}],
    })
}

fn connection_manager(name: &str, chain: &[Filter], setup: &Setup) -> Value {
    let mut filters: Vec<Value> = chain
        .iter()
        .enumerate()
        .map(|(number, filter)| wasm(&format!("{name}-{number}"), filter, &setup.modules))
        .collect();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    }));
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        // Without it `source.address` is what the client writes into X-Forwarded-For.
        "use_remote_address": true,
        // Filters see the client's own list, as they do in Kong.
        "skip_xff_append": true,
        // Upstream and filters see one form of a path, as they do behind Kong.
        "normalize_path": true,
        "merge_slashes": true,
        "max_request_headers_kb": MAX_HEAD_KB,
        "common_http_protocol_options": {"max_headers_count": MAX_HEADERS},
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": setup.upstream.to_string()},
            }],
        }]},
        "http_filters": filters,
    })
}

fn wasm(root: &str, filter: &Filter, modules: &Path) -> Value {
    let module = modules.join(format!("{}.wasm", filter.name));
    json!({
        "name": root,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": root,
                "root_id": root,
                // Else a filter that holds the head until it has seen the body never sees the body.
                "allow_on_headers_stop_iteration": true,
                // A VM that fails refuses.
                "failure_policy": "FAIL_CLOSED",
                "vm_config": {
                    "vm_id": filter.name,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": filter.config,
                },
            },
        },
    })
}

/// A cluster by the one name that the filters have for it.
fn cluster(address: SocketAddr) -> Value {
    let name = address.to_string();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}],
        },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
