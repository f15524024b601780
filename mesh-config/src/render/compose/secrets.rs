//! The files that hold secrets, as the containers read them.

use crate::deploy::{Container, Part, REGISTRY_TOKEN, runs_registry};
use crate::derive::{self, derived};
use crate::mesh::Mesh;
use crate::render::targets::json;
use crate::render::{RenderError, Rendered, kong, orchestrator, sidecars};
use crate::secret::{Secrets, Source};
use std::collections::BTreeMap;
use url::Url;

/// What `RABBITMQ_URL`, `REDIS_URL` and `MESH_CONSUL_TOKEN` are where nobody says it: broker, store and registry of
/// this Compose file, with passwords that are derived from the assertion key.
///
/// # Errors
/// [`RenderError::Secret`] when the assertion key is no key.
pub fn defaults(mesh: &Mesh, secrets: &Secrets) -> Result<BTreeMap<String, String>, RenderError> {
    let key = &mesh.gateway.assertion_key;
    let host = |part| {
        mesh.deploy
            .parts
            .get(&part)
            .map(|container| &container.name)
    };
    let mut out = BTreeMap::new();
    if let Some(host) = host(Part::Rabbitmq) {
        let password = derived(key, secrets, derive::BROKER_PASSWORD)?;
        let url = format!("amqp://mesh:{password}@{host}:5672/%2f");
        out.insert("RABBITMQ_URL".to_owned(), url);
    }
    if let Some(host) = host(Part::Redis) {
        let password = derived(key, secrets, derive::STORE_PASSWORD)?;
        out.insert(
            "REDIS_URL".to_owned(),
            format!("redis://:{password}@{host}:6379/0"),
        );
    }
    if host(Part::Consul).is_some() {
        let token = derive::derived_uuid(key, secrets, derive::REGISTRY_TOKEN)?;
        out.insert(REGISTRY_TOKEN.to_owned(), token);
    }
    Ok(out)
}

/// The files that docker-compose.yml mounts as secrets, or what they hold by reference. `mesh` is placed already.
pub(super) fn secret_files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let mut files = own_files(mesh, secrets)?;
    if let (Some(source), true) = (&mesh.messaging.rabbitmq, runs(mesh, Part::Rabbitmq)) {
        let text = rabbitmq(mesh, secrets, source)?;
        files.push(Rendered::veiled(secrets, "rabbitmq", "conf", text));
    }
    if let (Some(source), true) = (&mesh.store.redis, runs(mesh, Part::Redis)) {
        let text = redis(secrets, source)?;
        files.push(Rendered::veiled(secrets, "redis", "conf", text));
    }
    if let (Some(consul), true) = (&mesh.trust.registry.consul, runs_registry(mesh))
        && let Some(source) = &consul.token
    {
        let text = consul_hcl(secrets, source)?;
        files.push(Rendered::veiled(secrets, "consul", "hcl", text));
        let token = secrets.show(source);
        files.push(Rendered::veiled(secrets, "consul-token", "txt", token));
    }
    if runs(mesh, Part::Grafana) {
        let key = &mesh.gateway.assertion_key;
        let password = derived(key, secrets, derive::GRAFANA_PASSWORD)?;
        files.push(Rendered::veiled(secrets, "grafana-admin", "txt", password));
    }
    Ok(files)
}

/// What our own parts read, and the files of containers' `secrets:`. `mesh` is placed already.
pub(in crate::render) fn own_files(
    mesh: &Mesh,
    secrets: &Secrets,
) -> Result<Vec<Rendered>, RenderError> {
    let yaml = kong(mesh, secrets)?.to_yaml();
    let yaml = yaml.map_err(|error| RenderError::Write {
        part: "kong.yml",
        detail: error.to_string(),
    })?;
    let mut files = vec![Rendered::veiled(secrets, "kong", "yml", yaml)];
    if mesh.has_orchestrator() {
        let text = json("orchestrator.json", &orchestrator(mesh, secrets)?)?;
        files.push(Rendered::veiled(secrets, "orchestrator", "json", text));
    }
    for config in sidecars(mesh, secrets)? {
        let stem = format!("sidecar-{}", config.service);
        let text = json("sidecar.json", &config)?;
        files.push(Rendered::veiled(secrets, &stem, "json", text));
    }
    let services = mesh.services.iter();
    let services = services.filter_map(crate::fronted::Service::contained);
    let parts = mesh.deploy.parts.values().cloned();
    let mut containers: Vec<Container> = parts.chain(services).collect();
    for agent in &mesh.agents {
        containers.extend(mesh.container_of(agent).map_err(RenderError::Container)?);
    }
    for container in containers {
        for (name, source) in &container.secrets {
            let stem = format!("{}-{name}", container.name);
            let text = secrets.show(source);
            files.push(Rendered::veiled(secrets, &stem, "txt", text));
        }
    }
    Ok(files)
}

