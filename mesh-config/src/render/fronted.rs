//! What kong.yml holds beside the mesh's own routes: services, plugins, upstreams, certificates.
//!
//! A secret that comes from the environment is shown as Kong's own reference to its environment, which Kong
//! resolves in the fields that may hold one; a secret file is shown as mesh.yaml shows it. The file with the
//! secrets' values holds the values of both.

use crate::fronted::Extras;
use crate::mesh::Mesh;
use crate::secret::{Secrets, Source};
use mesh_declarative::{Certificate, Config, Plugin, Sni};
use serde_json::Value;

/// Adds to `config` what the mesh fronts.
pub(super) fn add(mesh: &Mesh, secrets: &Secrets, config: &mut Config) {
    let extras = &mesh.gateway.extras;
    let resolved = |plugins: &mut Vec<Plugin>| {
        for plugin in plugins {
            resolve(&mut plugin.config, extras, secrets);
        }
    };
    for service in mesh.services.iter().filter_map(|s| s.gateway.as_ref()) {
        let mut service = service.clone();
        resolved(&mut service.plugins);
        for route in &mut service.routes {
            resolved(&mut route.plugins);
        }
        config.services.push(service);
    }
    config.upstreams.extend(extras.upstreams.iter().cloned());
    let mut plugins = extras.plugins.clone();
    resolved(&mut plugins);
    config.plugins.extend(plugins);
    let certificates = extras.tls.iter().flat_map(|tls| &tls.certificates);
    config.certificates.extend(certificates.map(|certificate| {
        // A certificate that stands in mesh.yaml is in the open already.
        let cert = match &certificate.cert {
            Source::Inline(text) => text.clone(),
            source => show(source, secrets),
        };
        Certificate {
            cert,
            key: show(&certificate.key, secrets),
            cert_alt: None,
            key_alt: None,
            snis: certificate
                .snis
                .iter()
                .map(|name| Sni {
                    name: name.clone(),
                    tags: Vec::new(),
                })
                .collect(),
            tags: certificate.tags.clone(),
        }
    }));
}

fn resolve(value: &mut Value, extras: &Extras, secrets: &Secrets) {
    if let Some(source) = extras.reference(value) {
        *value = Value::String(show(&source, secrets));
        return;
    }
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| resolve(item, extras, secrets)),
        Value::Object(entries) => {
            for (_, value) in entries.iter_mut() {
                resolve(value, extras, secrets);
            }
        }
        _ => {}
    }
}

fn show(source: &Source, secrets: &Secrets) -> String {
    if let Some(value) = secrets.value(source) {
        return value.to_owned();
    }
    match source {
        // Kong turns `-` into `_` and small letters into capitals when it looks for the variable.
        Source::Env(name) => format!(
            "{{vault://env/{}}}",
            name.to_ascii_lowercase().replace('_', "-")
        ),
        other => other.reference(),
    }
}

/// What Kong listens on, with TLS where there are certificates.
pub(super) fn listen(mesh: &Mesh) -> String {
    match &mesh.gateway.extras.tls {
        Some(tls) => format!("{}, {} ssl", mesh.gateway.listen, tls.listen),
        None => mesh.gateway.listen.to_string(),
    }
}
