//! docker-compose.yml: the mesh on one machine, a container for each part.
//!
//! A sidecar shares the network of what it stands beside (`network_mode: service:NAME`), so that loopback is
//! theirs alone. Each tier has a network of its own. Every file that holds a secret is mounted as one, from
//! what `mesh render compose --secrets` writes beside this file.

mod file;
mod ours;
mod promtail;
mod secrets;

pub use file::{
    Build, ComposeFile, Healthcheck, Logging, Names, Network, SecretFile, SecretUse, Service,
    Volume, Wait,
};
pub use promtail::promtail;
pub use secrets::{defaults, secret_files};

use super::RenderError;
use crate::deploy::{Container, Deploy, Part, Place, Setting, Tier, placed};
use crate::mesh::Mesh;
use std::collections::{BTreeMap, BTreeSet};

/// The container that gives volumes to those who write them.
const PREPARE: &str = "prepare";
/// What it is made of.
const PREPARE_IMAGE: &str = "busybox:1.37";
/// The network of `deploy.external_network`.
const OUTSIDE: &str = "outside";

/// Renders docker-compose.yml of a mesh as mesh.yaml has it.
///
/// `root` is where the repository lies, as a path from the file's own directory: our images are built from there.
///
/// # Errors
/// [`RenderError::Container`] for an agent that no image is named for.
pub fn compose(mesh: &Mesh, root: &str) -> Result<ComposeFile, RenderError> {
    let mesh = &placed(mesh, Place::Compose);
    let mut file = ComposeFile::default();
    for (part, container) in &mesh.deploy.parts {
        if !part.is_image() && !matches!(part, Part::Gateway | Part::Orchestrator) {
            add(
                &mut file,
                &mesh.deploy,
                &with_configuration(*part, container),
            );
        }
    }
    ours::add(&mut file, mesh, root)?;
    waits(&mut file, mesh);
    prepare(&mut file);
    named(&mut file, &mesh.deploy);
    Ok(file)
}

/// Adds a container as it is described.
fn add(file: &mut ComposeFile, deploy: &Deploy, container: &Container) {
    let service = service(file, deploy, container);
    file.services.insert(container.name.clone(), service);
}

/// What mesh.yaml says of a container; whom it waits for comes when all are there.
fn service(file: &mut ComposeFile, deploy: &Deploy, container: &Container) -> Service {
    let publish = deploy.publish.to_string();
    let publish = if deploy.publish.is_ipv6() {
        format!("[{publish}]")
    } else {
        publish
    };
    let mut service = Service {
        image: container.image.clone(),
        build: container.build.as_ref().map(|context| Build {
            context: escaped(context),
            dockerfile: container
                .dockerfile
                .clone()
                .unwrap_or_else(|| "Dockerfile".to_owned()),
            target: None,
        }),
        hostname: Some(container.name.clone()),
        command: container.command.iter().map(|word| escaped(word)).collect(),
        user: container.user.clone(),
        environment: container.environment.iter().map(variable).collect(),
        ports: container
            .ports
            .iter()
            .filter_map(|port| port.published(&publish))
            .collect(),
        networks: container
            .tiers
            .iter()
            .map(|tier| (tier.name().to_owned(), Names::default()))
            .collect(),
        volumes: container.volumes.clone(),
        tmpfs: container.tmpfs.clone(),
        healthcheck: healthcheck(&container.healthcheck),
        cap_add: container.capabilities.clone(),
        ..bounded(container)
    };
    for name in container.secrets.keys() {
        let source = format!("{}-{name}", container.name);
        let target = format!("/run/secrets/{name}");
        mounted(file, &mut service, source, target, "");
    }
    service
}

/// What holds for every container: nothing that it does not need, and bounds.
fn bounded(container: &Container) -> Service {
    const MIB: u64 = 1024 * 1024;
    Service {
        read_only: !container.writable,
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges:true".to_owned()],
        init: true,
        restart: "unless-stopped".to_owned(),
        // A sidecar and the orchestrator drain for 30 s.
        stop_grace_period: "40s".to_owned(),
        mem_limit: format!("{}m", container.memory.div_ceil(MIB)),
        cpus: f64::from(container.cpus) / 1000.0,
        pids_limit: 1024,
        ..Service::default()
    }
}

