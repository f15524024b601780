//! What is said of containers, over what is usual.

use super::services::container as said;
use super::value;
use crate::deploy::{Container, Deploy, Part, usual};
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
    for (part, raw) in raw.parts {
        match raw.value {
            Some(raw) => {
                deploy.parts.insert(part, usual(part).with(said(raw)));
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
    for (part, container) in parts {
        let usual = usual(*part).depends_on;
        let dropped = |name: &str| usual.iter().any(|usual| usual.name == name);
        container
            .depends_on
            .retain(|on| there.contains(&on.name) || !dropped(&on.name));
    }
}
