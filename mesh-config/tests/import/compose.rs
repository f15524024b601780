//! Compose files.

use crate::{import, lost};
use mesh_config::container::{Condition, Container, Text};
use mesh_config::secret::Source;
use mesh_config::{Mesh, import as library};
use std::time::Duration;

const FILE: &str = include_str!("docker-compose.yml");

fn container<'m>(mesh: &'m Mesh, name: &str) -> &'m Container {
    let service = mesh.services.iter().find(|s| s.name == name).unwrap();
    service.container.as_ref().unwrap()
}

fn written<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn plain(text: &str) -> Text {
    Text::Plain(text.to_owned())
}

fn variable(name: &str) -> Text {
    Text::Secret(Source::Env(name.to_owned()))
}

#[test]
fn services_become_containers() {
    let (_, mesh) = import(FILE);
    assert_eq!(mesh.name, "sutazai");
    let search = container(&mesh, "search");
    assert_eq!(search.image.as_deref(), Some("hashicorp/consul:latest"));
    assert_eq!(written(&search.ports), ["10006:8500", "8600:8600/udp"]);
    assert_eq!(written(&search.volumes), ["consul_data:/consul/data"]);
    assert_eq!(
        search.command,
        [
            "agent",
            "-server",
            "-bootstrap-expect=1",
            "-ui",
            "-client=0.0.0.0"
        ]
    );
    assert_eq!(search.environment["CONSUL_BIND_INTERFACE"], plain("eth0"));
    assert_eq!(search.restart.as_deref(), Some("unless-stopped"));
    assert_eq!(search.networks, ["sutazai-network"]);
    let check = search.healthcheck.as_ref().unwrap();
    assert_eq!(check.test, ["CMD", "consul", "members"]);
    assert_eq!(check.retries, Some(3));
    assert_eq!(search.compose["container_name"], "sutazai-consul");

    let agent = container(&mesh, "ai-agent-orchestrator");
    let build = agent.build.as_ref().unwrap();
    assert_eq!(build.context, "./agents/ai-agent-orchestrator");
    assert_eq!(build.args["MODE"], "fast");
    assert_eq!(agent.environment["PORT"], plain("8589"));
    assert_eq!(
        agent.environment["REDIS_URL"],
        plain("redis://redis:6379/0")
    );
    let url = variable("AI_AGENT_ORCHESTRATOR_RABBITMQ_URL");
    assert_eq!(agent.environment["RABBITMQ_URL"], url);
    let waits: Vec<&str> = agent.depends_on.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(waits, ["rabbitmq", "redis", "search"]);
    let check = agent.healthcheck.as_ref().unwrap();
    assert_eq!(check.test[0], "CMD-SHELL");
    assert_eq!(check.interval, Some(Duration::from_secs(90)));

    let elastic = container(&mesh, "elasticsearch");
    let image = "docker.elastic.co/elasticsearch/elasticsearch:8.11.0";
    assert_eq!(elastic.image.as_deref(), Some(image));
    assert_eq!(
        written(&elastic.ports),
        ["10009:9200", "9300:9300", "9301:9301"]
    );
    let mounts = [
        "elasticsearch_data:/usr/share/elasticsearch/data",
        "./elastic.yml:/etc/elastic.yml:ro",
    ];
    assert_eq!(written(&elastic.volumes), mounts);
    assert_eq!(
        elastic.environment["ES_JAVA_OPTS"],
        plain("-Xms512m -Xmx512m")
    );
    assert_eq!(
        elastic.environment["FROM_THE_HOST"],
        variable("FROM_THE_HOST")
    );
    assert_eq!(elastic.depends_on[0].condition, Condition::Healthy);

    let secured = container(&mesh, "secured");
    assert_eq!(
        secured.environment["VAULT_DEV_ROOT_TOKEN_ID"],
        variable("VAULT_TOKEN")
    );
    assert_eq!(secured.environment["COST"], plain("5$"));
    assert_eq!(secured.environment["EMPTY"], plain(""));
    assert_eq!(secured.healthcheck.as_ref().unwrap().test, ["NONE"]);
    assert_eq!(secured.compose["cap_add"][0], "IPC_LOCK");
}

#[test]
fn the_rendered_file_has_these_containers_and_no_other() {
    let (_, mesh) = import(FILE);
    let file = mesh_config::render::compose::compose(&mesh, ".").unwrap();
    let names: Vec<&str> = file.services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "ai-agent-orchestrator",
            "elasticsearch",
            "search",
            "secured"
        ]
    );
    let search = &file.services["search"];
    assert_eq!(search.image.as_deref(), Some("hashicorp/consul:latest"));
    assert_eq!(search.command.len(), 5);
    assert_eq!(
        search.ports,
        ["0.0.0.0:10006:8500", "0.0.0.0:8600:8600/udp"]
    );
    let agent = &file.services["ai-agent-orchestrator"];
    assert!(
        agent.depends_on.contains_key("search"),
        "{:?}",
        agent.depends_on
    );
    let url = &agent.environment["RABBITMQ_URL"];
    assert!(
        url.starts_with("${AI_AGENT_ORCHESTRATOR_RABBITMQ_URL"),
        "{url}"
    );
    assert_eq!(file.services["secured"].environment["COST"], "5$$");
}

