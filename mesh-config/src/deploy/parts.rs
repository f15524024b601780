//! What a mesh leans on, as it usually runs: one container each. A word under `deploy:` changes it.
//!
//! Ports are those of the plan where it names any. Images are short names with a version, so that tomorrow's
//! container is today's.

use super::{Container, Tier};
use crate::container::{Condition, Dependency, Healthcheck, Port, Text, Volume};

/// What runs beside the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Kong with our filters.
    Gateway,
    /// The orchestrator.
    Orchestrator,
    /// Beside each of the others of ours.
    Sidecar,
    /// The project's own agents.
    Agent,
    /// The registry.
    Consul,
    /// The broker.
    Rabbitmq,
    /// The store.
    Redis,
    /// The model server.
    Ollama,
    /// Secrets.
    Vault,
    /// Traces.
    Jaeger,
    /// Audit and logs, searchable.
    Elasticsearch,
    /// How they are looked at.
    Kibana,
    /// Metrics.
    Prometheus,
    /// Where alerts go.
    Alertmanager,
    /// Dashboards.
    Grafana,
    /// Logs.
    Loki,
    /// What brings containers' logs there.
    Promtail,
    /// Metrics of the machine.
    NodeExporter,
    /// Metrics of what is asked from outside.
    BlackboxExporter,
}

impl Part {
    /// Keys under `deploy:`.
    pub const ALL: [(&'static str, Self); 19] = [
        ("gateway", Self::Gateway),
        ("orchestrator", Self::Orchestrator),
        ("sidecar", Self::Sidecar),
        ("agent", Self::Agent),
        ("consul", Self::Consul),
        ("rabbitmq", Self::Rabbitmq),
        ("redis", Self::Redis),
        ("ollama", Self::Ollama),
        ("vault", Self::Vault),
        ("jaeger", Self::Jaeger),
        ("elasticsearch", Self::Elasticsearch),
        ("kibana", Self::Kibana),
        ("prometheus", Self::Prometheus),
        ("alertmanager", Self::Alertmanager),
        ("grafana", Self::Grafana),
        ("loki", Self::Loki),
        ("promtail", Self::Promtail),
        ("node_exporter", Self::NodeExporter),
        ("blackbox_exporter", Self::BlackboxExporter),
    ];

    /// Whether every mesh of containers has it unless it says otherwise.
    pub fn is_needed(self) -> bool {
        matches!(
            self,
            Self::Gateway
                | Self::Orchestrator
                | Self::Sidecar
                | Self::Agent
                | Self::Consul
                | Self::Rabbitmq
                | Self::Redis
        )
    }

    /// Whether it is an image for others, and no container of its own.
    pub fn is_image(self) -> bool {
        matches!(self, Self::Sidecar | Self::Agent)
    }

    /// Whether it is built from this repository.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Orchestrator | Self::Sidecar | Self::Agent)
    }
}

const MIB: u64 = 1024 * 1024;

/// Whoever rendered the files owns those that are secret, and only their owner may read them.
pub(crate) const OWNER: &str = "${MESH_UID:-1000}:${MESH_GID:-1000}";

