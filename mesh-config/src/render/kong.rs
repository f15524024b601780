//! kong.yml: the routes of the mesh, each with the filters that guard it.

use super::RenderError;
use crate::guard::check_key;
use crate::mesh::{Auth, DEVELOPMENT_ISSUER, DEVELOPMENT_KID, GATEWAY, Key, Mesh, TOKEN_KEY};
use crate::secret::{Secrets, Source, signing_key, signing_key_text};
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use mesh_declarative::{Config, FilterChain, FilterUse, Route, Service};
use mesh_policy::config::{Algorithm, AssertionSigner, Issuer, JwtAuth};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Name of the service that leads to the orchestrator.
pub const SERVICE: &str = "orchestrator";

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
    let guard = jwt_auth(mesh, secrets)?;
    if secrets.are_known() {
        // A filter with a bad configuration refuses everything: better to refuse here, with the field.
        if let Err(faults) = mesh_policy::jwt::compile(&guard) {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            return Err(RenderError::Secret {
                path: "gateway.auth".to_owned(),
                problem: faults.join("; "),
            });
        }
    }
    let guard = serde_json::to_value(guard).map_err(|e| RenderError::Write {
        part: "kong.yml",
        detail: e.to_string(),
    })?;
    let routes = &mesh.gateway.routes;
    let service = Service {
        name: SERVICE.to_owned(),
        url: Some(format!("http://{}", reachable(mesh.orchestrator.listen))),
        // A client may wait for its task's end: the gateway must not hang up before the orchestrator.
        read_timeout: mesh
            .orchestrator
            .limits
            .max_wait_s
            .saturating_add(10)
            .saturating_mul(1000),
        routes: routes
            .iter()
            .map(|route| Route {
                name: route.name.clone(),
                paths: route.paths.clone(),
                methods: route.methods.clone(),
                strip_path: route.strip_path,
                ..Route::default()
            })
            .collect(),
        ..Service::default()
    };
    let chain = |name: &String| FilterChain {
        name: Some(name.clone()),
        route: Some(name.clone()),
        filters: vec![FilterUse {
            name: "jwt_auth".to_owned(),
            config: guard.clone(),
            ..FilterUse::default()
        }],
        ..FilterChain::default()
    };
    Ok(Config {
        services: vec![service],
        filter_chains: routes.iter().map(|route| chain(&route.name)).collect(),
        ..Config::default()
    })
}

/// Where a listener is found from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
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
        Auth::Development => vec![Issuer {
            issuer: DEVELOPMENT_ISSUER.to_owned(),
            audiences: vec![mesh.name.clone()],
            keys: vec![mesh_policy::config::Key {
                kid: Some(DEVELOPMENT_KID.to_owned()),
                algorithm: Algorithm::EdDSA,
                secret: None,
                public_key: Some(development_public_key(secrets)?),
            }],
        }],
        Auth::Issuers(issuers) => issuers
            .iter()
            .enumerate()
            .map(|(i, issuer)| {
                let keys = issuer.keys.iter().enumerate().map(|(k, key)| {
                    let path = format!("gateway.auth.issuers[{i}].keys[{k}]");
                    verifying_key(key, path, secrets)
                });
                Ok(Issuer {
                    issuer: issuer.issuer.clone(),
                    audiences: issuer.audiences.clone(),
                    keys: keys.collect::<Result<_, RenderError>>()?,
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
    Ok(JwtAuth {
        revision: mesh.revision.clone(),
        issuers,
        required_scopes: Vec::new(),
        leeway_s: mesh_protocol::assertion::LEEWAY_S,
        assertion: AssertionSigner {
            issuer: GATEWAY.to_owned(),
            audience: mesh.name.clone(),
            kid: GATEWAY.to_owned(),
            signing_key,
            lifetime_s: gateway.assertion_lifetime.as_secs(),
        },
    })
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
    let symmetric = key.algorithm == Algorithm::HS256;
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
        // Without it shared data traps; 12 MB hold about 97,600 small entries.
        "KONG_NGINX_WASM_SHM_KV=12m".to_owned(),
        format!("KONG_NGINX_HTTP_CLIENT_BODY_BUFFER_SIZE={body}k"),
        format!("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE={body}k"),
        format!("KONG_PROXY_LISTEN={}", mesh.gateway.listen),
    ];
    let mut text = lines.join("\n");
    text.push('\n');
    text
}
