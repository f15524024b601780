//! The program beside which the sidecar stands, and how its health is found out.

use super::Faults;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The program beside which the sidecar stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its base URL on this machine, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// How its health is found out.
    #[serde(default)]
    pub health: Health,
}

/// How the program's health is found out; what the registry is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// Between two questions, in milliseconds.
    pub interval_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// Good answers in a row after which it is healthy again.
    pub healthy_after: u32,
    /// Bad answers in a row after which it is not.
    pub unhealthy_after: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check: HealthCheck::default(),
            interval_ms: 2_000,
            timeout_ms: 1_000,
            healthy_after: 1,
            unhealthy_after: 2,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthCheck {
    /// `GET /health` under the program's URL answers 2xx; a program that has no such page (404, 405, 501) is well
    /// when it answers.
    #[default]
    Usual,
    /// `GET` of this path under the program's URL answers 2xx.
    Http {
        /// The path, such as `/health`.
        path: String,
    },
    /// It accepts a connection.
    Tcp,
    /// This command ends with 0.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// Where the program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where steps are posted: the program's URL with `/process`.
    pub(crate) process_uri: http::Uri,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Path of its URL without the last `/`; empty for most.
    pub(crate) base_path: String,
}

impl App {
    pub(super) fn check(&self, faults: &mut Faults) -> Option<Place> {
        let health = &self.health;
        faults.millis("app.health.interval_ms", health.interval_ms, false);
        faults.millis("app.health.timeout_ms", health.timeout_ms, false);
        faults.some("app.health.healthy_after", health.healthy_after.into());
        faults.some("app.health.unhealthy_after", health.unhealthy_after.into());
        match &health.check {
            HealthCheck::Http { path } => {
                let uri = path.parse::<http::uri::PathAndQuery>();
                if !path.starts_with('/') || uri.is_err() {
                    faults.push("app.health.check.http.path must be a path, such as /health");
                }
            }
            HealthCheck::Usual | HealthCheck::Tcp => {}
            HealthCheck::Command { command } => {
                if command.first().is_none_or(|program| program.is_empty()) {
                    faults.push("app.health.check.command.command names no program");
                }
            }
        }
        place(&self.url).map_err(|e| faults.push(e)).ok()
    }
}

/// A program stands beside its sidecar, so its host is an address or `localhost`: no name is resolved,
/// and a step cannot be sent elsewhere by whoever answers for a name.
fn place(text: &str) -> Result<Place, String> {
    let fault = |why: &str| format!("app.url {why}, such as http://127.0.0.1:8080");
    let mut url = url::Url::parse(text).map_err(|_| fault("must be a URL"))?;
    if url.scheme() != "http" {
        return Err(fault("must begin with http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(fault("must hold neither credentials nor a query"));
    }
    let ip = match url.host() {
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(url::Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return Err(fault("must name the program by address or as localhost")),
    };
    url.set_ip_host(ip)
        .map_err(|()| fault("must have a host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let base_path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base_path}/process"));
    url.set_fragment(None);
    let process_uri = url.as_str().parse().map_err(|_| fault("must be a URL"))?;
    Ok(Place {
        process_uri,
        address: SocketAddr::new(ip, port),
        base_path,
    })
}