/// Mounts the secret `source`, which lies in `SOURCE.secretEXTENSION`, at `target`.
fn mounted(
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

fn variable((name, value): (&String, &Setting)) -> (String, String) {
    let value = match value {
        Setting::Text(text) => escaped(text),
        Setting::Env(variable) => format!("${{{variable}:?set {variable} in the environment}}"),
    };
    (name.clone(), value)
}

/// Compose puts variables in where a `$` stands.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn healthcheck(said: &[String]) -> Option<Healthcheck> {
    let first = said.first()?;
    let mut test: Vec<String> = said.iter().map(|word| escaped(word)).collect();
    if !matches!(first.as_str(), "CMD" | "CMD-SHELL") {
        test.insert(0, "CMD".to_owned());
    }
    Some(Healthcheck {
        test,
        interval: "10s".to_owned(),
        timeout: "5s".to_owned(),
        retries: 5,
        start_period: "30s".to_owned(),
    })
}

/// The parts that read a file which is no secret, or one that is made of the mesh's URLs.
fn with_configuration(part: Part, container: &Container) -> Container {
    let mut container = container.clone();
    let files: &[&str] = match part {
        Part::Prometheus => &["./prometheus:/etc/prometheus:ro"],
        Part::Grafana => &[
            "./grafana/provisioning:/etc/grafana/provisioning:ro",
            "./grafana/dashboards:/etc/grafana/dashboards:ro",
        ],
        Part::Promtail => &["./promtail.yml:/etc/promtail/config.yml:ro"],
        _ => &[],
    };
    container
        .volumes
        .extend(files.iter().map(|&file| file.to_owned()));
    container
}

/// Whom each waits for, now that it is known who can say that it is well; and the parts' own secret files.
fn waits(file: &mut ComposeFile, mesh: &Mesh) {
    let own = [
        (
            Part::Rabbitmq,
            "rabbitmq",
            "/etc/rabbitmq/conf.d/90-mesh.conf",
            ".conf",
        ),
        (Part::Redis, "redis", "/run/secrets/redis.conf", ".conf"),
        (
            Part::Grafana,
            "grafana-admin",
            "/run/secrets/grafana-admin",
            "",
        ),
    ];
    for (part, source, target, extension) in own {
        let Some(container) = mesh.deploy.parts.get(&part) else {
            continue;
        };
        if let Some(mut service) = file.services.remove(&container.name) {
            mounted(
                file,
                &mut service,
                source.to_owned(),
                target.to_owned(),
                extension,
            );
            file.services.insert(container.name.clone(), service);
        }
    }
    let agents = mesh
        .agents
        .iter()
        .filter_map(|agent| agent.container.as_ref());
    for container in mesh.deploy.parts.values().chain(agents) {
        let waits: Vec<(String, Wait)> = container
            .depends_on
            .iter()
            .filter_map(|name| Some((name.clone(), until(file.services.get(name)?))))
            .collect();
        if let Some(service) = file.services.get_mut(&container.name) {
            service.depends_on.extend(waits);
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
        let Some(user) = service.user.as_ref().filter(|user| !user.starts_with('0')) else {
            continue;
        };
        for volume in service.volumes.iter().filter_map(|volume| kept(volume)) {
            owners.insert(volume.to_owned(), user.clone());
        }
    }
    if owners.is_empty() {
        return;
    }
    let given = owners
        .iter()
        .map(|(volume, user)| format!("chown {user} /volumes/{volume}"));
    let service = Service {
        image: Some(PREPARE_IMAGE.to_owned()),
        command: vec![
            "sh".to_owned(),
            "-ec".to_owned(),
            given.collect::<Vec<_>>().join("; "),
        ],
        user: Some("0:0".to_owned()),
        network_mode: Some("none".to_owned()),
        volumes: owners
            .keys()
            .map(|volume| format!("{volume}:/volumes/{volume}"))
            .collect(),
        cap_add: vec!["CHOWN".to_owned()],
        restart: "no".to_owned(),
        ..bounded(&Container {
            memory: 32 << 20,
            cpus: 250,
            ..Container::default()
        })
    };
    for other in file.services.values_mut() {
        if other
            .volumes
            .iter()
            .filter_map(|volume| kept(volume))
            .any(|v| owners.contains_key(v))
        {
            other
                .depends_on
                .insert(PREPARE.to_owned(), Wait::ServiceCompletedSuccessfully);
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
        let mesh = service.networks.contains_key(Tier::Mesh.name());
        if deploy.external_network.is_some() && mesh {
            service
                .networks
                .insert(OUTSIDE.to_owned(), Names::default());
        }
        networks.extend(service.networks.keys().cloned());
        if !service.ports.is_empty() {
            published.extend(service.networks.keys().cloned());
        }
        let volumes = service.volumes.iter().filter_map(|volume| kept(volume));
        file.volumes
            .extend(volumes.map(|name| (name.to_owned(), Volume::default())));
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
