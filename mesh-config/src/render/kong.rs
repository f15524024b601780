//! kong.yml: the routes of the mesh, each with the filters that guard it.

use super::sidecar::gateway_outbound;
use super::{RenderError, filters, fronted};
use crate::filters::Setting;
use crate::guard::{check_key, is_symmetric};
use crate::mesh::{
    Auth, DEVELOPMENT_ISSUER, DEVELOPMENT_KID, Destination, GATEWAY, Key, Mesh, TOKEN_KEY,
};
use crate::secret::{Secrets, Source, signing_key, signing_key_text};
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use mesh_declarative::{Config, Route, Service};
use mesh_policy::config::{Algorithm, AssertionSigner, Issuer, JwtAuth};
use mesh_protocol::assertion::HEADER_AGENT;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Name of the service that leads to the orchestrator.
pub const SERVICE: &str = "orchestrator";
/// Where the filters' modules are for Kong when nobody says otherwise.
pub const FILTERS_PATH: &str = "/usr/local/share/mesh/filters";
/// Name of the service that leads to the agents.
pub const AGENTS: &str = "agents";

/// The development issuer's private key; its public half goes into kong.yml.
fn development_key() -> Source {
    Source::File(PathBuf::from(TOKEN_KEY))
}

impl Mesh {
    /// Key files that a development mesh makes for itself, with their fields.
    pub fn development_sources(&self) -> Vec<(String, Source)> {
        match self.gateway.auth {
            Auth::Development => vec![("gateway.auth.development".to_owned(), development_key())],
            Auth::Issuers(_) => Vec::new(),
        }
    }
}

/// Renders kong.yml.
///
/// # Errors
/// [`RenderError::Secret`] for a secret that is no key.
pub fn kong(mesh: &Mesh, secrets: &Secrets) -> Result<Config, RenderError> {
    let mut config = own(mesh, secrets)?;
    fronted::add(mesh, secrets, &mut config);
    Ok(config)
}

/// The mesh's own routes; nothing where there is no orchestrator that they could lead to.
fn own(mesh: &Mesh, secrets: &Secrets) -> Result<Config, RenderError> {
    if !mesh.has_orchestrator() {
        return Ok(Config::default());
    }
    let guard = jwt_auth(mesh, secrets)?;
    let known = filters::known(mesh, &guard, secrets)?;
    let routes = &mesh.gateway.routes;
    let leading = |to: Destination| -> Vec<Route> {
        let routes = routes.iter().filter(|route| route.to == to);
        routes.map(plain).collect()
    };
    let sidecar = gateway_outbound(mesh);
    let mut services = vec![Service {
        name: SERVICE.to_owned(),
        url: Some(format!("http://{sidecar}/{SERVICE}")),
        // A client may wait for its task's end: the gateway must not hang up before the orchestrator.
        read_timeout: mesh
            .orchestrator
            .limits
            .max_wait_s
            .saturating_add(10)
            .saturating_mul(1000),
        routes: leading(Destination::Orchestrator),
        ..Service::default()
    }];
    let to_agents = leading(Destination::Agents);
    if !to_agents.is_empty() {
        services.push(Service {
            name: AGENTS.to_owned(),
            // The sidecar reads which agent from the header that the filter agent_router sets.
            url: Some(format!("http://{sidecar}/{HEADER_AGENT}")),
            routes: to_agents,
            ..Service::default()
        });
    }
    let chains = routes
        .iter()
        .map(|route| filters::chain(mesh, route, &known, secrets));
    Ok(Config {
        services,
        filter_chains: chains.collect::<Result<_, _>>()?,
        ..Config::default()
    })
}

fn plain(route: &crate::mesh::Route) -> Route {
    Route {
        name: route.name.clone(),
        paths: route.paths.clone(),
        methods: route.methods.clone(),
        strip_path: route.strip_path,
        ..Route::default()
    }
}

