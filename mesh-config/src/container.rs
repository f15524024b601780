//! The checked side of `container:`: what mesh.yaml says of it, before what is usual stands under it
//! ([`crate::deploy`]).

use crate::secret::Source;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How something is run as a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Name of its host; that of its agent, or the host of its service's URL, when none.
    pub name: Option<String>,
    /// The image; one of `image` and `build` is there.
    pub image: Option<String>,
    /// How the image is built.
    pub build: Option<Build>,
    /// Ports that are published on the host.
    pub ports: Vec<Port>,
    /// Variables of its environment.
    pub environment: BTreeMap<String, Text>,
    /// What is mounted.
    pub volumes: Vec<Volume>,
    /// Arguments, in place of the image's own.
    pub command: Vec<String>,
    /// Program, in place of the image's own.
    pub entrypoint: Vec<String>,
    /// Which part of the whole it belongs to, such as `data`; its network follows from that.
    pub tier: Option<String>,
    /// Networks that it is in beside that of its tier.
    pub networks: Vec<String>,
    /// What must be there before it starts.
    pub depends_on: Vec<Dependency>,
    /// How its health is found out.
    pub healthcheck: Option<Healthcheck>,
    /// User, or `USER:GROUP`.
    pub user: Option<String>,
    /// When it is started anew: `no`, `always`, `on-failure`, `unless-stopped`.
    pub restart: Option<String>,
    /// What Compose alone has, as Compose has it; it goes over what is rendered.
    pub compose: Map<String, Value>,
    /// Files under `/run/secrets`.
    pub secrets: BTreeMap<String, Source>,
    /// Whether its own files cannot be changed; they cannot when nothing is said.
    pub read_only: Option<bool>,
    /// How many there are.
    pub replicas: Option<u16>,
    /// How many there may be where they are added by need.
    pub max_replicas: Option<u16>,
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// Most processors, in thousandths.
    pub cpus: Option<u32>,
}

/// How an image is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// Directory, relative to mesh.yaml.
    pub context: String,
    /// File within it; `Dockerfile` when none.
    pub dockerfile: Option<String>,
    /// Stage.
    pub target: Option<String>,
    /// Arguments, which the image remembers: no secrets.
    pub args: BTreeMap<String, String>,
}

/// One port that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Address on the host; all when none.
    pub address: Option<IpAddr>,
    /// Port on the host; a free one when none.
    pub host: Option<u16>,
    /// Port of the container.
    pub container: u16,
    /// Whether it is UDP.
    pub udp: bool,
}

impl Port {
    /// Reads Compose's short form, `[[ADDRESS:]HOST:]CONTAINER[/tcp|/udp]`, without ranges.
    pub fn read(text: &str) -> Option<Self> {
        let (ports, udp) = match text.split_once('/') {
            None => (text, false),
            Some((ports, "tcp")) => (ports, false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return None,
        };
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let Some((before, container)) = ports.rsplit_once(':') else {
            return Some(Self {
                address: None,
                host: None,
                container: number(ports)?,
                udp,
            });
        };
        let (address, host) = match before.rsplit_once(':') {
            None => (None, before),
            Some((address, host)) => {
                let bare = address.trim_start_matches('[').trim_end_matches(']');
                (Some(bare.parse().ok()?), host)
            }
        };
        Some(Self {
            address,
            // `127.0.0.1::80` is a free port there.
            host: if host.is_empty() && address.is_some() {
                None
            } else {
                Some(number(host)?)
            },
            container: number(container)?,
            udp,
        })
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        match self.host {
            Some(host) => write!(f, "{host}:")?,
            None if self.address.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}", self.container)?;
        if self.udp {
            f.write_str("/udp")
        } else {
            Ok(())
        }
    }
}

/// A value of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// It stands in mesh.yaml and may be read by anyone.
    Plain(String),
    /// It is a secret, by reference.
    Secret(Source),
}

/// What is mounted where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Name of a volume, or a path; a nameless volume when none.
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// Compose's word for how, such as `ro`.
    pub mode: Option<String>,
}

impl Volume {
    /// Reads Compose's short form, `[SOURCE:]TARGET[:MODE]`.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (first, second, third) = (parts.next()?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let (source, target) = match second {
            Some(target) => (Some(first), target),
            None => (None, first),
        };
        let mode = third.map(str::to_owned);
        let words = mode.iter().flat_map(|mode| mode.split(','));
        let known = [
            "ro",
            "rw",
            "z",
            "Z",
            "cached",
            "delegated",
            "consistent",
            "nocopy",
        ];
        let good = target.starts_with('/')
            && source.is_none_or(|source| !source.is_empty())
            && words.clone().all(|word| known.contains(&word));
        good.then(|| Self {
            source: source.map(str::to_owned),
            target: target.to_owned(),
            mode,
        })
    }

    /// Whether `source` is a path on the host, and no volume's name.
    pub fn is_path(&self) -> bool {
        let path = |source: &str| source.starts_with(['.', '/', '~']);
        self.source.as_deref().is_some_and(path)
    }
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}:")?;
        }
        f.write_str(&self.target)?;
        match &self.mode {
            Some(mode) => write!(f, ":{mode}"),
            None => Ok(()),
        }
    }
}

/// What must be there before a container starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// A service, an agent, or a part of the mesh.
    pub name: String,
    /// How far it must be.
    pub condition: Condition,
}

/// How far a dependency must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// Started.
    #[default]
    Started,
    /// Healthy, by its own check.
    Healthy,
    /// Ended without an error.
    Completed,
}

impl Condition {
    /// Names in mesh.yaml, which are Compose's.
    pub const ALL: [(&'static str, Self); 3] = [
        ("service_started", Self::Started),
        ("service_healthy", Self::Healthy),
        ("service_completed_successfully", Self::Completed),
    ];
}

/// How a container's health is found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// Compose's `test`: `CMD` and a command, `CMD-SHELL` and a line, or `NONE`.
    pub test: Vec<String>,
    /// Time between two questions.
    pub interval: Option<Duration>,
    /// Longest wait for an answer.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    pub start_period: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_volumes_are_written_as_they_were_read() {
        for text in [
            "80",
            "53/udp",
            "8080:80",
            "127.0.0.1:8080:80",
            "127.0.0.1::80",
            "[::1]:8600:8600/udp",
        ] {
            let port = Port::read(text).unwrap();
            assert_eq!(port.to_string(), text);
        }
        for bad in [
            "", "a", "0", "70000", "80-90", "80:a", "a:1:2", ":80", "80/sctp", "1:2:3:4",
        ] {
            assert_eq!(Port::read(bad), None, "{bad}");
        }
        for text in [
            "/data",
            "data:/data",
            "./config/kong:/kong:ro",
            "~/x:/x:z,ro",
        ] {
            let volume = Volume::read(text).unwrap();
            assert_eq!(volume.to_string(), text);
        }
        assert!(Volume::read("./a:/b").unwrap().is_path());
        assert!(!Volume::read("a:/b").unwrap().is_path());
        for bad in ["", "data", "a:b", ":/a", "a:/b:rx", "a:/b:ro:c"] {
            assert_eq!(Volume::read(bad), None, "{bad}");
        }
    }
}
