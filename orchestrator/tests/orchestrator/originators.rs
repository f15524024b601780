//! Who is given a step: not one that would refuse it, nor one that is not there, while another can do it.

use crate::mesh::{Ground, Mesh, answer_well, assertion, config};
use mesh_orchestrator::config::{Agent, Config, Originators, Planner};
use mesh_protocol::callers::Callers;
use mesh_tests::wait_for;
use serde_json::{Value, json};

const NAMES: [&str; 2] = ["worker-a", "worker-b"];

/// Two who can do the same; what is said of the first one's originators.
fn workers(originators: Option<Vec<Originators>>) -> Config {
    let agent = |name: &str, originators| Agent {
        id: name.parse().unwrap(),
        capabilities: vec!["crunch".to_owned()],
        queue_kind: None,
        description: String::new(),
        concurrency: 1,
        resources: Default::default(),
        originators,
    };
    Config {
        agents: vec![agent(NAMES[0], originators), agent(NAMES[1], None)],
        planner: Planner {
            general_agent: None,
            ..config().planner
        },
        ..config()
    }
}

fn of(denied: bool, callers: Value) -> Originators {
    let callers: Option<Callers> = serde_json::from_value(callers).unwrap();
    Originators { denied, callers }
}

/// Whom the step of a task is given to that this one submits; nobody is somebody on this machine.
async fn chosen(mesh: &Mesh, path: &str, who: Option<&str>) -> String {
    let body = json!({"task": "crunch", "capabilities": ["crunch"]});
    let mut request = mesh.client.post(mesh.url(path)).body(body.to_string());
    if let Some(assertion) = who {
        request = request.header("x-mesh-assertion", assertion);
    }
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let id = answer["task_id"].as_str().expect("a task");
    let task = mesh.ended(id).await;
    assert_eq!(task["status"], "completed", "{task}");
    let agent = &task["plan"]["execution_plan"][0]["agent"];
    agent.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn agents_that_an_originator_may_not_reach_are_passed_over() {
    let mesh_of = async |originators| {
        let mesh = Mesh::without_agents(workers(originators), Ground::new()).await;
        for name in NAMES {
            mesh.agent(name, answer_well).await;
        }
        mesh
    };
    let alice = assertion("alice", "crunching other");
    let bob = assertion("bob", "");
    let alices = json!({"subjects": ["alice"]});
    for (ways, takes_alices, takes_bobs, takes_mine) in [
        (vec![of(false, alices.clone())], true, false, false),
        (vec![of(true, alices.clone())], false, false, false),
        (
            vec![of(true, alices.clone()), of(false, Value::Null)],
            false,
            true,
            true,
        ),
        (
            vec![of(false, json!({"scopes": ["crunching"]}))],
            true,
            false,
            false,
        ),
        (vec![], false, false, false),
    ] {
        let mesh = mesh_of(Some(ways.clone())).await;
        for (who, takes) in [
            (Some(alice.as_str()), takes_alices),
            (Some(bob.as_str()), takes_bobs),
            (None, takes_mine),
        ] {
            for path in ["/orchestrate", "/coordinate"] {
                let mut first = 0;
                for _ in 0..4 {
                    first += usize::from(chosen(&mesh, path, who).await == NAMES[0]);
                }
                // The first of those with equally little to do; of a task it is the quicker one.
                if !takes || path == "/coordinate" {
                    assert_eq!(first > 0, takes, "{path} {who:?} {ways:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_collaboration_is_given_to_who_is_there() {
    let mesh = Mesh::without_agents(workers(None), Ground::new()).await;
    // The first of them has the least to do, and nobody who would do it.
    mesh.agent(NAMES[1], answer_well).await;
    wait_for("the queues", async || {
        mesh.get("/ready").await.status() == 200
    })
    .await;
    for _ in 0..3 {
        assert_eq!(chosen(&mesh, "/coordinate", None).await, NAMES[1]);
    }
}
