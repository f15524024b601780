//! Containers, as far as they concern one another: names, published ports, who waits for whom.

use super::{error, services, warning};
use crate::container::Port;
use crate::deploy::{GATEWAY_ADMIN_PORT, Part, usual};
use crate::finding::{Finding, nearest};
use crate::schema::{At, Container, File};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// One container, as far as it is written down.
struct Named<'f> {
    name: String,
    /// What says so, where anything does.
    said: Option<&'f At<String>>,
    container: Option<&'f Container>,
    part: Option<Part>,
}

/// Every finding about containers.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let all = containers(file);
    names(&all, out);
    published(file, &all, out);
    waited_for(&all, out);
    administrators(&all, out);
    for named in &all {
        if let Some(container) = named.container {
            replicas(container, out);
        }
    }
    // Those of services are looked at with their services.
    for agent in &file.agents {
        if let Some(container) = &agent.value.container {
            services::imaged(container, out);
            services::contents(container, out);
        }
    }
    let parts = file
        .deploy
        .iter()
        .flat_map(|deploy| deploy.value.parts.values());
    for at in parts {
        if let Some(container) = &at.value {
            let at = At {
                value: container,
                place: at.place,
                path: at.path.clone(),
            };
            services::contents(&at, out);
        }
    }
}

fn containers(file: &File) -> Vec<Named<'_>> {
    let mut all = Vec::new();
    let said = file.deploy.as_ref().map(|deploy| &deploy.value.parts);
    for part in Part::ALL.into_iter().map(|(_, part)| part) {
        let said = said.and_then(|parts| parts.get(&part));
        let container = match said {
            Some(At { value: None, .. }) => continue,
            Some(At {
                value: Some(container),
                ..
            }) => Some(container),
            None if part.is_needed() => None,
            None => continue,
        };
        if part.is_image() {
            continue;
        }
        let said = container.and_then(|container| container.name.as_ref());
        let name = said.map_or_else(|| usual(part).name, |name| name.value.clone());
        all.push(Named {
            name,
            said,
            container,
            part: Some(part),
        });
    }
    for agent in &file.agents {
        let Some(id) = &agent.value.id else { continue };
        let container = agent.value.container.as_ref().map(|at| &at.value);
        let said = container.and_then(|container| container.name.as_ref());
        let name = said.map_or_else(|| id.value.to_string(), |name| name.value.clone());
        all.push(Named {
            name,
            said,
            container,
            part: None,
        });
    }
    for service in &file.services {
        let service = &service.value;
        let Some(container) = service.container.as_ref().map(|at| &at.value) else {
            continue;
        };
        let said = container.name.as_ref();
        let host = service.url.as_ref().and_then(|url| url.value.host_str());
        let name = said.map(|name| name.value.as_str()).or(host);
        let name = name.or(service.name.as_ref().map(|name| name.value.as_str()));
        if let Some(name) = name {
            all.push(Named {
                name: name.to_owned(),
                said,
                container: Some(container),
                part: None,
            });
        }
    }
    all
}

fn names(all: &[Named<'_>], out: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, &Named<'_>> = BTreeMap::new();
    for named in all {
        let Some(other) = seen.insert(&named.name, named) else {
            continue;
        };
        // Of two that say nothing, both are of one id or one host, which is said elsewhere.
        if let Some(at) = named.said.or(other.said) {
            let message = format!("two containers have the name {}", named.name);
            out.push(error("duplicate_container", at, message).hint("choose another name"));
        }
    }
}

fn published(file: &File, all: &[Named<'_>], out: &mut Vec<Finding>) {
    let publish = file
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.value.publish.as_ref());
    let publish = publish.map_or(IpAddr::from([127, 0, 0, 1]), |at| at.value);
    // What is written down comes last, so that it is what a finding names.
    let mut taken: Vec<(Port, &str)> = Vec::new();
    for named in all {
        if let Some(part) = named.part
            && named
                .container
                .is_none_or(|container| container.ports.is_empty())
        {
            taken.extend(
                usual(part)
                    .ports
                    .into_iter()
                    .map(|port| (port, named.name.as_str())),
            );
        }
    }
    for named in all {
        for at in named
            .container
            .into_iter()
            .flat_map(|container| &container.ports)
        {
            let same = |(other, _): &&(Port, &str)| {
                let address = |port: &Port| port.address.unwrap_or(publish);
                let (a, b) = (address(&at.value), address(other));
                let ip = a == b || a.is_unspecified() || b.is_unspecified();
                at.value.host == other.host && at.value.udp == other.udp && ip
            };
            // A container's own are compared with its own elsewhere.
            let other = taken
                .iter()
                .find(same)
                .filter(|(_, name)| *name != named.name);
            if let (Some(host), Some((_, other))) = (at.value.host, other) {
                let message = format!("port {host} of the machine is also that of {other}");
                out.push(error("port_conflict", at, message).hint("choose another port"));
            }
            taken.push((at.value.clone(), named.name.as_str()));
        }
    }
}

/// What Kong's interface for administrators tells and takes, and from whom.
fn administrators(all: &[Named<'_>], out: &mut Vec<Finding>) {
    let gateways = all
        .iter()
        .filter(|named| named.part == Some(Part::Gateway))
        .filter_map(|named| named.container);
    for at in gateways.flat_map(|container| &container.ports) {
        if at.value.container == GATEWAY_ADMIN_PORT {
            let message = format!(
                "{}: Kong's administration is open to every container beside the gateway, agents too",
                at.path
            );
            out.push(warning("administration_open", at, message).hint(
                "leave this port out, and load a new kong.yml by starting kong anew; or let nobody into those networks whom you would not show the gateway's keys",
            ));
        }
    }
}

fn waited_for(all: &[Named<'_>], out: &mut Vec<Finding>) {
    // Of what is nowhere in the mesh that was said already.
    let unknown = out
        .iter()
        .filter(|finding| finding.code == "unknown_service");
    let unknown: HashSet<String> = unknown.map(|finding| finding.path.clone()).collect();
    let known: Vec<&str> = all.iter().map(|named| named.name.as_str()).collect();
    for named in all {
        for at in named
            .container
            .into_iter()
            .flat_map(|container| &container.depends_on)
        {
            let name = at.value.name.as_str();
            if name == named.name {
                let message = format!("{} waits for itself", named.name);
                out.push(error("conflict", at, message).hint("take it off the list"));
            } else if !known.contains(&name) && !unknown.contains(at.path.as_str()) {
                // It may run beside this file: Compose alone can say.
                let message = format!("{}: no container of this file is {name}", at.path);
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "it is not waited for".to_owned(),
                };
                out.push(warning("unknown_container", at, message).hint(hint));
            }
        }
    }
}

fn replicas(container: &Container, out: &mut Vec<Finding>) {
    if let (Some(most), Some(least)) = (&container.max_replicas, &container.replicas)
        && most.value < least.value
    {
        let message = format!("{} is below replicas", most.path);
        out.push(error("conflict", most, message).hint(format!("write {} or more", least.value)));
    }
}