/// The part as it runs when `deploy:` says nothing else.
#[allow(clippy::too_many_lines, reason = "a table: one entry for each part")]
pub(crate) fn usual(part: Part) -> Container {
    use Tier::{Data, Edge, Mesh, Telemetry};
    let version = env!("CARGO_PKG_VERSION");
    let usual = match part {
        Part::Gateway => of("kong", "kong:3.9", &[Edge, Mesh], 512, 2000)
            // Its interface for administrators tells the gateway's keys: published where mesh.yaml says so.
            .ports(&[(Some(10005), 8000)])
            .user(OWNER)
            .tmpfs(&["/kong_prefix", "/tmp"])
            .healthy(&["CMD", "kong", "health"]),
        Part::Orchestrator => {
            let image = format!("agent-mesh/orchestrator:{version}");
            of("orchestrator", &image, &[Mesh, Data], 512, 2000)
                .ports(&[(Some(8589), 8589)])
                .user(OWNER)
        }
        Part::Sidecar => {
            let image = format!("agent-mesh/sidecar:{version}");
            of("sidecar", &image, &[], 128, 500).user(OWNER)
        }
        Part::Agent => {
            let image = format!("agent-mesh/agent:{version}");
            of("agent", &image, &[Mesh], 256, 1000).user("65532:65532")
        }
        Part::Consul => of("consul", "hashicorp/consul:1.20.2", &[Mesh], 256, 1000)
            .command(&[
                "agent",
                "-server",
                "-bootstrap-expect=1",
                "-ui",
                "-client=0.0.0.0",
                // Its authority signs the sidecars' certificates.
                "-hcl=connect { enabled = true }",
                "-hcl=telemetry { prometheus_retention_time = \"60s\", disable_hostname = true }",
            ])
            .ports(&[(Some(10006), 8500)])
            .udp(8600)
            .set("CONSUL_BIND_INTERFACE", "eth0")
            // Its start would give the volume to another user and become that one, which only root can.
            .set("CONSUL_DISABLE_PERM_MGMT", "true")
            .keeps("consul_data:/consul/data")
            .user(OWNER)
            .tmpfs(&["/consul/config", "/tmp"])
            .healthy(&["CMD", "consul", "members"]),
        Part::Rabbitmq => of("rabbitmq", "rabbitmq:4.0-management", &[Mesh], 1024, 2000)
            .ports(&[(Some(10007), 5672), (Some(10008), 15672), (None, 15692)])
            .keeps("rabbitmq_data:/var/lib/rabbitmq")
            .user(OWNER)
            .tmpfs(&["/tmp"])
            .healthy(&["CMD", "rabbitmq-diagnostics", "-q", "ping"]),
        Part::Redis => of("redis", "redis:7.2", &[Data], 512, 1000)
            .command(&["redis-server", "/run/secrets/redis.conf"])
            .ports(&[(None, 6379)])
            .keeps("redis_data:/data")
            .user(OWNER)
            .healthy(&["CMD-SHELL", "redis-cli ping | grep -qE 'PONG|NOAUTH'"]),
        Part::Ollama => of("ollama", "ollama/ollama:0.5.7", &[Mesh], 8192, 4000)
            .ports(&[(Some(10104), 10104)])
            .set("OLLAMA_HOST", "0.0.0.0:10104")
            .set("OLLAMA_MODELS", "/models")
            .set("HOME", "/tmp")
            .keeps("ollama_data:/models")
            .user(OWNER)
            .tmpfs(&["/tmp"])
            .healthy(&["CMD", "ollama", "list"]),
        Part::Vault => of("vault", "hashicorp/vault:1.18.3", &[Mesh], 256, 500)
            .command(&["server"])
            .ports(&[(Some(10015), 8200)])
            .set("SKIP_SETCAP", "true")
            .set(
                "VAULT_LOCAL_CONFIG",
                r#"{"disable_mlock": true, "ui": true, "api_addr": "http://vault:8200", "storage": {"file": {"path": "/vault/file"}}, "listener": [{"tcp": {"address": "0.0.0.0:8200", "tls_disable": true}}]}"#,
            )
            .keeps("vault_data:/vault/file")
            .user("100:1000")
            .tmpfs(&["/vault/config", "/vault/logs", "/tmp"])
            // Sealed or empty it is well: who unseals it is a person.
            .healthy(&[
                "CMD-SHELL",
                "wget -qO- 'http://127.0.0.1:8200/v1/sys/health?sealedcode=200&uninitcode=200'",
            ]),
        Part::Jaeger => of("jaeger", "jaegertracing/all-in-one:1.62.0", &[Mesh, Telemetry], 512, 1000)
            .ports(&[(Some(10013), 16686), (Some(10014), 14268), (None, 4317), (None, 4318)])
            .set("COLLECTOR_ZIPKIN_HOST_PORT", ":9411")
            .set("COLLECTOR_OTLP_ENABLED", "true")
            .set("MEMORY_MAX_TRACES", "50000")
            .user("10001:10001")
            .tmpfs(&["/tmp"])
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:14269/"]),
        Part::Elasticsearch => of("elasticsearch", "elasticsearch:8.11.0", &[Telemetry], 1536, 2000)
            .ports(&[(Some(10009), 9200)])
            .set("discovery.type", "single-node")
            .set("xpack.security.enabled", "false")
            .set("ES_JAVA_OPTS", "-Xms512m -Xmx512m")
            .keeps("elasticsearch_data:/usr/share/elasticsearch/data")
            // Its start writes a keystore beside its configuration.
            .writable()
            .healthy(&["CMD-SHELL", "curl -fsS http://127.0.0.1:9200/_cluster/health"]),
        Part::Kibana => of("kibana", "kibana:8.11.0", &[Telemetry], 1024, 1000)
            .ports(&[(Some(10012), 5601)])
            .set("ELASTICSEARCH_HOSTS", "http://elasticsearch:9200")
            .needs("elasticsearch")
            .writable()
            .healthy(&["CMD-SHELL", "curl -fsS http://127.0.0.1:5601/api/status"]),
        Part::Prometheus => of("prometheus", "prom/prometheus:v2.55.1", &[Mesh, Telemetry], 1024, 1000)
            .command(&[
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--storage.tsdb.retention.time=15d",
            ])
            .ports(&[(Some(9090), 9090)])
            .keeps("prometheus_data:/prometheus")
            .user("65534:65534")
            .tmpfs(&["/tmp"])
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:9090/-/ready"]),
        Part::Alertmanager => of("alertmanager", "prom/alertmanager:v0.27.0", &[Telemetry], 128, 250)
            .ports(&[(None, 9093)])
            .keeps("alertmanager_data:/alertmanager")
            .user("65534:65534")
            .tmpfs(&["/tmp"])
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:9093/-/ready"]),
        Part::Grafana => of("grafana", "grafana/grafana:11.3.0", &[Telemetry], 512, 1000)
            .ports(&[(Some(3000), 3000)])
            .set("GF_SECURITY_ADMIN_PASSWORD__FILE", "/run/secrets/grafana-admin")
            .set("GF_ANALYTICS_REPORTING_ENABLED", "false")
            .set("GF_ANALYTICS_CHECK_FOR_UPDATES", "false")
            .keeps("grafana_data:/var/lib/grafana")
            .user(OWNER)
            .tmpfs(&["/tmp"])
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:3000/api/health"]),
        Part::Loki => of("loki", "grafana/loki:2.9.10", &[Telemetry], 512, 1000)
            .command(&["-config.file=/etc/loki/local-config.yaml"])
            .ports(&[(None, 3100)])
            .keeps("loki_data:/loki")
            .user("10001:10001")
            .tmpfs(&["/tmp"])
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:3100/ready"]),
        Part::Promtail => of("promtail", "grafana/promtail:2.9.10", &[Telemetry], 128, 250)
            .command(&["-config.file=/etc/promtail/config.yml"])
            .ports(&[(None, 9080)])
            .keeps("promtail_data:/run/promtail")
            .keeps("/var/lib/docker/containers:/var/lib/docker/containers:ro")
            // The logs are root's; this alone of what root may.
            .user("0:0")
            .capability("DAC_READ_SEARCH")
            .tmpfs(&["/tmp"])
            .needs("loki"),
        Part::NodeExporter => of("node-exporter", "prom/node-exporter:v1.8.2", &[Telemetry], 64, 250)
            .command(&["--path.procfs=/host/proc", "--path.sysfs=/host/sys", "--path.rootfs=/host"])
            .ports(&[(None, 9100)])
            .keeps("/:/host:ro")
            .user("65534:65534")
            .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:9100/"]),
        Part::BlackboxExporter => of(
            "blackbox-exporter",
            "prom/blackbox-exporter:v0.25.0",
            &[Mesh, Telemetry],
            64,
            250,
        )
        .ports(&[(None, 9115)])
        .user("65534:65534")
        .healthy(&["CMD-SHELL", "wget -qO- http://127.0.0.1:9115/-/healthy"]),
    };
    usual.0
}

