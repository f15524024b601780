//! Containers, as far as they concern one another: names, published ports, who waits for whom.

use super::{error, warning};
use crate::deploy::{Part, Port, usual};
use crate::finding::{Finding, nearest};
use crate::schema::{At, Container, File};
use std::collections::BTreeMap;
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
    for named in &all {
        if let Some(container) = named.container {
            alone(named.part, container, out);
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
    all
}

fn names(all: &[Named<'_>], out: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, &Named<'_>> = BTreeMap::new();
    for named in all {
        let Some(other) = seen.insert(&named.name, named) else {
            continue;
        };
        // Of two that say nothing, both are agents of one id, which is said elsewhere.
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
    let mut taken: Vec<(Port, String)> = Vec::new();
    // What is written down comes last, so that it is what a finding names.
    let usual_ports = all.iter().filter_map(|named| {
        let silent = named
            .container
            .is_none_or(|container| container.ports.is_none());
        let part = named.part.filter(|_| silent)?;
        Some((named, usual(part).ports))
    });
    for (named, ports) in usual_ports {
        taken.extend(ports.into_iter().map(|port| (port, named.name.clone())));
    }
    for named in all {
        let ports = named
            .container
            .and_then(|container| container.ports.as_ref());
        for at in ports.into_iter().flat_map(|ports| &ports.value) {
            let same = |(other, _): &&(Port, String)| {
                let address = |port: &Port| port.address.unwrap_or(publish);
                let (a, b) = (address(&at.value), address(other));
                let ip = a == b || a.is_unspecified() || b.is_unspecified();
                at.value.host.is_some()
                    && at.value.host == other.host
                    && at.value.udp == other.udp
                    && ip
            };
            if let (Some(host), Some((_, other))) = (at.value.host, taken.iter().find(same)) {
                let message = format!("port {host} of the machine is also that of {other}");
                out.push(error("port_conflict", at, message).hint("choose another port"));
            }
            taken.push((at.value, named.name.clone()));
        }
    }
}

fn waited_for(all: &[Named<'_>], out: &mut Vec<Finding>) {
    let known: Vec<&str> = all.iter().map(|named| named.name.as_str()).collect();
    for named in all {
        let waits = named
            .container
            .and_then(|container| container.depends_on.as_ref());
        for at in waits.into_iter().flat_map(|names| &names.value) {
            if at.value == named.name {
                let message = format!("{} waits for itself", named.name);
                out.push(error("conflict", at, message).hint("take it off the list"));
            } else if !known.contains(&at.value.as_str()) {
                let message = format!("{}: there is no container {}", at.path, at.value);
                let hint = match nearest(&at.value, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("containers here: {}", known.join(", ")),
                };
                out.push(error("unknown_container", at, message).hint(hint));
            }
        }
    }
}

/// What concerns one container alone.
fn alone(part: Option<Part>, container: &Container, out: &mut Vec<Finding>) {
    if part.is_none()
        && container.image.is_none()
        && container.build.is_none()
        && let Some(at) = container.name.as_ref().or(container.user.as_ref())
    {
        let message = "the container has neither image nor build";
        out.push(
            error("missing", at, message).hint("add `image: NAME:VERSION` or `build: DIRECTORY`"),
        );
    }
    if let (Some(file), None) = (&container.dockerfile, &container.build) {
        let message = format!("{} has no effect without build", file.path);
        out.push(warning("no_effect", file, message).hint("add `build: DIRECTORY`"));
    }
    if let (Some(most), Some(least)) = (&container.max_replicas, &container.replicas)
        && most.value < least.value
    {
        let message = format!("{} is below replicas", most.path);
        out.push(error("conflict", most, message).hint(format!("write {} or more", least.value)));
    }
}
