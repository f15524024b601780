//! The chains of the corpus with their configurations filled in, once per run: every gateway gets the same.

use crate::corpus::File;
use crate::text::Filling;
use mesh_declarative::{Config, FilterChain, FilterUse, Route, Service};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Longest request body, in bytes, in every gateway.
pub const MAX_BODY: usize = 1024 * 1024;
/// Ends the hosts by which one gateway tells all chains apart. Paths stay as the cases have them.
const DOMAIN: &str = ".verdicts.test";

/// One chain.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its file in the corpus.
    pub name: String,
    /// Filters and their configurations.
    pub filters: Vec<(String, Value)>,
}

/// The host that leads to the chain `name`.
pub(crate) fn host(name: &str) -> String {
    format!("{name}{DOMAIN}")
}

/// All chains, which may ask the echo at `echo` for what they need.
pub fn all(files: &[File], echo: SocketAddr) -> Vec<Chain> {
    let filled = |file: &File| {
        let mut filling = Filling::now(&crate::text::fresh());
        filling.echo = Some(echo);
        let filters = file.config.iter();
        Chain {
            name: file.name.clone(),
            filters: filters
                .map(|one| (one.filter.clone(), filling.json(&one.config)))
                .collect(),
        }
    };
    files.iter().map(filled).collect()
}

/// The kong.yml with a route per chain, all to `upstream`.
pub fn declarative(chains: &[Chain], upstream: SocketAddr) -> Config {
    let routes = chains.iter().map(|chain| Route {
        name: chain.name.clone(),
        hosts: vec![host(&chain.name)],
        paths: vec!["/".to_owned()],
        strip_path: false,
        ..Route::default()
    });
    let filters = |chain: &Chain| {
        let filters = chain.filters.iter();
        filters
            .map(|(name, config)| FilterUse {
                name: name.clone(),
                config: config.clone(),
                ..FilterUse::default()
            })
            .collect()
    };
    Config {
        services: vec![Service {
            name: "echo".to_owned(),
            url: Some(format!("http://{upstream}")),
            routes: routes.collect(),
            ..Service::default()
        }],
        filter_chains: chains
            .iter()
            .map(|chain| FilterChain {
                name: Some(chain.name.clone()),
                route: Some(chain.name.clone()),
                filters: filters(chain),
                ..FilterChain::default()
            })
            .collect(),
        ..Config::default()
    }
}

/// Where the modules are that `make filters` has built.
///
/// # Panics
/// When they are not built.
pub fn modules() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let modules = root.join("target/filters");
    assert!(
        modules.is_dir(),
        "no filters in {}: run make filters",
        modules.display()
    );
    modules
        .canonicalize()
        .expect("the directory of the modules")
}
