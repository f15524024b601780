//! Identity, registry, intentions: what is absent is a mesh on one machine, with an authority of its own.

use super::value;
use crate::schema::{self, At, File};
use crate::trust::{
    Consul, DEVELOPMENT_CA, Identity, IdentitySource, Intention, Registry, Sidecar, Trust,
};
use mesh_sidecar::config::{From, Settings};
use std::path::PathBuf;
use std::time::Duration;

/// How long a certificate of a development mesh is valid when mesh.yaml does not say.
const LIFETIME: Duration = Duration::from_secs(86_400);
/// How early `/ready` warns when mesh.yaml does not say.
const WARN_BEFORE: Duration = Duration::from_secs(3_600);

pub(super) fn trust(file: &mut File, name: &str) -> Trust {
    let registry = std::mem::take(&mut file.registry);
    let traces = value(file.traces.take());
    let usual = mesh_trace::Config::default();
    Trust {
        identity: identity(value(file.identity.take()), name),
        registry: Registry {
            consul: value(registry.consul)
                .unwrap_or_default()
                .then(|| value(registry.url))
                .flatten()
                .map(|url| Consul {
                    url,
                    token: value(registry.token),
                    ca: value(registry.ca).map(PathBuf::from),
                }),
        },
        intentions: value(file.intentions.take()).map(|intentions| {
            let all = intentions.into_iter();
            all.filter_map(|i| intention(i.value)).collect()
        }),
        identity_headers: value(file.identity_headers.take()).unwrap_or_default(),
        audit: value(file.audit.take()).map(PathBuf::from),
        traces: match traces {
            None => usual,
            Some(traces) => mesh_trace::Config {
                endpoint: value(traces.endpoint)
                    .map(|url| url.as_str().trim_end_matches('/').to_owned()),
                protocol: value(traces.protocol).unwrap_or(usual.protocol),
                sample: value(traces.sample_percent)
                    .map_or(usual.sample, |percent| f64::from(percent) / 100.0),
            },
        },
        traffic: file.traffic.over(&Settings::default()),
    }
}

fn identity(raw: Option<schema::Identity>, name: &str) -> Identity {
    let raw = raw.unwrap_or_default();
    let text = |at: Option<At<String>>| value(at).unwrap_or_default();
    let source = match raw.source.as_ref().map_or("", |source| source.value) {
        "consul" => Some(IdentitySource::Consul),
        "files" => Some(IdentitySource::Files {
            certificate: text(raw.certificate),
            key: text(raw.key),
            roots: text(raw.roots),
        }),
        "vault" => match (value(raw.url), value(raw.token)) {
            (Some(url), Some(token)) => Some(IdentitySource::Vault {
                url,
                mount: value(raw.mount).unwrap_or_else(|| "pki".to_owned()),
                role: text(raw.role),
                token,
                ca: value(raw.ca).map(PathBuf::from),
            }),
            // Reported as missing.
            _ => None,
        },
        _ => None,
    };
    let source = source.unwrap_or_else(|| IdentitySource::Development {
        directory: value(raw.directory).map_or_else(
            || PathBuf::from(format!("{DEVELOPMENT_CA}{name}")),
            PathBuf::from,
        ),
        lifetime: value(raw.lifetime).unwrap_or(LIFETIME),
    });
    let own = match source {
        // Consul has a trust domain, and it is not ours to choose.
        IdentitySource::Consul => None,
        _ => Some(format!("{name}.mesh")),
    };
    Identity {
        trust_domain: value(raw.trust_domain).or(own),
        warn_before: value(raw.warn_before).unwrap_or(WARN_BEFORE),
        source,
    }
}

fn intention(raw: schema::Intention) -> Option<Intention> {
    Some(Intention {
        from: services(value(raw.from)?),
        to: services(value(raw.to)?),
        action: value(raw.action).unwrap_or_default(),
        methods: raw.methods.into_iter().map(|m| m.value).collect(),
        paths: raw.paths.into_iter().map(|p| p.value).collect(),
        callers: value(raw.callers),
    })
}

fn services(raw: schema::Services) -> From {
    match raw {
        schema::Services::Any => From::Any,
        schema::Services::Named(names) => {
            From::Services(names.into_iter().map(|name| name.value).collect())
        }
    }
}

pub(super) fn sidecar(raw: Option<At<schema::Sidecar>>) -> Sidecar {
    let raw = value(raw).unwrap_or_default();
    Sidecar {
        listen: value(raw.listen),
        advertise: value(raw.advertise),
        outbound: value(raw.outbound),
        admin_listen: value(raw.admin_listen),
    }
}
