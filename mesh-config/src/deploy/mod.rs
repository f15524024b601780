//! The mesh in containers, checked: what runs, from which image, with how much, who reaches it.

mod containers;
mod parts;
mod placed;

pub use parts::Part;
pub use placed::{Place, placed};

pub(crate) use parts::{OWNER, usual};
pub(crate) use placed::{ADMIN_PORT, GATEWAY_ADMIN_PORT, STATE, mounted};

use crate::secret::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// How the mesh lies in containers.
#[derive(Debug, Clone, PartialEq)]
pub struct Deploy {
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

/// One container, and how it is held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Name: of the service, of its host, of its objects in Kubernetes.
    pub name: String,
    /// Image with a version.
    pub image: Option<String>,
    /// Directory that the image is built from, relative to mesh.yaml.
    pub build: Option<String>,
    /// File in it; `Dockerfile` when absent.
    pub dockerfile: Option<String>,
    /// What is run instead of the image's own.
    pub command: Vec<String>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Variables.
    pub environment: BTreeMap<String, Setting>,
    /// Files under `/run/secrets`.
    pub secrets: BTreeMap<String, Source>,
    /// `NAME:/PATH[:ro]` or `./PATH:/PATH[:ro]`.
    pub volumes: Vec<String>,
    /// Directories in memory, writable for everybody in the container.
    pub tmpfs: Vec<String>,
    /// The networks it is in.
    pub tiers: BTreeSet<Tier>,
    /// Containers that must be well before it starts.
    pub depends_on: Vec<String>,
    /// What says whether it is well: a command in it, or a line for its shell when it begins with `CMD-SHELL`.
    pub healthcheck: Vec<String>,
    /// User and group in it; the image's own when absent.
    pub user: Option<String>,
    /// Whether its files can be changed.
    pub writable: bool,
    /// Capabilities that it cannot do without.
    pub capabilities: Vec<String>,
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
}

/// A listener of a container, and where it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Address of the machine.
    pub address: Option<IpAddr>,
    /// Port of the machine; not published when absent.
    pub host: Option<u16>,
    /// Port in the container.
    pub container: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

impl Port {
    /// As Docker writes it, `usual` being the address where none is said; nothing for a port of the mesh alone.
    pub fn published(&self, usual: &str) -> Option<String> {
        let host = self.host?;
        let address = match self.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => usual.to_owned(),
        };
        let udp = if self.udp { "/udp" } else { "" };
        Some(format!("{address}:{host}:{}{udp}", self.container))
    }
}

/// Value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// In the open.
    Text(String),
    /// What the variable of this name holds where the containers are started.
    Env(String),
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
