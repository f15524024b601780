//! Our own containers: gateway, orchestrator, agents, and the sidecar beside each.

use super::described::{bounded, healthcheck, mounted, service, variables};
use super::{Build, ComposeFile, Healthcheck, Names, Service, Wait, until};
use crate::container;
use crate::deploy::{
    ADMIN_PORT, Container, GATEWAY_ADMIN_PORT, GATEWAY_STATUS_PORT, Part, STATE, Tier,
    mounted as in_container, usual,
};
use crate::mesh::{GATEWAY, Mesh};
use crate::render::{RenderError, environment};
use crate::trust::IdentitySource;
use mesh_protocol::names::ORCHESTRATOR;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the filters lie in Kong's container.
const FILTERS: &str = "/usr/local/share/mesh/filters";
/// One Dockerfile makes all of our images, each a stage of it.
const DOCKERFILE: &str = "deploy/compose/Dockerfile";
/// The program in each of our images that asks one URL.
const PROBE: &str = "/usr/bin/probe";

/// Adds them. `mesh` is placed already.
pub(super) fn add(file: &mut ComposeFile, mesh: &Mesh, root: &str) -> Result<(), RenderError> {
    let beside = Beside { mesh, root };
    if let Some(container) = mesh.deploy.parts.get(&Part::Gateway) {
        beside.gateway(file, container)?;
        beside.sidecar(file, &container.name, GATEWAY, false)?;
    }
    if let Some(container) = mesh.deploy.parts.get(&Part::Orchestrator)
        && mesh.has_orchestrator()
    {
        for name in instances(container) {
            beside.orchestrator(file, container, &name)?;
            beside.sidecar(file, &name, ORCHESTRATOR, false)?;
        }
    }
    for agent in &mesh.agents {
        let container = mesh.container_of(agent).map_err(RenderError::Container)?;
        let Some(container) = container else {
            beside.alone(file, agent.id.as_str())?;
            continue;
        };
        let ours = agent.container.is_none();
        for name in instances(&container) {
            let mut one = beside.instance(file, &container, &name)?;
            if ours {
                one.build = beside.built(&container, Part::Agent, "agent");
            }
            file.services.insert(name.clone(), one);
            beside.sidecar(file, &name, agent.id.as_str(), true)?;
        }
    }
    Ok(())
}

/// A sidecar shares one container's network, so each instance is a service of its own: NAME, NAME-2, NAME-3.
fn instances(container: &Container) -> impl Iterator<Item = String> + use<'_> {
    (1..=container.replicas.max(1)).map(|n| match n {
        1 => container.name.clone(),
        n => format!("{}-{n}", container.name),
    })
}

struct Beside<'m> {
    mesh: &'m Mesh,
    root: &'m str,
}

