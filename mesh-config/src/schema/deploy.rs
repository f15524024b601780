//! `deploy:` as it is written: how the mesh lies in containers.

use super::container::{Container, container, host};
use super::reader::{At, Reader, Spot};
use super::tree::Value;
use super::values;
use crate::deploy::Part;
use crate::finding::Finding;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The section.
#[derive(Debug, Default)]
pub(crate) struct Deploy {
    pub publish: Option<At<IpAddr>>,
    pub external_network: Option<At<String>>,
    pub infrastructure_namespace: Option<At<String>>,
    pub telemetry_namespace: Option<At<String>>,
    /// What is said of each part; `None` for one that is switched off.
    pub parts: BTreeMap<Part, At<Option<Container>>>,
}

pub(super) fn deploy(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Deploy> {
    let mut f = reader.fields(spot)?;
    let mut deploy = Deploy {
        publish: f.optional(reader, "publish", address),
        external_network: f.optional(reader, "external_network", network),
        ..Deploy::default()
    };
    f.optional(reader, "kubernetes", |reader, spot| {
        let mut f = reader.fields(spot)?;
        deploy.infrastructure_namespace = f.optional(reader, "infrastructure", host);
        deploy.telemetry_namespace = f.optional(reader, "telemetry", host);
        f.finish(reader);
        Some(())
    });
    for (key, part) in Part::ALL {
        if let Some(said) = f.optional(reader, key, switched) {
            deploy.parts.insert(part, said);
        }
    }
    f.finish(reader);
    Some(deploy)
}

/// `true` for the usual, `false` for none, or what is otherwise than usual.
fn switched(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Option<Container>> {
    match spot.node.value {
        Value::Bool(on) => {
            reader.open(spot.node);
            Some(on.then(Container::default))
        }
        Value::Map(_) => container(reader, spot).map(Some),
        _ => {
            reader.wrong_type(spot, "true, false or a mapping");
            None
        }
    }
}

fn address(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<IpAddr> {
    let text = values::text(reader, spot)?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let message = format!("{}: `{text}` is no address", spot.path);
    let finding = Finding::error("invalid_address", spot.node.place, spot.path, message);
    reader.push(finding.hint("write 127.0.0.1 for this machine alone, 0.0.0.0 for others too"));
    None
}

fn network(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.chars().all(legal) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no name of a network", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("letters, digits, _, . and - only, as `docker network ls` shows it"));
    None
}
