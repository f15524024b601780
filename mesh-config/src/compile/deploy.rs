//! What is said of containers, over what is usual.

use super::value;
use crate::deploy::{Container, Deploy, OWNER, Part, Setting, Tier, usual};
use crate::schema::{self, At};
use std::collections::BTreeMap;

pub(super) fn deploy(raw: Option<At<schema::Deploy>>) -> Deploy {
    let mut deploy = Deploy::default();
    let Some(raw) = value(raw) else {
        return deploy;
    };
    if let Some(publish) = value(raw.publish) {
        deploy.publish = publish;
    }
    deploy.external_network = value(raw.external_network);
    deploy.infrastructure_namespace = value(raw.infrastructure_namespace);
    deploy.telemetry_namespace = value(raw.telemetry_namespace);
    for (part, said) in raw.parts {
        match said.value {
            Some(said) => {
                deploy.parts.insert(part, over(said, usual(part)));
            }
            None => {
                deploy.parts.remove(&part);
            }
        }
    }
    needed(&mut deploy.parts);
    deploy
}

/// Who waits for a part that is switched off would wait for ever.
fn needed(parts: &mut BTreeMap<Part, Container>) {
    let there: Vec<String> = parts.values().map(|part| part.name.clone()).collect();
    for part in Part::ALL.into_iter().map(|(_, part)| part) {
        let usual = usual(part).depends_on;
        if let Some(container) = parts.get_mut(&part) {
            container
                .depends_on
                .retain(|name| there.contains(name) || !usual.contains(name));
        }
    }
}

/// The container of an agent or a service: closed like ours until mesh.yaml opens it.
pub(super) fn container(raw: schema::Container, name: &str) -> Container {
    const MIB: u64 = 1024 * 1024;
    let usual = Container {
        name: name.to_owned(),
        // Only their owner reads the files that hold secrets.
        user: Some(
            if raw.secrets.is_some() {
                OWNER
            } else {
                "65532:65532"
            }
            .to_owned(),
        ),
        tmpfs: vec!["/tmp".to_owned()],
        tiers: [Tier::Mesh].into(),
        replicas: 1,
        memory: 512 * MIB,
        cpus: 1000,
        ..Container::default()
    };
    over(raw, usual)
}

fn over(raw: schema::Container, usual: Container) -> Container {
    fn all<T>(at: Option<At<Vec<At<T>>>>) -> Option<Vec<T>> {
        Some(value(at)?.into_iter().map(|item| item.value).collect())
    }
    let mut environment: BTreeMap<String, Setting> = usual.environment;
    environment.extend(value(raw.environment).unwrap_or_default());
    let mut volumes = usual.volumes;
    volumes.extend(all(raw.volumes).unwrap_or_default());
    let mut depends_on = usual.depends_on;
    depends_on.extend(all(raw.depends_on).unwrap_or_default());
    depends_on.sort_unstable();
    depends_on.dedup();
    let build = value(raw.build);
    Container {
        name: value(raw.name).unwrap_or(usual.name),
        // Who builds it and names no image has no use for ours.
        image: value(raw.image).or(usual.image.filter(|_| build.is_none())),
        build,
        dockerfile: value(raw.dockerfile),
        command: all(raw.command).unwrap_or(usual.command),
        ports: all(raw.ports).unwrap_or(usual.ports),
        environment,
        secrets: value(raw.secrets).unwrap_or(usual.secrets),
        volumes,
        tmpfs: usual.tmpfs,
        tiers: all(raw.tier).map_or(usual.tiers, |tiers| tiers.into_iter().collect()),
        depends_on,
        healthcheck: all(raw.healthcheck).unwrap_or(usual.healthcheck),
        user: value(raw.user).or(usual.user),
        writable: value(raw.read_only).map_or(usual.writable, |read_only| !read_only),
        capabilities: usual.capabilities,
        replicas: value(raw.replicas).unwrap_or(usual.replicas),
        max_replicas: value(raw.max_replicas).or(usual.max_replicas),
        memory: value(raw.memory).map_or(usual.memory, |bytes| bytes as u64),
        cpus: value(raw.cpus).unwrap_or(usual.cpus),
    }
}
