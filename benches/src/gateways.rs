//! The gateways that are compared, each with two workers, and the upstream behind all of them.

use crate::chain::{FILTERS, Keys};
use crate::mesh::ours;
use crate::nginx::Nginx;
use crate::process::{Process, cpu_s_of, free_address};
use crate::rows::Bench;
use anyhow::{Context, Result};
use mesh_tests::envoy::{Envoy, Filter, Setup};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);
/// Of ours and of nginx; Envoy is started with as many by [`mesh_tests::envoy`].
const WORKERS: usize = 2;
const MAX_BODY: u32 = 1024 * 1024;

/// Everything that is compared, running.
pub struct Gateways {
    _upstream: Process,
    ours: BTreeMap<&'static str, (SocketAddr, Process)>,
    envoy: Envoy,
    nginx: (SocketAddr, Process),
}

/// Name of the chain with all four filters.
pub const FOUR: &str = "four";
/// Name of the chain without any.
pub const NONE: &str = "none";

/// One gateway to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Where it listens.
    pub address: SocketAddr,
    pid: u32,
}

impl Side {
    /// Processor time so far of it and its workers, in seconds.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn cpu_s(&self) -> Result<f64> {
        cpu_s_of(self.pid)
    }
}

impl Gateways {
    /// Starts them all.
    ///
    /// # Errors
    /// When one does not come up; with the end of its log.
    pub async fn start(bench: &Bench, keys: &Keys) -> Result<Self> {
        let scratch = bench.scratch.path();
        let upstream = Nginx::answering("{}").start(scratch, "upstream").await?;
        let configs = keys.configs()?;
        let filters: Vec<Filter> = FILTERS
            .iter()
            .zip(&configs)
            .map(|(name, config)| Filter {
                name: (*name).to_owned(),
                config: config.to_string(),
            })
            .collect();
        let envoy = Envoy::start(&Setup {
            modules: bench.root.join("target/filters"),
            upstream: upstream.0,
            chains: BTreeMap::from([(FOUR.to_owned(), filters), (NONE.to_owned(), Vec::new())]),
            dispatch: Vec::new(),
            max_body: MAX_BODY,
        })
        .await;
        let filters = FILTERS.iter().zip(&configs);
        let filters = filters.map(|(name, config)| json!({"name": name, "config": config}));
        let mut both = BTreeMap::new();
        for (name, chain) in [(FOUR, filters.collect()), (NONE, Vec::new())] {
            both.insert(name, local(bench, name, upstream.0, chain).await?);
        }
        let proxy = format!(
            "proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             client_body_buffer_size {MAX_BODY};"
        );
        let nginx = Nginx {
            workers: WORKERS,
            before: format!(
                "upstream upstream {{ server {}; keepalive 64; }}",
                upstream.0
            ),
            location: proxy,
        };
        let nginx = nginx.start(scratch, "nginx").await?;
        Ok(Self {
            _upstream: upstream.1,
            ours: both,
            envoy,
            nginx,
        })
    }

    /// Each of them.
    pub fn all(&self) -> Vec<Side> {
        let ours = self.ours.values().map(|(address, process)| Side {
            address: *address,
            pid: process.id(),
        });
        ours.chain([self.envoy(FOUR), self.envoy(NONE), self.nginx()])
            .collect()
    }

    /// Ours with a chain.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn ours(&self, chain: &str) -> Result<Side> {
        let (address, process) = self.ours.get(chain).context("no such chain")?;
        Ok(Side {
            address: *address,
            pid: process.id(),
        })
    }

    /// Envoy with a chain.
    pub fn envoy(&self, chain: &str) -> Side {
        Side {
            address: self.envoy.address(chain),
            pid: self.envoy.pid(),
        }
    }

    /// nginx, which has no filters.
    pub fn nginx(&self) -> Side {
        Side {
            address: self.nginx.0,
            pid: self.nginx.1.id(),
        }
    }
}

async fn local(
    bench: &Bench,
    name: &str,
    upstream: SocketAddr,
    chain: Vec<Value>,
) -> Result<(SocketAddr, Process)> {
    let scratch = bench.scratch.path();
    let mut config = json!({
        "_format_version": "3.0",
        "services": [{
            "name": "upstream",
            "url": format!("http://{upstream}"),
            "routes": [{"name": "all", "paths": ["/"], "strip_path": false}],
        }],
    });
    if let (false, Some(fields)) = (chain.is_empty(), config.as_object_mut()) {
        let chains = json!([{"name": name, "route": "all", "filters": chain}]);
        fields.insert("filter_chains".to_owned(), chains);
    }
    // JSON is YAML.
    let file = scratch.join(format!("{name}.yml"));
    fs::write(&file, config.to_string())?;
    let address = free_address()?;
    let mut command = ours(&bench.binary("gateway"));
    command
        .arg("--config")
        .arg(&file)
        .args(["--listen", &address.to_string()])
        .args(["--workers", &WORKERS.to_string()])
        .arg("--filters")
        .arg(bench.root.join("target/filters"));
    let mut gateway = Process::start(&format!("gateway-{name}"), scratch, command)?;
    gateway.listening(address, START_LIMIT).await?;
    Ok((address, gateway))
}