fn runs(mesh: &Mesh, part: Part) -> bool {
    mesh.deploy.parts.contains_key(&part)
}

/// rabbitmq.conf: the user of the mesh's URL, made when the broker starts for the first time.
fn rabbitmq(mesh: &Mesh, secrets: &Secrets, source: &Source) -> Result<String, RenderError> {
    let (user, password) = credentials(secrets, source, "messaging.url")?;
    let mut text = String::new();
    for (name, value) in [("default_user", user), ("default_pass", password)] {
        if let Some(value) = value {
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
    let timeout = mesh.messaging.consumer_timeout.as_millis();
    text.push_str(&format!("consumer_timeout = {timeout}\n"));
    Ok(text)
}

/// redis.conf: nothing that was written is lost or thrown away.
fn redis(secrets: &Secrets, source: &Source) -> Result<String, RenderError> {
    let (_, password) = credentials(secrets, source, "store.url")?;
    let mut text = "appendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n\
                    protected-mode no\ndir /data\n"
        .to_owned();
    if let Some(password) = password {
        text.push_str(&format!("requirepass {password}\n"));
    }
    Ok(text)
}

/// consul.hcl: nothing without a token, but to ask who leads. The token is made when Consul starts for the first time,
/// and may do everything: it is the sidecars', which no agent reads.
fn consul_hcl(secrets: &Secrets, source: &Source) -> Result<String, RenderError> {
    let token = secrets.show(source);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if secrets.value(source).is_some() && !token.bytes().all(legal) {
        return Err(RenderError::Secret {
            path: "registry.token".to_owned(),
            problem: "Consul's tokens are UUIDs: uuidgen makes one".to_owned(),
        });
    }
    Ok(format!(
        "acl {{\n  enabled = true\n  default_policy = \"deny\"\n  tokens {{\n    \
         initial_management = \"{token}\"\n    agent = \"{token}\"\n  }}\n}}\n"
    ))
}

/// User and password of a URL, in a form that needs no quotes in either server's file.
fn credentials(
    secrets: &Secrets,
    source: &Source,
    path: &str,
) -> Result<(Option<String>, Option<String>), RenderError> {
    let refused = |problem: &str| RenderError::Secret {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let Some(text) = secrets.value(source) else {
        // To be looked at: no server takes it.
        let shown = Some(format!("of {}", source.reference()));
        return Ok((shown.clone(), shown));
    };
    let url = Url::parse(text).map_err(|_| refused("it is no URL"))?;
    let plain = |text: &str| -> Result<String, RenderError> {
        let text: String =
            percent(text).ok_or_else(|| refused("its user or password is no text"))?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!*+=:,@%^/".contains(&b);
        if text.bytes().all(legal) {
            return Ok(text);
        }
        Err(refused(
            "its user or password holds a character that the server's own file gives a meaning: \
             use letters, digits and - _ . ~ ! * + = : , @ % ^ /",
        ))
    };
    let user = Some(url.username())
        .filter(|user| !user.is_empty())
        .map(&plain)
        .transpose()?;
    let password = url.password().map(&plain).transpose()?;
    Ok((user, password))
}

/// What a part of a URL means.
fn percent(text: &str) -> Option<String> {
    let pair = format!("v={}", text.replace('+', "%2B"));
    let (_, value) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    (!value.contains('\u{fffd}')).then(|| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn of(url: &str) -> Result<(Option<String>, Option<String>), RenderError> {
        let source = Source::Inline(url.to_owned());
        let wanted = [("store.url".to_owned(), &source)];
        let secrets = Secrets::resolve(wanted, Path::new("."), &|_| None).unwrap();
        credentials(&secrets, &source, "store.url")
    }

    #[test]
    fn credentials_are_those_of_the_url() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            of("amqp://admin:a%2Fb+c@rabbitmq:5672").unwrap(),
            (some("admin"), some("a/b+c"))
        );
        assert_eq!(of("redis://:pw@redis:6379/0").unwrap(), (None, some("pw")));
        assert_eq!(of("redis://redis:6379/0").unwrap(), (None, None));
        for bad in [
            "redis://:a%23b@redis",
            "redis://:a%20b@redis",
            "redis://:a%0Ab@redis",
            "redis://:%ff@redis",
        ] {
            let refused = of(bad).unwrap_err().to_string();
            assert!(refused.contains("store.url"), "{refused}");
        }
    }
}
