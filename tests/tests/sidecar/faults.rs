//! `kill -9` of an agent, of a sidecar and of Consul, in turn and under load.
//!
//! What is promised: requests and tasks go to who is left, no error outlives one ejection, and within ten
//! seconds after its return everything is registered again.

use crate::load::{self, Load};
use crate::{admin, services, usual_token};
use mesh_tests::mesh::{self, Mesh, Setup};
use mesh_tests::wait_for;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// `traffic.outlier.ejection` where mesh.yaml says nothing.
const EJECTION: Duration = Duration::from_secs(5);
/// How long it must be quiet after that.
const QUIET: Duration = Duration::from_secs(1);
/// How long a return may take.
const RETURN: Duration = Duration::from_secs(10);
/// The agent that runs twice.
const AGENT: &str = "general-agent";
const SECOND: &str = "general-agent-2";

/// The load of this test.
struct Loads {
    direct: Load,
    tasks: Load,
}

impl Loads {
    fn start(mesh: &Mesh, token: &str) -> Self {
        let (gateway, bearer) = (mesh.gateway(), token.to_owned());
        let direct = Load::start(8, Duration::from_millis(10), load::ok, move |client| {
            mesh::direct(client, &gateway, &bearer, AGENT)
        });
        let (gateway, bearer) = (mesh.gateway(), token.to_owned());
        let tasks = Load::start(
            4,
            Duration::from_millis(20),
            load::completed,
            move |client| mesh::task(client, &gateway, &bearer, AGENT),
        );
        Self { direct, tasks }
    }

    /// Lets the load go on until one ejection after `fault` is over and quiet has been kept.
    async fn endure(&self, what: &str, fault: Instant) {
        tokio::time::sleep_until(fault + EJECTION + QUIET).await;
        self.hold(what, fault);
    }

    /// Holds what was answered since `fault` against what is promised.
    fn hold(&self, what: &str, fault: Instant) {
        for (kind, load) in [("requests", &self.direct), ("tasks", &self.tasks)] {
            let answers = load.since(fault);
            let failures: Vec<_> = answers.iter().filter(|a| a.failure.is_some()).collect();
            let last = failures.last().map(|a| a.at.duration_since(fault));
            eprintln!(
                "{what}: {} of {} {kind} failed, the last {last:?} after it",
                failures.len(),
                answers.len()
            );
            let late: Vec<_> = failures
                .iter()
                .filter(|a| a.at > fault + EJECTION)
                .collect();
            assert!(
                late.is_empty(),
                "{what}: {kind} failed after an ejection: {late:#?}"
            );
            assert!(
                failures.len() * 10 < answers.len(),
                "{what}: {kind} do not go to who is left: {failures:#?}"
            );
        }
    }
}

/// Waits until every service has its healthy instances in Consul; how long that took.
async fn registered(mesh: &Mesh, what: &str) -> Duration {
    let begun = Instant::now();
    let expected = [
        (AGENT, 2),
        ("data-processor", 1),
        ("hardware-optimizer", 1),
        ("orchestrator", 1),
        ("gateway", 1),
    ];
    wait_for("everything to be registered", async || {
        for (service, count) in expected {
            if passing(mesh, service).await != count {
                return false;
            }
        }
        true
    })
    .await;
    let took = begun.elapsed();
    eprintln!("{what}: everything is registered after {took:?}");
    took
}

async fn passing(mesh: &Mesh, service: &str) -> usize {
    let path = format!("/v1/health/service/{service}?passing=true");
    mesh.consul.get(&path).await.as_array().unwrap().len()
}

/// How often each sidecar changed what it shows and believes, and its trust domain.
async fn generations(mesh: &Mesh) -> BTreeMap<String, (u64, Value)> {
    let mut generations = BTreeMap::new();
    for service in services(mesh) {
        let certificate = admin(mesh, &service, "/certificate").await;
        let generation = certificate["generation"].as_u64().unwrap();
        generations.insert(service, (generation, certificate["trust_domain"].clone()));
    }
    generations
}

/// How many requests of the gateway, and how many steps, the second instance of the agent has done in its life.
async fn done_by_second(mesh: &Mesh) -> (u64, u64) {
    let url = format!("{}/metrics", mesh.admin(SECOND));
    let answer = mesh.client().get(url).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let value = |series: &str| {
        let of = text.lines().filter_map(|line| line.strip_prefix(series));
        of.map(|value| value.trim().parse::<u64>().unwrap()).sum()
    };
    (
        value(r#"sidecar_requests_total{code="200",direction="inbound",peer="gateway"}"#),
        value(r#"agent_tasks_processed_total{agent="general-agent",outcome="completed"}"#),
    )
}

/// Waits until the second instance gets requests and steps beyond `before`.
async fn second_is_asked(mesh: &Mesh, before: (u64, u64)) {
    wait_for("the second instance to be asked", async || {
        let now = done_by_second(mesh).await;
        now.0 > before.0 && now.1 > before.1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_a_sidecar_and_consul_are_killed_in_turn() {
    let mut setup = Setup::default();
    setup.agents[0].1 = 2;
    let mut mesh = Mesh::start(setup).await;
    let token = usual_token(&mesh).await;
    registered(&mesh, "start").await;
    let loads = Loads::start(&mesh, &token);
    wait_for("the load to begin", async || {
        loads.direct.count() > 100 && loads.tasks.count() > 20
    })
    .await;
    second_is_asked(&mesh, (0, 0)).await;

    for part in ["agent", "sidecar"] {
        let name = format!("{part} {SECOND}");
        let fault = Instant::now();
        mesh.kill(&name).await;
        loads.endure(&name, fault).await;
        wait_for("consul to hear of it", async || {
            passing(&mesh, AGENT).await == 1
        })
        .await;
        mesh.launch(&name);
        assert!(registered(&mesh, &name).await < RETURN);
        mesh.all_ready().await;
        let before = done_by_second(&mesh).await;
        second_is_asked(&mesh, before).await;
    }

    // Without Consul everybody goes on with what is known.
    let before = generations(&mesh).await;
    let fault = Instant::now();
    mesh.consul.kill().await;
    loads.endure("consul", fault).await;
    let fault = Instant::now();
    mesh.consul.start_again().await;
    assert!(registered(&mesh, "consul").await < RETURN);
    // It came back with another authority, and so with another trust domain. In three steps everybody believes both,
    // shows the new certificate, believes the new authority alone.
    let roots = mesh.consul.get("/v1/connect/ca/roots").await;
    wait_for("certificates of the new authority", async || {
        let now = generations(&mesh).await;
        now.iter().all(|(service, (generation, trust_domain))| {
            *generation >= before[service].0 + 3 && *trust_domain == roots["TrustDomain"]
        })
    })
    .await;
    loads.endure("consul's return", fault).await;
    second_is_asked(&mesh, done_by_second(&mesh).await).await;
    mesh.all_ready().await;

    let answers = [loads.direct.stop().await, loads.tasks.stop().await].concat();
    let failures = answers.iter().filter(|a| a.failure.is_some()).count();
    eprintln!("{failures} of {} failed altogether", answers.len());
    assert!(
        answers
            .last()
            .is_some_and(|answer| answer.failure.is_none())
    );
}