impl Beside<'_> {
    /// Our image is built from this repository, unless mesh.yaml names where it comes from.
    fn built(&self, container: &Container, part: Part, stage: &str) -> Option<Build> {
        let ours = container.image == usual(part).image;
        ours.then(|| Build {
            context: self.root.to_owned(),
            dockerfile: DOCKERFILE.to_owned(),
            target: Some(stage.to_owned()),
            ..Build::default()
        })
    }

    /// One of several: the others are found under the first one's name, and publish nothing.
    fn instance(
        &self,
        file: &mut ComposeFile,
        container: &Container,
        name: &str,
    ) -> Result<Service, RenderError> {
        let mut service = service(file, &self.mesh.deploy, container)?;
        if name != container.name {
            service.hostname = Some(name.to_owned());
            service.ports.clear();
            for names in service.networks.values_mut() {
                names.aliases.push(container.name.clone());
            }
            if let Some(words) = file.own_words.get(&container.name).cloned() {
                file.own_words.insert(name.to_owned(), words);
            }
        }
        Ok(service)
    }

    fn gateway(&self, file: &mut ComposeFile, container: &Container) -> Result<(), RenderError> {
        let mut service = self.instance(file, container, &container.name)?;
        let mut variables = kong_environment(self.mesh);
        let mut ports = container.ports.iter();
        if ports.any(|port| port.container == GATEWAY_ADMIN_PORT) {
            let everywhere = format!("0.0.0.0:{GATEWAY_ADMIN_PORT}");
            variables.insert("KONG_ADMIN_LISTEN".to_owned(), everywhere);
        }
        variables.append(&mut service.environment);
        service.environment = variables;
        let filters = format!("{}/target/filters:{FILTERS}:ro", self.root);
        service.volumes.push(filters);
        let target = "/run/secrets/kong.yml".to_owned();
        mounted(file, &mut service, "kong".to_owned(), target, ".yml");
        file.services.insert(container.name.clone(), service);
        Ok(())
    }

    fn orchestrator(
        &self,
        file: &mut ComposeFile,
        container: &Container,
        name: &str,
    ) -> Result<(), RenderError> {
        let mut service = self.instance(file, container, name)?;
        let ours = || self.built(container, Part::Orchestrator, "orchestrator");
        service.build = service.build.or_else(ours);
        let target = "/run/secrets/orchestrator.json".to_owned();
        if service.command.is_empty() {
            service.command = vec!["--config".to_owned(), target.clone()];
        }
        let port = self.mesh.orchestrator.listen.port();
        service.healthcheck = service.healthcheck.or_else(|| well(port, "/ready"));
        let source = "orchestrator".to_owned();
        mounted(file, &mut service, source, target, ".json");
        for part in [Part::Rabbitmq, Part::Redis, Part::Ollama] {
            self.after(file, &mut service, part);
        }
        file.services.insert(name.to_owned(), service);
        Ok(())
    }

    /// The sidecar beside the container `name`, which is the service `of` of the mesh.
    fn sidecar(
        &self,
        file: &mut ComposeFile,
        name: &str,
        of: &str,
        worker: bool,
    ) -> Result<(), RenderError> {
        let Some(mut service) = self.bare_sidecar(file, of, worker)? else {
            return Ok(());
        };
        service.network_mode = Some(format!("service:{name}"));
        // Its health is the sidecar's own business.
        let started = Wait::ServiceStarted;
        service.depends_on.insert(name.to_owned(), started);
        self.state(&mut service, name);
        file.services.insert(format!("{name}-sidecar"), service);
        Ok(())
    }

    /// The sidecar of an agent that runs elsewhere: it has the agent's name, and a network of its own.
    fn alone(&self, file: &mut ComposeFile, of: &str) -> Result<(), RenderError> {
        let Some(mut service) = self.bare_sidecar(file, of, true)? else {
            return Ok(());
        };
        service.hostname = Some(of.to_owned());
        let tier = Tier::Mesh.name().to_owned();
        service.networks.insert(tier, Names::default());
        self.state(&mut service, of);
        file.services.insert(of.to_owned(), service);
        Ok(())
    }

    fn bare_sidecar(
        &self,
        file: &mut ComposeFile,
        of: &str,
        worker: bool,
    ) -> Result<Option<Service>, RenderError> {
        let Some(container) = self.mesh.deploy.parts.get(&Part::Sidecar) else {
            return Ok(None);
        };
        let target = "/run/secrets/sidecar.json".to_owned();
        let mut service = Service {
            image: container.image.clone(),
            build: self.built(container, Part::Sidecar, "sidecar"),
            command: vec!["--config".to_owned(), target.clone()],
            user: container.user.clone(),
            environment: variables(container)?,
            volumes: self.certificates(),
            healthcheck: well(ADMIN_PORT, "/ready"),
            ..bounded(container)
        };
        let source = format!("sidecar-{of}");
        mounted(file, &mut service, source, target, ".json");
        self.after(file, &mut service, Part::Consul);
        if worker {
            self.after(file, &mut service, Part::Rabbitmq);
        }
        Ok(Some(service))
    }

    fn after(&self, file: &ComposeFile, service: &mut Service, part: Part) {
        if let Some(container) = self.mesh.deploy.parts.get(&part)
            && let Some(other) = file.services.get(&container.name)
        {
            let wait = until(other);
            service.depends_on.insert(container.name.clone(), wait);
        }
    }

    /// One volume for each: a journal has one writer.
    fn state(&self, service: &mut Service, name: &str) {
        if self.mesh.messaging.state_dir.is_some() || self.mesh.trust.audit.is_some() {
            service.volumes.push(format!("{name}_state:{STATE}"));
        }
    }

    /// Directories beside mesh.yaml that hold certificates.
    fn certificates(&self) -> Vec<String> {
        let mut paths: Vec<&Path> = Vec::new();
        match &self.mesh.trust.identity.source {
            IdentitySource::Files {
                certificate,
                key,
                roots,
            } => paths.extend([certificate, key, roots].map(Path::new)),
            IdentitySource::Vault { ca: Some(ca), .. } => paths.push(ca),
            _ => {}
        }
        let consul = self.mesh.trust.registry.consul.as_ref();
        paths.extend(consul.and_then(|consul| consul.ca.as_deref()));
        let inside = paths.into_iter().filter_map(Path::parent);
        let mut mounts: Vec<String> = inside.map(from_beside).collect();
        mounts.sort_unstable();
        mounts.dedup();
        mounts
    }
}

/// What Kong is told besides what every Kong with our filters is.
pub(in crate::render) fn kong_environment(mesh: &Mesh) -> BTreeMap<String, String> {
    let own = [
        (
            "KONG_DECLARATIVE_CONFIG",
            "/run/secrets/kong.yml".to_owned(),
        ),
        // Who reaches it reads the gateway's keys and replaces its filters: loopback alone.
        (
            "KONG_ADMIN_LISTEN",
            format!("127.0.0.1:{GATEWAY_ADMIN_PORT}"),
        ),
        // Health and metrics, and nothing that can be changed.
        (
            "KONG_STATUS_LISTEN",
            format!("0.0.0.0:{GATEWAY_STATUS_PORT}"),
        ),
        // All that it writes while it runs; the rest of its image stays as it is.
        ("KONG_PREFIX", "/kong_prefix".to_owned()),
        ("KONG_PROXY_ACCESS_LOG", "/dev/stdout".to_owned()),
        ("KONG_ADMIN_ACCESS_LOG", "/dev/stdout".to_owned()),
        ("KONG_PROXY_ERROR_LOG", "/dev/stderr".to_owned()),
        ("KONG_ADMIN_ERROR_LOG", "/dev/stderr".to_owned()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let rendered = environment(mesh, FILTERS);
    let pairs = rendered.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.replace('$', "$$")));
    pairs.chain(own).collect()
}

/// The mount of a directory that lies beside mesh.yaml, or of one with a whole path.
fn from_beside(inside: &Path) -> String {
    let beside = inside.strip_prefix(in_container(Path::new("")));
    let outside = match beside {
        Ok(beside) => format!("./{}", beside.display()),
        Err(_) => inside.display().to_string(),
    };
    format!("{}:{}:ro", outside.trim_end_matches('/'), inside.display())
}

fn well(port: u16, path: &str) -> Option<Healthcheck> {
    let url = format!("http://127.0.0.1:{port}{path}");
    healthcheck(&container::Healthcheck {
        test: vec!["CMD".to_owned(), PROBE.to_owned(), url],
        ..container::Healthcheck::default()
    })
}