/// A container that is being described.
struct Described(Container);

fn of(name: &str, image: &str, tiers: &[Tier], memory_mib: u64, cpus: u32) -> Described {
    Described(Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        networks: tiers.iter().map(|tier| tier.name().to_owned()).collect(),
        replicas: 1,
        memory: memory_mib * MIB,
        cpus,
        ..Container::default()
    })
}

impl Described {
    fn command(mut self, words: &[&str]) -> Self {
        self.0.command = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    fn ports(mut self, ports: &[(Option<u16>, u16)]) -> Self {
        let ports = ports.iter().map(|&(host, container)| Port {
            address: None,
            host,
            container,
            udp: false,
        });
        self.0.ports.extend(ports);
        self
    }

    fn udp(mut self, port: u16) -> Self {
        let port = Port {
            address: None,
            host: Some(port),
            container: port,
            udp: true,
        };
        self.0.ports.push(port);
        self
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        let value = Text::Plain(value.to_owned());
        self.0.environment.insert(name.to_owned(), value);
        self
    }

    fn keeps(mut self, volume: &str) -> Self {
        self.0.volumes.extend(Volume::read(volume));
        self
    }

    fn tmpfs(mut self, paths: &[&str]) -> Self {
        self.0.tmpfs = paths.iter().map(|&path| path.to_owned()).collect();
        self
    }

    fn user(mut self, user: &str) -> Self {
        self.0.user = Some(user.to_owned());
        self
    }

    fn needs(mut self, name: &str) -> Self {
        let name = name.to_owned();
        self.0.depends_on.push(Dependency {
            name,
            condition: Condition::Healthy,
        });
        self
    }

    fn capability(mut self, name: &str) -> Self {
        self.0.capabilities.push(name.to_owned());
        self
    }

    fn writable(mut self) -> Self {
        self.0.writable = true;
        self
    }

    fn healthy(mut self, command: &[&str]) -> Self {
        self.0.healthcheck = Some(Healthcheck {
            test: command.iter().map(|&word| word.to_owned()).collect(),
            ..Healthcheck::default()
        });
        self
    }
}