#[test]
fn the_rest_is_named_and_no_secret_is_repeated() {
    let (imported, _) = import(FILE);
    assert_eq!(imported.format, library::Format::Compose);
    let mut paths = lost(&imported);
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "networks.sutazai-network",
            "secrets",
            "services.ai-agent-orchestrator.build.args[1]",
            "services.elasticsearch.depends_on.search.restart",
            "services.elasticsearch.image",
            "services.elasticsearch.networks.sutazai-network",
            "services.elasticsearch.volumes[2]",
            "services.secured.extends",
            "services.secured.labels",
            "services.secured.secrets",
            "services.secured.user",
            "volumes.tuned",
            "volumes.unused",
        ]
    );
    for lost in &imported.lost {
        assert!(lost.line > 0, "{lost:?}");
    }
    let said = format!("{imported:?}");
    assert!(!said.contains("hunter2"), "{said}");
    let listed: Vec<&str> = imported
        .secrets
        .iter()
        .map(|s| s.variable.as_str())
        .collect();
    assert_eq!(
        listed,
        [
            "AI_AGENT_ORCHESTRATOR_RABBITMQ_URL",
            "FROM_THE_HOST",
            "VAULT_TOKEN"
        ]
    );
    let hints = imported
        .notes
        .iter()
        .filter(|note| note.contains("looks like an agent"));
    let hints: Vec<&String> = hints.collect();
    assert_eq!(hints.len(), 1, "{hints:?}");
    assert!(hints[0].starts_with("services.ai-agent-orchestrator"));
}

#[test]
fn a_service_that_cannot_be_one_is_named() {
    let text = "services:\n  good: {image: a:1}\n  bad: {ports: [\"1:1\"]}\n  twice: {image: b:1, image: c:1}\n  waits: {image: d:1, depends_on: [nobody]}\n";
    let (imported, mesh) = import(text);
    let names: Vec<&str> = mesh.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["good", "twice", "waits"]);
    let paths = lost(&imported);
    assert!(paths.contains(&"services.bad"), "{paths:?}");
    assert!(paths.contains(&"services.twice.image"), "{paths:?}");
    let waits = |path: &&&str| path.contains("depends_on");
    assert_eq!(paths.iter().filter(waits).count(), 1, "{paths:?}");
}

#[test]
fn no_secret_of_a_command_or_a_header_is_written() {
    let text = "services:\n  a:\n    image: redis:7\n    command: redis-server --requirepass hunter2\n    \
                healthcheck: {test: [CMD, redis-cli, --pass=hunter2, ping]}\n    \
                environment: {AUTH: Bearer hunter2hunter2, PGPASSWORD: hunter2, clientSecret: hunter2, MODE: fast}\n";
    let imported = library::import(text, None, "m").unwrap();
    assert!(!imported.text.contains("hunter2"), "{}", imported.text);
    assert!(lost(&imported).contains(&"services.a.command"));
    assert!(lost(&imported).contains(&"services.a.healthcheck"));
    assert!(imported.text.contains("MODE: fast"));
    let kong = "_format_version: \"3.0\"\nservices:\n  - name: s\n    url: http://s\n    plugins:\n      \
                - {name: http-log, config: {headers: {Authorization: hunter2, X-A: Basic aHVudGVyMjpo}}}\n";
    let imported = library::import(kong, None, "m").unwrap();
    assert_eq!(imported.secrets.len(), 2);
    assert!(!imported.text.contains("hunter2") && !imported.text.contains("aHVudGVyMjpo"));
}

#[test]
fn a_bound_is_not_said_in_two_ways() {
    let text = "services:\n  a:\n    image: a:1\n    deploy: {resources: {limits: {memory: 50M, cpus: '0.5', pids: 9}}}\n  \
                b: {image: b:1}\n";
    let (_, mesh) = import(text);
    let compose = mesh_config::render::target("compose").unwrap();
    let files = (compose.render)(&mesh, &mesh_config::secret::Secrets::none());
    let files = files.unwrap();
    let file = files.iter().find(|f| f.name == "docker-compose.yml");
    let (a, b) = file.unwrap().text.split_once("\n  b:").unwrap();
    for bound in ["mem_limit:", "\n    cpus:", "pids_limit:"] {
        assert!(!a.contains(bound) && b.contains(bound), "{bound}");
    }
}

#[test]
fn what_holds_nothing_says_so() {
    let empty = library::import("_format_version: \"3.0\"\nservices: []\n", None, "m");
    let said = empty.unwrap_err().to_string();
    assert!(
        said.contains("nothing in it that could be carried over"),
        "{said}"
    );
}
