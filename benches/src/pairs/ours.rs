//! Our sidecars: the client's with a way out, the agent's with a way in.

use super::{Between, CLIENT, Form, Ground};
use crate::certificates::{Leaf, TRUST_DOMAIN};
use crate::mesh;
use crate::process::{Process, free_address};
use anyhow::Result;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

/// Longer than any measurement: connections that rest are to stay.
const REST_MS: u64 = 600_000;

pub(super) fn inbound(
    ground: &Ground,
    form: Form,
    leaf: &Leaf,
    address: SocketAddr,
) -> Result<Process> {
    let mut config = inbound_config(leaf, &ground.authority.roots, address, ground.agent)?;
    add(&mut config, "registry", ground.registry());
    add(&mut config, "threads", form.threads.into());
    let name = format!("{}-in", form.label());
    mesh::sidecar(&ground.programs.sidecar, &ground.scratch, &name, &config)
}

pub(super) fn outbound(ground: &Ground, form: Form, address: SocketAddr) -> Result<Process> {
    let mut config = outbound_config(&ground.client, &ground.authority.roots, address)?;
    add(&mut config, "registry", ground.registry());
    add(&mut config, "threads", form.threads.into());
    if let Some(outbound) = config.get_mut("outbound") {
        let between = match form.between {
            Between::Http2 => "http2",
            Between::Http1 => "http1",
        };
        add(outbound, "between", between.into());
    }
    let name = format!("{}-out", form.label());
    mesh::sidecar(&ground.programs.sidecar, &ground.scratch, &name, &config)
}

impl Ground {
    fn registry(&self) -> Value {
        match &self.consul {
            Some(consul) => json!({"consul": {"url": consul.url()}}),
            None => json!({}),
        }
    }
}

/// A sidecar that takes mTLS from [`CLIENT`] at `address` for the agent at `agent`; in no registry.
///
/// # Errors
/// When no port is free.
pub fn inbound_config(
    leaf: &Leaf,
    roots: &Path,
    address: SocketAddr,
    agent: SocketAddr,
) -> Result<Value> {
    Ok(json!({
        "service": leaf.service,
        "admin_listen": free_address()?,
        "app": {"url": format!("http://{agent}"), "health": {"check": "tcp"}},
        "identity": identity(leaf, roots),
        "inbound": {"listen": address, "limits": limits()},
        "policy": {"intentions": [{"from": {"services": [CLIENT]}}]},
    }))
}

/// A sidecar that takes plain HTTP at `address`; in no registry.
///
/// # Errors
/// When no port is free.
pub fn outbound_config(leaf: &Leaf, roots: &Path, address: SocketAddr) -> Result<Value> {
    Ok(json!({
        "service": leaf.service,
        "admin_listen": free_address()?,
        "identity": identity(leaf, roots),
        "outbound": {"listen": address, "limits": limits()},
    }))
}

fn limits() -> Value {
    json!({"head_timeout_ms": REST_MS})
}

fn identity(leaf: &Leaf, roots: &Path) -> Value {
    let files = json!({"certificate": leaf.certificate, "key": leaf.key, "roots": roots});
    json!({"trust_domain": TRUST_DOMAIN, "source": {"files": files}})
}

/// Adds a field to an object.
pub fn add(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}
