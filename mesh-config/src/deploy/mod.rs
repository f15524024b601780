//! The mesh in containers, checked: what runs, from which image, with how much, who reaches it.

mod containers;
mod parts;
mod placed;

pub use parts::Part;
pub use placed::{Place, placed};

pub(crate) use containers::named;
pub(crate) use parts::{OWNER, usual};
pub(crate) use placed::{
    ADMIN_PORT, GATEWAY_ADMIN_PORT, GATEWAY_PORT, GATEWAY_STATUS_PORT, INBOUND_PORT, MOUNTED,
    REGISTRY_TOKEN, STATE, mounted, runs_registry,
};

use crate::container::{self, Build, Dependency, Healthcheck, Port, Text, Volume};
use crate::secret::Source;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// How the mesh lies in containers.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
    /// Where this repository lies, as seen from the rendered files: our images are built from it.
    pub root: String,
    /// Where ports are published that do not say it themselves.
    pub publish: IpAddr,
    /// A network of Docker that is there already, with what the mesh does not run itself.
    pub external_network: Option<String>,
    /// Namespace of broker, store, registry and model server in Kubernetes; the mesh's own when absent.
    pub infrastructure_namespace: Option<String>,
    /// Namespace of Prometheus and of what takes traces; the mesh's own when absent.
    pub telemetry_namespace: Option<String>,
    /// What runs beside the agents.
    pub parts: BTreeMap<Part, Container>,
}

impl Default for Deploy {
    fn default() -> Self {
        let parts = Part::ALL.into_iter().map(|(_, part)| part);
        Self {
            root: ".".to_owned(),
            publish: Ipv4Addr::LOCALHOST.into(),
            external_network: None,
            infrastructure_namespace: None,
            telemetry_namespace: None,
            parts: parts
                .filter(|part| part.is_needed())
                .map(|part| (part, usual(part)))
                .collect(),
        }
    }
}

/// One container with all that is usual filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Name: of the service, of its host, of its objects in Kubernetes.
    pub name: String,
    /// Image with a version.
    pub image: Option<String>,
    /// How the image is built; the directory is relative to mesh.yaml.
    pub build: Option<Build>,
    /// Program instead of the image's own.
    pub entrypoint: Vec<String>,
    /// Arguments instead of the image's own.
    pub command: Vec<String>,
    /// Ports; those without a port of the machine are the mesh's alone.
    pub ports: Vec<Port>,
    /// Variables.
    pub environment: BTreeMap<String, Text>,
    /// Files under `/run/secrets`.
    pub secrets: BTreeMap<String, Source>,
    /// What is mounted.
    pub volumes: Vec<Volume>,
    /// Directories in memory, writable for everybody in the container.
    pub tmpfs: Vec<String>,
    /// The networks it is in.
    pub networks: BTreeSet<String>,
    /// Containers that must be there before it starts.
    pub depends_on: Vec<Dependency>,
    /// What says whether it is well.
    pub healthcheck: Option<Healthcheck>,
    /// User and group in it; the image's own when absent.
    pub user: Option<String>,
    /// Whether its files can be changed.
    pub writable: bool,
    /// Whether it keeps what Docker lets an image do; ours keep nothing.
    pub open: bool,
    /// Capabilities that it cannot do without.
    pub capabilities: Vec<String>,
    /// When it is started anew.
    pub restart: Option<String>,
    /// What Compose alone has; it goes over what is rendered.
    pub compose: Map<String, Value>,
    /// How many there are.
    pub replicas: u16,
    /// How many there may be where they are added by need.
    pub max_replicas: Option<u16>,
    /// Most memory, in bytes.
    pub memory: u64,
    /// Most processors, in thousandths.
    pub cpus: u32,
}

impl Container {
    /// The port of its first listener, if it has one.
    pub fn first_port(&self) -> Option<u16> {
        self.ports.first().map(|port| port.container)
    }

    /// This container, with what mesh.yaml says over it.
    #[must_use]
    pub fn with(self, said: container::Container) -> Self {
        fn filled<T>(said: Vec<T>, usual: Vec<T>) -> Vec<T> {
            if said.is_empty() { usual } else { said }
        }
        let mut environment = self.environment;
        environment.extend(said.environment);
        let mut networks = if said.tier.is_some() {
            BTreeSet::new()
        } else {
            self.networks
        };
        networks.extend(said.tier.into_iter().chain(said.networks));
        let mut depends_on = self.depends_on;
        depends_on.retain(|usual| said.depends_on.iter().all(|own| own.name != usual.name));
        depends_on.extend(said.depends_on);
        // Only their owner reads the files that hold secrets.
        let reader = (!said.secrets.is_empty()).then(|| OWNER.to_owned());
        Self {
            name: said.name.unwrap_or(self.name),
            // Who builds it and names no image has no use for ours.
            image: said.image.or(self.image.filter(|_| said.build.is_none())),
            build: said.build,
            entrypoint: filled(said.entrypoint, self.entrypoint),
            command: filled(said.command, self.command),
            ports: filled(said.ports, self.ports),
            environment,
            secrets: said.secrets,
            volumes: self.volumes.into_iter().chain(said.volumes).collect(),
            tmpfs: self.tmpfs,
            networks,
            depends_on,
            healthcheck: said.healthcheck.or(self.healthcheck),
            user: said.user.or(reader).or(self.user),
            writable: said.read_only.map_or(self.writable, |read_only| !read_only),
            open: self.open,
            capabilities: self.capabilities,
            restart: said.restart.or(self.restart),
            compose: said.compose,
            replicas: said.replicas.unwrap_or(self.replicas),
            max_replicas: said.max_replicas.or(self.max_replicas),
            memory: said.memory.unwrap_or(self.memory),
            cpus: said.cpus.unwrap_or(self.cpus),
        }
    }
}

/// A port as Docker publishes it, `usual` being the address where none is said; nothing for one of the mesh alone.
pub(crate) fn published(port: &Port, usual: IpAddr) -> Option<String> {
    port.host?;
    let address = port.address.or(Some(usual));
    Some(
        Port {
            address,
            ..port.clone()
        }
        .to_string(),
    )
}

/// Networks: each tier sees its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Clients come in here.
    Edge,
    /// Gateway, orchestrator, agents, registry, broker, model server.
    Mesh,
    /// Stores; no way out from there.
    Data,
    /// Metrics, traces, logs.
    Telemetry,
}

impl Tier {
    /// Names in mesh.yaml, and of the networks.
    pub const ALL: [(&'static str, Self); 4] = [
        ("edge", Self::Edge),
        ("mesh", Self::Mesh),
        ("data", Self::Data),
        ("telemetry", Self::Telemetry),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, tier)| *tier == self);
        named.map_or("mesh", |(name, _)| name)
    }
}
