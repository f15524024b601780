//! A container as it is described, in Compose's words.

use super::{Build, ComposeFile, Healthcheck, Names, SecretFile, SecretUse, Service};
use crate::container::{self, Text};
use crate::deploy::{Container, Deploy, OWNER, published};
use crate::render::RenderError;
use crate::secret::Source;
use std::time::Duration;

/// What mesh.yaml says of a container; whom it waits for comes when all are there.
pub(super) fn service(
    file: &mut ComposeFile,
    deploy: &Deploy,
    container: &Container,
) -> Result<Service, RenderError> {
    let ports = container.ports.iter();
    let networks = container.networks.iter();
    let volumes = container.volumes.iter();
    let mut service = Service {
        image: container.image.clone(),
        build: container.build.as_ref().map(build),
        hostname: Some(container.name.clone()),
        entrypoint: words(&container.entrypoint),
        command: words(&container.command),
        user: container.user.as_deref().map(user),
        environment: variables(container)?,
        ports: ports
            .filter_map(|port| published(port, deploy.publish))
            .collect(),
        networks: networks
            .map(|name| (name.clone(), Names::default()))
            .collect(),
        volumes: volumes.map(|volume| escaped(&volume.to_string())).collect(),
        tmpfs: container.tmpfs.clone(),
        healthcheck: container.healthcheck.as_ref().and_then(healthcheck),
        cap_add: container.capabilities.clone(),
        ..bounded(container)
    };
    for name in container.secrets.keys() {
        let source = format!("{}-{name}", container.name);
        let target = format!("/run/secrets/{name}");
        mounted(file, &mut service, source, target, ".txt");
    }
    if !container.compose.is_empty() {
        let words = container.compose.clone();
        file.own_words.insert(container.name.clone(), words);
    }
    Ok(service)
}

/// What holds for every container: nothing that it does not need, and bounds.
pub(super) fn bounded(container: &Container) -> Service {
    const MIB: u64 = 1024 * 1024;
    let restart = container.restart.as_deref().unwrap_or("unless-stopped");
    Service {
        read_only: !container.writable,
        cap_drop: if container.open {
            Vec::new()
        } else {
            vec!["ALL".to_owned()]
        },
        security_opt: vec!["no-new-privileges:true".to_owned()],
        init: true,
        restart: restart.to_owned(),
        // A sidecar and the orchestrator drain for 30 s.
        stop_grace_period: "40s".to_owned(),
        mem_limit: format!("{}m", container.memory.div_ceil(MIB)),
        cpus: f64::from(container.cpus) / 1000.0,
        pids_limit: 1024,
        ..Service::default()
    }
}

/// Mounts the secret `source`, which lies in `SOURCE.secretEXTENSION`, at `target`.
pub(super) fn mounted(
    file: &mut ComposeFile,
    service: &mut Service,
    source: String,
    target: String,
    extension: &str,
) {
    let secret = SecretFile {
        file: format!("./{source}.secret{extension}"),
    };
    file.secrets.insert(source.clone(), secret);
    service.secrets.push(SecretUse { source, target });
}

/// The variables of a container.
///
/// # Errors
/// [`RenderError::Container`] for one that is a file.
pub(super) fn variables(
    container: &Container,
) -> Result<std::collections::BTreeMap<String, String>, RenderError> {
    let variable = |(name, value): (&String, &Text)| {
        let value = match value {
            Text::Plain(text) => escaped(text),
            Text::Secret(Source::Env(variable)) => {
                format!("${{{variable}:?set {variable} in the environment}}")
            }
            Text::Secret(source) => {
                return Err(RenderError::Container(format!(
                    "variable {name} of {} is {}: write {{env: NAME}}, or mount the file by `secrets`",
                    container.name,
                    source.reference()
                )));
            }
        };
        Ok((name.clone(), value))
    };
    container.environment.iter().map(variable).collect()
}

fn build(build: &container::Build) -> Build {
    let args = build.args.iter();
    Build {
        context: escaped(&build.context),
        dockerfile: build
            .dockerfile
            .clone()
            .unwrap_or_else(|| "Dockerfile".to_owned()),
        target: build.target.clone(),
        args: args
            .map(|(name, text)| (name.clone(), escaped(text)))
            .collect(),
    }
}

fn words(words: &[String]) -> Vec<String> {
    words.iter().map(|word| escaped(word)).collect()
}

/// Compose puts variables in where a `$` stands.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn user(text: &str) -> String {
    if text == OWNER {
        text.to_owned()
    } else {
        escaped(text)
    }
}

pub(super) fn healthcheck(said: &container::Healthcheck) -> Option<Healthcheck> {
    if said.test.first().is_none_or(|first| first == "NONE") {
        return None;
    }
    let time = |said: Option<Duration>, usual: &str| {
        said.map_or_else(
            || usual.to_owned(),
            |said| match said.as_millis() {
                millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
                millis => format!("{millis}ms"),
            },
        )
    };
    Some(Healthcheck {
        test: words(&said.test),
        interval: time(said.interval, "10s"),
        timeout: time(said.timeout, "5s"),
        retries: said.retries.unwrap_or(5),
        start_period: time(said.start_period, "30s"),
    })
}
