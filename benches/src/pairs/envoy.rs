//! Envoy in both roles: the peer's name is matched against the one URI of its certificate, as ours does.

use super::{Between, Form, Ground, Proxy};
use crate::certificates::{Leaf, id_of};
use crate::process::Process;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Above the connections of any measurement.
const MAX_CONNECTIONS: u32 = 20_000;

pub(super) fn inbound(
    ground: &Ground,
    form: Form,
    leaf: &Leaf,
    address: SocketAddr,
) -> Result<Process> {
    let roots = &ground.authority.roots;
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": tls_type("DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": tls_context(leaf, roots, &ground.client.id, &["h2", "http/1.1"]),
        },
    });
    let agent = cluster(ground.agent, Between::Http1, None);
    start(ground, form, "in", listener(address, Some(tls)), agent)
}

pub(super) fn outbound(
    ground: &Ground,
    form: Form,
    inbound: &Proxy,
    address: SocketAddr,
) -> Result<Process> {
    let peer = id_of(&inbound.service);
    let alpn = match form.between {
        Between::Http2 => "h2",
        Between::Http1 => "http/1.1",
    };
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": tls_type("UpstreamTlsContext"),
            "common_tls_context":
                tls_context(&ground.client, &ground.authority.roots, &peer, &[alpn]),
        },
    });
    let next = cluster(inbound.address, form.between, Some(tls));
    start(ground, form, "out", listener(address, None), next)
}

fn start(
    ground: &Ground,
    form: Form,
    role: &str,
    listener: Value,
    cluster: Value,
) -> Result<Process> {
    let bootstrap = json!({
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": MAX_CONNECTIONS,
            },
        }]},
    });
    let name = format!("{}-{role}", form.label());
    // JSON is YAML.
    let file = ground.scratch.join(format!("{name}.yaml"));
    fs::write(&file, format!("{bootstrap:#}\n"))?;
    let mut command = Command::new(&ground.programs.envoy);
    command
        .arg("-c")
        .arg(&file)
        .args(["--concurrency", &form.threads.to_string()])
        .args(["--disable-hot-restart", "--log-level", "warning"]);
    Process::start(&name, &ground.scratch, command)
        .context("is Envoy installed? benches/setup.sh installs it")
}

fn tls_type(context: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}")
}

fn tls_context(leaf: &Leaf, roots: &Path, peer: &str, alpn: &[&str]) -> Value {
    json!({
        "alpn_protocols": alpn,
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [{
            "certificate_chain": {"filename": leaf.certificate},
            "private_key": {"filename": leaf.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": roots},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    })
}

fn listener(address: SocketAddr, tls: Option<Value>) -> Value {
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "all",
            // It says whom it has the request from, as ours does.
            "use_remote_address": true,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                },
            }],
        },
    }]});
    if let (Some(tls), Some(fields)) = (tls, chain.as_object_mut()) {
        fields.insert("transport_socket".to_owned(), tls);
    }
    json!({"name": "all", "address": socket(address), "filter_chains": [chain]})
}

fn cluster(address: SocketAddr, speaks: Between, tls: Option<Value>) -> Value {
    let options = match speaks {
        Between::Http2 => "http2_protocol_options",
        Between::Http1 => "http_protocol_options",
    };
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {options: {}},
            },
        },
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}],
        },
    });
    if let (Some(tls), Some(fields)) = (tls, cluster.as_object_mut()) {
        fields.insert("transport_socket".to_owned(), tls);
    }
    cluster
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
