//! NetworkPolicies: nothing goes in or out but what the mesh's own rules let.
//!
//! The same intentions that sidecars enforce by certificate decide here which pods reach which: two locks, one key.

use super::workload::{Role, Workload, metadata, selector};
use crate::deploy::{ADMIN_PORT, GATEWAY_PORT, GATEWAY_STATUS_PORT, INBOUND_PORT, Part};
use crate::mesh::{Auth, GATEWAY, Mesh};
use crate::render::RenderError;
use crate::render::{may_call, sidecars};
use crate::secret::Secrets;
use crate::trust::IdentitySource;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::Config;
use std::collections::BTreeSet;

/// Kubernetes' own label of a namespace.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

pub(super) fn policies(
    mesh: &Mesh,
    workloads: &[Workload],
) -> Result<Vec<NetworkPolicy>, RenderError> {
    let mut all = vec![deny(mesh), dns(mesh)];
    let sidecars = sidecars(mesh, &Secrets::none())?;
    let callers: Vec<BTreeSet<String>> = workloads
        .iter()
        .map(|to| callers(&sidecars, workloads, to))
        .collect();
    for workload in workloads {
        let mut ingress = Vec::new();
        let mut egress = Vec::new();
        for (to, callers) in workloads.iter().zip(&callers) {
            if to.of == workload.of && !callers.is_empty() {
                ingress.push(NetworkPolicyIngressRule {
                    from: Some(callers.iter().map(|of| pods(mesh, of)).collect()),
                    ports: Some(vec![tcp(INBOUND_PORT)]),
                });
            }
            if callers.contains(&workload.of) {
                egress.push(to_peers(vec![pods(mesh, &to.of)], &[INBOUND_PORT]));
            }
        }
        ingress.push(scraped(mesh, workload));
        if workload.role == Role::Gateway {
            // From wherever clients come.
            ingress.push(NetworkPolicyIngressRule {
                from: None,
                ports: Some(vec![tcp(GATEWAY_PORT)]),
            });
        }
        egress.extend(leans_on(mesh, workload));
        all.push(NetworkPolicy {
            metadata: workload.metadata(),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(workload.label_selector()),
                policy_types: Some(both()),
                ingress: Some(ingress),
                egress: Some(egress),
            }),
        });
    }
    Ok(all)
}

/// Who may call a service, as the sidecar beside it decides.
fn callers(sidecars: &[Config], workloads: &[Workload], to: &Workload) -> BTreeSet<String> {
    let own = sidecars
        .iter()
        .find(|config| config.service.as_str() == to.of);
    let Some(own) = own.filter(|config| config.inbound.is_some()) else {
        return BTreeSet::new();
    };
    let others = workloads.iter().filter(|from| from.of != to.of);
    others
        .filter(|from| may_call(own, &from.of))
        .map(|from| from.of.clone())
        .collect()
}

