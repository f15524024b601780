//! docker-compose.yml: the mesh on one machine, a container for each part.
//!
//! A sidecar shares the network of what it stands beside (`network_mode: service:NAME`), so that loopback is
//! theirs alone. Each tier has a network of its own. Every file that holds a secret is mounted as one, from
//! what `mesh render compose --secrets` writes beside this file.

mod described;
mod file;
mod ours;
mod promtail;
mod secrets;

pub use file::{
    Build, ComposeFile, Healthcheck, Logging, Names, Network, SecretFile, SecretUse, Service,
    Volume, Wait,
};
pub(super) use ours::kong_environment;
pub use promtail::promtail;
pub use secrets::defaults;
pub(super) use secrets::own_files;

use super::{RenderError, Rendered, grafana, prometheus};
use crate::container::{Condition, Text, Volume as Mount};
use crate::deploy::{Container, Deploy, OWNER, Part, Place, Tier, placed, runs_registry};
use crate::fronted::Service as Fronted;
use crate::mesh::Mesh;
use crate::secret::Secrets;
use described::{bounded, mounted, service};
use std::collections::{BTreeMap, BTreeSet};

/// The container that gives volumes to those who write them.
const PREPARE: &str = "prepare";
/// What it is made of.
const PREPARE_IMAGE: &str = "busybox:1.37";
/// Where Consul reads what may be done without a token.
const CONSUL_FILE: &str = "/run/secrets/consul.hcl";
/// Where its command line finds the token, for the health check and for who looks into the container.
const CONSUL_TOKEN: &str = "/run/secrets/consul-token";
/// The network of `deploy.external_network`.
const OUTSIDE: &str = "outside";