/// Where a listener is found from this machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut found = listen;
    if listen.ip().is_unspecified() {
        found.set_ip(if listen.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    found
}

fn jwt_auth(mesh: &Mesh, secrets: &Secrets) -> Result<JwtAuth, RenderError> {
    let gateway = &mesh.gateway;
    let issuers = match &gateway.auth {
        Auth::Development => vec![Issuer::new(
            DEVELOPMENT_ISSUER,
            vec![mesh.name.clone()],
            vec![mesh_policy::config::Key {
                kid: Some(DEVELOPMENT_KID.to_owned()),
                algorithm: Algorithm::EdDSA,
                secret: None,
                public_key: Some(development_public_key(secrets)?),
                jwk: None,
            }],
        )],
        Auth::Issuers(issuers) => issuers
            .iter()
            .enumerate()
            .map(|(i, issuer)| {
                let keys = issuer.keys.iter().enumerate().map(|(k, key)| {
                    let path = format!("gateway.auth.issuers[{i}].keys[{k}]");
                    verifying_key(key, path, secrets)
                });
                Ok(Issuer {
                    jwks_url: issuer.jwks_url.clone(),
                    ..Issuer::new(
                        issuer.issuer.clone(),
                        issuer.audiences.clone(),
                        keys.collect::<Result<_, RenderError>>()?,
                    )
                })
            })
            .collect::<Result<_, RenderError>>()?,
    };
    let signing_key = match secrets.value(&gateway.assertion_key) {
        Some(text) => {
            let key = signing_key(text).map_err(|problem| RenderError::Secret {
                path: "gateway.auth.assertion.key".to_owned(),
                problem: problem.to_owned(),
            })?;
            signing_key_text(&key)
        }
        None => gateway.assertion_key.reference(),
    };
    let assertion = AssertionSigner {
        issuer: GATEWAY.to_owned(),
        audience: mesh.name.clone(),
        kid: GATEWAY.to_owned(),
        signing_key,
        lifetime_s: gateway.assertion_lifetime.as_secs(),
    };
    Ok(JwtAuth::new(issuers, assertion))
}

fn development_public_key(secrets: &Secrets) -> Result<String, RenderError> {
    let source = development_key();
    let Some(text) = secrets.value(&source) else {
        return Ok(source.reference());
    };
    let refused = |problem: String| RenderError::Secret {
        path: TOKEN_KEY.to_owned(),
        problem,
    };
    let key = signing_key(text).map_err(|problem| refused(problem.to_owned()))?;
    key.verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|e| refused(e.to_string()))
}

fn verifying_key(
    key: &Key,
    path: String,
    secrets: &Secrets,
) -> Result<mesh_policy::config::Key, RenderError> {
    if let Some(text) = secrets.value(&key.source) {
        check_key(key.algorithm, text).map_err(|problem| RenderError::Secret { path, problem })?;
    }
    let symmetric = is_symmetric(key.algorithm);
    // A public key that stands in mesh.yaml is in the open already.
    let shown = match (&key.source, symmetric) {
        (Source::Inline(text), false) => text.clone(),
        _ => secrets.show(&key.source),
    };
    let (secret, public_key) = if symmetric {
        (Some(shown), None)
    } else {
        (None, Some(shown))
    };
    Ok(mesh_policy::config::Key {
        kid: key.id.clone(),
        algorithm: key.algorithm,
        secret,
        public_key,
        jwk: None,
    })
}

/// The environment that a Kong needs to run the rendered kong.yml, as `NAME=value` lines.
///
/// `filters` is the directory of the `.wasm` modules on the machine or in the container of that Kong.
pub fn environment(mesh: &Mesh, filters: &str) -> String {
    // Above the buffer a body lies on disk, where filters cannot read it (and refuse it).
    let body = mesh.orchestrator.limits.max_body_bytes.div_ceil(1024);
    let lines = [
        "KONG_DATABASE=off".to_owned(),
        "KONG_WASM=on".to_owned(),
        format!("KONG_WASM_FILTERS_PATH={filters}"),
        // Without it shared data traps.
        format!("KONG_NGINX_WASM_SHM_KV={}m", shared_mb(mesh)),
        format!("KONG_NGINX_HTTP_CLIENT_BODY_BUFFER_SIZE={body}k"),
        format!("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE={body}k"),
        format!("KONG_PROXY_LISTEN={}", fronted::listen(mesh)),
    ];
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Megabytes of shared data that the limits of all routes fit into; routes share one table.
fn shared_mb(mesh: &Mesh) -> u64 {
    // 12 MB hold about 97,600 small entries, the default table of 65,536 slots among them. A larger one has
    // room for 4096 slots to the megabyte, which is twice what they take.
    const LEAST: u64 = 12;
    let slots = mesh.gateway.routes.iter().filter_map(|route| {
        match route.filters.over(&mesh.gateway.filters).rate_limit {
            Setting::On(said) => said.get("slots")?.as_u64(),
            Setting::Unsaid | Setting::Off => None,
        }
    });
    match slots.max() {
        Some(slots) if slots > 65_536 => slots.div_ceil(4_096),
        _ => LEAST,
    }
}
