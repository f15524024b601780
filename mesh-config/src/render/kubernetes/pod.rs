//! A pod: the part, the sidecar that starts before it and ends after it, and what they may.

use super::ENVIRONMENT;
use super::workload::{Role, Workload, metadata, selector};
use crate::container::{Text, Volume as Said};
use crate::deploy::{
    ADMIN_PORT, Container as Described, GATEWAY_PORT, GATEWAY_STATUS_PORT, INBOUND_PORT, MOUNTED,
    OWNER, Part, STATE, usual,
};
use crate::mesh::{GATEWAY, Mesh};
use crate::render::RenderError;
use crate::render::compose::kong_environment;
use crate::secret::Source;
use crate::trust::IdentitySource;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapEnvSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The user of our images.
const NOBODY: i64 = 65532;
/// ConfigMap of Kong's variables.
const GATEWAY_ENVIRONMENT: &str = "gateway-environment";
/// Where secrets are mounted.
const SECRETS: &str = "/run/secrets";

pub(super) fn spec(workload: &Workload, mesh: &Mesh) -> Result<PodSpec, RenderError> {
    let mut sidecar = sidecar(mesh)?;
    let mut volumes = vec![secret("sidecar", &format!("{}-sidecar", workload.of), None)];
    if mesh.messaging.state_dir.is_some() || mesh.trust.audit.is_some() {
        sidecar
            .volume_mounts
            .get_or_insert_default()
            .push(mount("state", STATE, false));
        // Gone with the pod: what is not acknowledged comes again, and what is sent twice has one key.
        volumes.push(memory("state", None));
    }
    if let IdentitySource::Files { .. } = mesh.trust.identity.source {
        let at = format!("{MOUNTED}/certificate");
        sidecar
            .volume_mounts
            .get_or_insert_default()
            .push(mount("certificate", &at, true));
        volumes.push(secret(
            "certificate",
            &format!("{}-certificate", workload.of),
            None,
        ));
    }
    let (init, containers) = if workload.role == Role::Elsewhere {
        (None, vec![sidecar])
    } else {
        sidecar.restart_policy = Some("Always".to_owned());
        sidecar.startup_probe = Some(Probe {
            // Whether it is ready says what stands beside it, and that starts after it.
            failure_threshold: Some(30),
            period_seconds: Some(1),
            ..http("/health", ADMIN_PORT)
        });
        (
            Some(vec![sidecar]),
            vec![part(workload, mesh, &mut volumes)?],
        )
    };
    let (user, group) = user(&workload.container);
    Ok(PodSpec {
        service_account_name: Some(workload.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(40),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user),
            run_as_group: Some(group),
            fs_group: Some(group),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(workload.label_selector()),
            ..TopologySpreadConstraint::default()
        }]),
        init_containers: init,
        containers,
        volumes: Some(volumes),
        ..PodSpec::default()
    })
}