/// docker-compose.yml, and every file that it mounts: those that are secret where values are known, else what they
/// hold by reference, to be looked at.
pub(super) fn files(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Rendered>, RenderError> {
    let file = compose(mesh, &mesh.deploy.root)?;
    let mesh = &placed(mesh, Place::Compose);
    let mut files = vec![Rendered::open("docker-compose.yml", file.to_yaml()?)];
    let parts = &mesh.deploy.parts;
    if let (Some(loki), true) = (parts.get(&Part::Loki), parts.contains_key(&Part::Promtail)) {
        files.push(Rendered::open("promtail.yml", promtail(&loki.name)?));
    }
    let mut below = |directory: &str, inside: Vec<Rendered>| {
        files.extend(inside.into_iter().map(|file| Rendered {
            name: format!("{directory}/{}", file.name),
            ..file
        }));
    };
    if parts.contains_key(&Part::Prometheus) {
        below("prometheus", prometheus(mesh, secrets)?);
    }
    if parts.contains_key(&Part::Grafana) {
        below("grafana", grafana(mesh, secrets)?);
    }
    files.extend(secrets::secret_files(mesh, secrets)?);
    Ok(files)
}

/// Renders docker-compose.yml of a mesh as mesh.yaml has it.
///
/// `root` is where the repository lies, as a path from the file's own directory: our images are built from there.
///
/// # Errors
/// [`RenderError::Container`] for an agent that no image is named for, and a variable that is a file.
pub fn compose(mesh: &Mesh, root: &str) -> Result<ComposeFile, RenderError> {
    let mesh = &placed(mesh, Place::Compose);
    let mut file = ComposeFile::default();
    for (part, container) in &mesh.deploy.parts {
        if !part.is_image() && !matches!(part, Part::Gateway | Part::Orchestrator) {
            let container = with_configuration(mesh, *part, container);
            let service = service(&mut file, &mesh.deploy, &container)?;
            file.services.insert(container.name.clone(), service);
        }
    }
    for container in mesh.services.iter().filter_map(Fronted::contained) {
        let service = service(&mut file, &mesh.deploy, &container)?;
        file.services.insert(container.name.clone(), service);
    }
    ours::add(&mut file, mesh, root)?;
    own_secrets(&mut file, mesh);
    waits(&mut file, mesh);
    prepare(&mut file);
    named(&mut file, &mesh.deploy);
    Ok(file)
}

/// The parts that read a file which is no secret.
fn with_configuration(mesh: &Mesh, part: Part, container: &Container) -> Container {
    let mut container = container.clone();
    let files = match part {
        Part::Prometheus if with_token(mesh) => {
            // It takes Consul's token from its own file alone, which only the owner reads.
            container.user = Some(OWNER.to_owned());
            for word in &mut container.command {
                *word = word.replace("/prometheus.yml", "/prometheus.secret.yml");
            }
            vec!["./prometheus:/etc/prometheus:ro".to_owned()]
        }
        Part::Consul if runs_registry(mesh) => {
            container
                .command
                .push(format!("-config-file={CONSUL_FILE}"));
            let file = Text::Plain(CONSUL_TOKEN.to_owned());
            let variables = &mut container.environment;
            variables.insert("CONSUL_HTTP_TOKEN_FILE".to_owned(), file);
            Vec::new()
        }
        Part::Prometheus => vec!["./prometheus:/etc/prometheus:ro".to_owned()],
        Part::Grafana => vec![
            "./grafana/provisioning:/etc/grafana/provisioning:ro".to_owned(),
            format!(
                "./grafana/dashboards:{}:ro",
                mesh.telemetry.grafana.dashboards
            ),
        ],
        Part::Promtail => vec!["./promtail.yml:/etc/promtail/config.yml:ro".to_owned()],
        _ => Vec::new(),
    };
    let files = files.iter().filter_map(|file| Mount::read(file));
    container.volumes.extend(files);
    container
}

/// Whether Prometheus' own file holds a secret.
fn with_token(mesh: &Mesh) -> bool {
    let consul = mesh.trust.registry.consul.as_ref();
    consul.is_some_and(|consul| consul.token.is_some())
}

/// The parts' own files that are made of the mesh's URLs and keys.
fn own_secrets(file: &mut ComposeFile, mesh: &Mesh) {
    let own = [
        (
            Part::Rabbitmq,
            "rabbitmq",
            "/etc/rabbitmq/conf.d/90-mesh.conf",
            ".conf",
        ),
        (Part::Redis, "redis", "/run/secrets/redis.conf", ".conf"),
        (Part::Consul, "consul", CONSUL_FILE, ".hcl"),
        (Part::Consul, "consul-token", CONSUL_TOKEN, ".txt"),
        (
            Part::Grafana,
            "grafana-admin",
            "/run/secrets/grafana-admin",
            ".txt",
        ),
    ];
    for (part, source, target, extension) in own {
        let Some(container) = mesh.deploy.parts.get(&part) else {
            continue;
        };
        if part == Part::Consul && !runs_registry(mesh) {
            continue;
        }
        if let Some(mut service) = file.services.remove(&container.name) {
            let (source, target) = (source.to_owned(), target.to_owned());
            mounted(file, &mut service, source, target, extension);
            file.services.insert(container.name.clone(), service);
        }
    }
}

/// Whom each waits for, now that it is known who can say that it is well. Whoever runs beside this file is not
/// waited for.
fn waits(file: &mut ComposeFile, mesh: &Mesh) {
    let mut all: Vec<Container> = mesh.deploy.parts.values().cloned().collect();
    all.extend(mesh.services.iter().filter_map(Fronted::contained));
    let agents = mesh.agents.iter();
    all.extend(agents.filter_map(|agent| mesh.container_of(agent).ok().flatten()));
    for container in all {
        let on = container.depends_on.iter().filter_map(|on| {
            let other = file.services.get(&on.name)?;
            let wait = match on.condition {
                Condition::Completed => Wait::ServiceCompletedSuccessfully,
                Condition::Started | Condition::Healthy => until(other),
            };
            Some((on.name.clone(), wait))
        });
        let on: Vec<(String, Wait)> = on.collect();
        if let Some(service) = file.services.get_mut(&container.name) {
            service.depends_on.extend(on);
        }
    }
}

/// What there is to wait for of another container.
fn until(service: &Service) -> Wait {
    if service.healthcheck.is_some() {
        Wait::ServiceHealthy
    } else {
        Wait::ServiceStarted
    }
}

/// Docker makes a volume root's; here it is given to whoever writes it, by the one container that may.
fn prepare(file: &mut ComposeFile) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for service in file.services.values() {
        // Whose image has a user of its own has given it its volumes too.
        let user = service.user.as_ref().filter(|user| !user.starts_with('0'));
        for volume in service.volumes.iter().filter_map(|volume| kept(volume)) {
            if let Some(user) = user {
                owners.insert(volume.to_owned(), user.clone());
            }
        }
    }
    if owners.is_empty() {
        return;
    }
    let given = owners
        .iter()
        .map(|(volume, user)| format!("chown {user} /volumes/{volume}"));
    let given = given.collect::<Vec<_>>().join("; ");
    let service = Service {
        image: Some(PREPARE_IMAGE.to_owned()),
        command: vec!["sh".to_owned(), "-ec".to_owned(), given],
        user: Some("0:0".to_owned()),
        network_mode: Some("none".to_owned()),
        volumes: owners
            .keys()
            .map(|volume| format!("{volume}:/volumes/{volume}"))
            .collect(),
        cap_add: vec!["CHOWN".to_owned()],
        ..bounded(&Container {
            memory: 32 << 20,
            cpus: 250,
            restart: Some("no".to_owned()),
            ..Container::default()
        })
    };
    for other in file.services.values_mut() {
        let mut volumes = other.volumes.iter().filter_map(|volume| kept(volume));
        if volumes.any(|volume| owners.contains_key(volume)) {
            let done = Wait::ServiceCompletedSuccessfully;
            other.depends_on.insert(PREPARE.to_owned(), done);
        }
    }
    file.services.insert(PREPARE.to_owned(), service);
}

/// The name of a volume that Docker keeps; nothing for a path of the machine.
fn kept(volume: &str) -> Option<&str> {
    let (name, _) = volume.split_once(':')?;
    (!name.starts_with(['.', '/', '~'])).then_some(name)
}

/// The networks and volumes that were named.
fn named(file: &mut ComposeFile, deploy: &Deploy) {
    let mut networks: BTreeSet<String> = BTreeSet::new();
    let mut published: BTreeSet<String> = BTreeSet::new();
    for service in file.services.values_mut() {
        if deploy.external_network.is_some() && service.networks.contains_key(Tier::Mesh.name()) {
            let outside = OUTSIDE.to_owned();
            service.networks.insert(outside, Names::default());
        }
        networks.extend(service.networks.keys().cloned());
        // Who is in another network as well publishes there.
        if !service.ports.is_empty() && service.networks.len() == 1 {
            published.extend(service.networks.keys().cloned());
        }
        let volumes = service.volumes.iter().filter_map(|volume| kept(volume));
        let volumes = volumes.map(|name| (name.to_owned(), Volume::default()));
        file.volumes.extend(volumes);
    }
    for name in networks {
        let network = match &deploy.external_network {
            Some(external) if name == OUTSIDE => Network {
                external: true,
                name: Some(external.clone()),
                ..Network::default()
            },
            // Docker publishes nothing of a network without a way out.
            _ => Network {
                internal: name == Tier::Data.name() && !published.contains(&name),
                ..Network::default()
            },
        };
        file.networks.insert(name, network);
    }
}