/// What a workload needs beside the mesh.
fn leans_on(mesh: &Mesh, workload: &Workload) -> Vec<NetworkPolicyEgressRule> {
    let infrastructure = namespace(mesh, mesh.deploy.infrastructure_namespace.as_ref());
    let telemetry = namespace(mesh, mesh.deploy.telemetry_namespace.as_ref());
    // The agent of Consul is on the node, which no selector of pods finds.
    let mut rules = vec![to_peers(Vec::new(), &[8500])];
    let mut ports = match workload.role {
        Role::Gateway => Vec::new(),
        Role::Orchestrator => vec![5671, 5672, 6379],
        Role::Agent | Role::Elsewhere => vec![5671, 5672],
    };
    if workload.role == Role::Orchestrator
        && let Some(ollama) = &mesh.orchestrator.ollama
    {
        ports.extend(port(&ollama.url));
    }
    // What an agent waits for in Compose it talks to.
    if workload.role == Role::Agent {
        for on in &workload.container.depends_on {
            let mut parts = mesh.deploy.parts.iter();
            let part = parts.find(|(_, container)| container.name == on.name);
            ports.extend(part.and_then(|(part, container)| match part {
                Part::Redis => Some(6379),
                Part::Ollama => container.first_port(),
                _ => None,
            }));
        }
    }
    if !ports.is_empty() {
        rules.push(to_peers(vec![infrastructure], &ports));
    }
    if let Some(endpoint) = &mesh.trust.traces.endpoint {
        let mut ports = BTreeSet::from([4317, 4318]);
        ports.extend(port(endpoint));
        let ports: Vec<u16> = ports.into_iter().collect();
        rules.push(to_peers(vec![telemetry], &ports));
    }
    // Nobody says in which namespace it is, or whether it is in the cluster at all.
    if let IdentitySource::Vault { url, .. } = &mesh.trust.identity.source
        && let Some(port) = url.port_or_known_default()
    {
        rules.push(to_peers(Vec::new(), &[port]));
    }
    if workload.of == GATEWAY {
        let services = mesh
            .services
            .iter()
            .filter(|service| service.gateway.is_some());
        let mut ports: BTreeSet<u16> = services.filter_map(|service| service.port()).collect();
        if let Auth::Issuers(issuers) = &mesh.gateway.auth
            && issuers.iter().any(|issuer| issuer.jwks_url.is_some())
        {
            ports.insert(443);
        }
        if !ports.is_empty() {
            let ports: Vec<u16> = ports.into_iter().collect();
            rules.push(to_peers(Vec::new(), &ports));
        }
    }
    rules
}

fn port(url: &str) -> Option<u16> {
    url::Url::parse(url).ok()?.port_or_known_default()
}

/// Prometheus reads metrics; orchestrators and Kong have them on ports of their own.
fn scraped(mesh: &Mesh, workload: &Workload) -> NetworkPolicyIngressRule {
    let mut ports = vec![tcp(ADMIN_PORT)];
    match workload.of.as_str() {
        GATEWAY => ports.push(tcp(GATEWAY_STATUS_PORT)),
        ORCHESTRATOR => ports.push(tcp(mesh.orchestrator.listen.port())),
        _ => {}
    }
    NetworkPolicyIngressRule {
        from: Some(vec![namespace(
            mesh,
            mesh.deploy.telemetry_namespace.as_ref(),
        )]),
        ports: Some(ports),
    }
}

fn deny(mesh: &Mesh) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata("deny-by-default", part_of(mesh)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(all_pods(mesh)),
            policy_types: Some(both()),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn dns(mesh: &Mesh) -> NetworkPolicy {
    let port = |protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    };
    let resolver = NetworkPolicyPeer {
        namespace_selector: Some(labelled(NAMESPACE, "kube-system")),
        pod_selector: Some(labelled("k8s-app", "kube-dns")),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicy {
        metadata: metadata("names", part_of(mesh)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(all_pods(mesh)),
            policy_types: Some(vec!["Egress".to_owned()]),
            egress: Some(vec![NetworkPolicyEgressRule {
                to: Some(vec![resolver]),
                ports: Some(vec![port("UDP"), port("TCP")]),
            }]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn part_of(mesh: &Mesh) -> std::collections::BTreeMap<String, String> {
    [("app.kubernetes.io/part-of".to_owned(), mesh.name.clone())].into()
}

/// Every pod of the mesh; what else is in the namespace is not ours to close.
fn all_pods(mesh: &Mesh) -> LabelSelector {
    LabelSelector {
        match_labels: Some(part_of(mesh)),
        ..LabelSelector::default()
    }
}

fn pods(mesh: &Mesh, of: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_labels: Some(selector(&mesh.name, of)),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn namespace(mesh: &Mesh, said: Option<&String>) -> NetworkPolicyPeer {
    let name = said.unwrap_or(&mesh.name);
    NetworkPolicyPeer {
        namespace_selector: Some(labelled(NAMESPACE, name)),
        ..NetworkPolicyPeer::default()
    }
}

fn labelled(name: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(name.to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    }
}

fn to_peers(peers: Vec<NetworkPolicyPeer>, ports: &[u16]) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(peers).filter(|peers| !peers.is_empty()),
        ports: Some(ports.iter().map(|port| tcp(*port)).collect()),
    }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    }
}

fn both() -> Vec<String> {
    vec!["Ingress".to_owned(), "Egress".to_owned()]
}