fn sidecar(mesh: &Mesh) -> Result<Container, RenderError> {
    let Some(described) = mesh.deploy.parts.get(&Part::Sidecar) else {
        return Err(RenderError::Container(
            "deploy.sidecar is switched off: nothing speaks for a service in Kubernetes without one".to_owned(),
        ));
    };
    let mut env = vec![
        field("MESH_ADVERTISE", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
    ];
    if mesh.deploy.parts.contains_key(&Part::Consul) {
        // Registrations live in the agent that took them: that of the node, behind no balancer.
        env.push(plain("CONSUL_URL", "http://$(HOST_IP):8500"));
    }
    env.extend(variables(described)?);
    Ok(Container {
        name: "sidecar".to_owned(),
        args: Some(vec![
            "--config".to_owned(),
            format!("{SECRETS}/sidecar.json"),
        ]),
        env: Some(env),
        ports: Some(vec![port("mesh", INBOUND_PORT), port("admin", ADMIN_PORT)]),
        readiness_probe: Some(http("/ready", ADMIN_PORT)),
        liveness_probe: Some(Probe {
            failure_threshold: Some(6),
            ..http("/health", ADMIN_PORT)
        }),
        volume_mounts: Some(vec![mount("sidecar", SECRETS, true)]),
        ..bare(described)
    })
}

/// What the sidecar stands beside.
fn part(
    workload: &Workload,
    mesh: &Mesh,
    volumes: &mut Vec<Volume>,
) -> Result<Container, RenderError> {
    let described = &workload.container;
    let mut container = Container {
        name: workload.of.clone(),
        env: Some(variables(described)?).filter(|env| !env.is_empty()),
        ..bare(described)
    };
    let mut mounts = Vec::new();
    for (n, path) in described.tmpfs.iter().enumerate() {
        let name = format!("tmp-{n}");
        mounts.push(mount(&name, path, false));
        volumes.push(memory(&name, Some("Memory")));
    }
    for (n, said) in described.volumes.iter().enumerate() {
        let Said {
            source: Some(source),
            ..
        } = said
        else {
            continue;
        };
        if said.is_path() {
            let problem = "a directory of this machine, which no node of Kubernetes has: name a volume, or put it into the image";
            return Err(RenderError::Container(format!(
                "{}: {said} is {problem}",
                described.name
            )));
        }
        let name = format!("volume-{n}");
        mounts.push(mount(
            &name,
            &said.target,
            said.mode.as_deref() == Some("ro"),
        ));
        volumes.push(Volume {
            name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                // The operator's own: its class and size are no matter of the mesh.
                claim_name: source.replace('_', "-"),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    let mut files: Vec<String> = described.secrets.keys().cloned().collect();
    match workload.role {
        Role::Gateway => {
            files.push("kong.yml".to_owned());
            if container.image == usual(Part::Gateway).image {
                container.image = Some(format!("agent-mesh/gateway:{}", env!("CARGO_PKG_VERSION")));
            }
            container.env_from = Some(vec![EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource {
                    name: GATEWAY_ENVIRONMENT.to_owned(),
                    ..ConfigMapEnvSource::default()
                }),
                ..EnvFromSource::default()
            }]);
            container.ports = Some(vec![
                port("http", GATEWAY_PORT),
                port("status", GATEWAY_STATUS_PORT),
            ]);
            container.readiness_probe = Some(http("/status/ready", GATEWAY_STATUS_PORT));
            container.liveness_probe = Some(http("/status", GATEWAY_STATUS_PORT));
        }
        Role::Orchestrator => {
            files.push("orchestrator.json".to_owned());
            if described.command.is_empty() {
                let file = format!("{SECRETS}/orchestrator.json");
                container.args = Some(vec!["--config".to_owned(), file]);
            }
            let listen = mesh.orchestrator.listen.port();
            container.ports = Some(vec![port("http", listen)]);
            // Asked from within: from outside, readiness is nobody's business without an assertion.
            let asked = |path: &str| {
                exec(&[
                    "/usr/bin/probe".to_owned(),
                    format!("http://127.0.0.1:{listen}{path}"),
                ])
            };
            container.readiness_probe = Some(asked("/ready"));
            container.liveness_probe = Some(asked("/health"));
        }
        // The sidecar asks it on loopback, and readiness of the pod is the sidecar's.
        Role::Agent | Role::Elsewhere => {
            let own = described.ports.iter().filter(|port| !port.udp);
            let own = own.map(|own| port(&format!("port-{}", own.container), own.container));
            container.ports = Some(own.collect::<Vec<_>>()).filter(|ports| !ports.is_empty());
            container.liveness_probe = described.healthcheck.as_ref().and_then(asked);
        }
    }
    if !files.is_empty() {
        let items = files.into_iter().map(|file| KeyToPath {
            key: file.clone(),
            path: file,
            ..KeyToPath::default()
        });
        volumes.push(secret("files", &workload.of, Some(items.collect())));
        mounts.push(mount("files", SECRETS, true));
    }
    container.volume_mounts = Some(mounts).filter(|mounts| !mounts.is_empty());
    Ok(container)
}

/// Image, bounds and what it may, as every container has them.
fn bare(described: &Described) -> Container {
    const MIB: u64 = 1024 * 1024;
    let words = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    let quantities = |cpus: u32, memory: u64| {
        [
            ("cpu".to_owned(), Quantity(format!("{cpus}m"))),
            (
                "memory".to_owned(),
                Quantity(format!("{}Mi", memory.div_ceil(MIB))),
            ),
        ]
    };
    Container {
        image: described
            .image
            .clone()
            .or_else(|| Some(format!("{}:built", described.name))),
        command: words(&described.entrypoint),
        args: words(&described.command),
        resources: Some(ResourceRequirements {
            limits: Some(quantities(described.cpus, described.memory).into()),
            // What it is given for certain: most of them wait for a model most of the time.
            requests: Some(
                quantities(described.cpus.div_ceil(4), described.memory.div_ceil(2)).into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(!described.writable),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// User and group, in figures: Kubernetes checks no name against `runAsNonRoot`.
fn user(described: &Described) -> (i64, i64) {
    let said = described
        .user
        .as_deref()
        .filter(|user| *user != OWNER)
        .unwrap_or_default();
    let mut parts = said.split(':').map(|part| part.parse::<i64>().ok());
    let user = parts.next().flatten().filter(|user| *user > 0);
    let usual = if described.name == usual(Part::Gateway).name {
        1000
    } else {
        NOBODY
    };
    let user = user.unwrap_or(usual);
    (user, parts.next().flatten().unwrap_or(user))
}

fn variables(described: &Described) -> Result<Vec<EnvVar>, RenderError> {
    let variable = |(name, text): (&String, &Text)| match text {
        Text::Plain(text) => Ok(plain(name, &text.replace("$(", "$$("))),
        Text::Secret(Source::Env(variable)) => Ok(EnvVar {
            name: name.clone(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: ENVIRONMENT.to_owned(),
                    key: variable.clone(),
                    ..SecretKeySelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }),
        Text::Secret(source) => Err(RenderError::Container(format!(
            "variable {name} of {} is {}: write {{env: NAME}}, or mount the file by `secrets`",
            described.name,
            source.reference()
        ))),
    };
    described.environment.iter().map(variable).collect()
}

/// Kong's variables: no secret is among them.
pub(super) fn gateway_environment(mesh: &Mesh) -> ConfigMap {
    let mut data: BTreeMap<String, String> = kong_environment(mesh);
    for text in data.values_mut() {
        *text = text.replace("$$", "$");
    }
    ConfigMap {
        metadata: metadata(GATEWAY_ENVIRONMENT, selector(&mesh.name, GATEWAY)),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// A health check of Compose, as far as Kubernetes has it.
fn asked(check: &crate::container::Healthcheck) -> Option<Probe> {
    let (first, words) = check.test.split_first()?;
    match first.as_str() {
        "CMD" => Some(exec(words)),
        "CMD-SHELL" => {
            let mut line = vec!["sh".to_owned(), "-c".to_owned()];
            line.extend(words.iter().cloned());
            Some(exec(&line))
        }
        _ => None,
    }
}

fn exec(words: &[String]) -> Probe {
    Probe {
        exec: Some(ExecAction {
            command: Some(words.to_vec()),
        }),
        ..every()
    }
}

fn http(path: &str, port: u16) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        ..every()
    }
}

fn every() -> Probe {
    Probe {
        period_seconds: Some(5),
        timeout_seconds: Some(3),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

fn memory(name: &str, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: Some(Quantity("256Mi".to_owned())),
        }),
        ..Volume::default()
    }
}

fn secret(volume: &str, name: &str, items: Option<Vec<KeyToPath>>) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            // The pod's group reads it, and nobody else.
            default_mode: Some(0o440),
            items,
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
