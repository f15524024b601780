//! `POST /coordinate`: what is answered, what flows, who works at the same time, and what is refused.

use crate::mesh::{
    Given, Ground, Mesh, PATIENCE, answer_badly, answer_well, assertion, config, mesh_agents,
    result_of, silence,
};
use mesh_orchestrator::config::Ollama as OllamaConfig;
use mesh_orchestrator::double::{Answer, Ollama};
use mesh_protocol::message::StepTask;
use mesh_protocol::outcome::Outcome;
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;

async fn coordinate(mesh: &Mesh, body: &Value, headers: &[(&str, &str)]) -> Response {
    let mut request = mesh.client.post(mesh.url("/coordinate"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_string()).send().await.unwrap()
}

async fn answered(mesh: &Mesh, body: &Value) -> Value {
    let response = coordinate(mesh, body, &[]).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

fn node(agent: &str) -> Value {
    json!({"agent": agent, "role": format!("the part of {agent}")})
}

/// Two read, one gathers.
fn diamond() -> Value {
    json!({
        "task": "report",
        "payload": {"subject": "x"},
        "plan": {
            "nodes": [
                {"agent": "hardware-optimizer", "role": "measure", "priority": 9},
                node("data_processor"),
                node("general-agent"),
            ],
            "edges": [
                {"from": "hardware-optimizer", "to": "general-agent", "data": "figures", "weight": 3},
                {"from": "data-processor", "to": "general-agent", "data": "columns"},
            ],
            "synchronization_points": ["both have read"],
        },
    })
}

#[tokio::test]
async fn data_flows_along_the_edges() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let mut given = Vec::new();
    for agent in mesh_agents() {
        given.push((agent.clone(), mesh.agent(&agent, answer_well).await));
    }
    let answer = answered(&mesh, &diamond()).await;
    assert_eq!(answer["status"], "completed", "{answer}");
    let id = answer["task_id"].as_str().unwrap();
    assert!(id.starts_with("collab_"), "{id}");
    let order: Vec<&str> = answer["execution_order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a.as_str().unwrap())
        .collect();
    assert_eq!(order.last(), Some(&"general-agent"));
    assert_eq!(answer["results"].as_object().unwrap().len(), 3);
    let metrics = &answer["graph_metrics"];
    assert_eq!(
        (&metrics["nodes"], &metrics["edges"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(
        (&metrics["depth"], &metrics["width"]),
        (&json!(2), &json!(2))
    );
    assert!((metrics["density"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(
        metrics["critical_path"],
        json!(["data-processor", "general-agent"])
    );
    let steps = |agent: &str| -> Vec<(StepTask, mesh_bus::Properties)> {
        let (_, given) = given.iter().find(|(name, _)| name == agent).unwrap();
        given.lock().unwrap().clone()
    };
    let (last, _) = &steps("general-agent")[0];
    let incoming = Value::Object(last.incoming_data.clone());
    for (from, kind) in [
        ("hardware-optimizer", "figures"),
        ("data-processor", "columns"),
    ] {
        assert_eq!(incoming[from]["type"], kind, "{incoming}");
        assert_eq!(
            incoming[from]["data"], answer["results"][from],
            "{incoming}"
        );
    }
    assert_eq!(last.role, "the part of general-agent");
    assert_eq!(last.payload["subject"], "x");
    let (first, properties) = &steps("hardware-optimizer")[0];
    assert!(first.incoming_data.is_empty());
    assert_eq!(properties.priority, Some(9));
    let task = mesh.get_json(&format!("/task/{id}")).await;
    assert_eq!(
        (&task["status"], &task["plan"]["source"]),
        (&json!("completed"), &json!("client"))
    );
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"][0]["task_id"], id);
}

async fn begun(given: &Given) -> StepTask {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some((step, _)) = given.lock().unwrap().first() {
                return step.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the step never came")
}

#[tokio::test]
async fn agents_work_at_the_same_time_and_a_barrier_holds() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let mut given = Vec::new();
    for agent in ["hardware-optimizer", "data-processor", "general-agent"] {
        given.push(mesh.agent(agent, silence).await);
    }
    let mut task = diamond();
    // Nothing flows, and the last one waits all the same.
    task["plan"]["edges"] = json!([]);
    task["plan"]["synchronization_points"] =
        json!([{"after": ["hardware-optimizer", "data-processor"], "before": ["general-agent"]}]);
    let response = coordinate(&mesh, &task, &[("prefer", "respond-async")]).await;
    assert_eq!(response.status(), 202);
    let place = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["preference-applied"], "respond-async");
    // Each is answered only once both have begun.
    let (first, second) = (begun(&given[0]).await, begun(&given[1]).await);
    let done = |what: &str| Outcome::Completed {
        result: json!(what),
    };
    mesh.publish_result(&result_of(&first, done("first"))).await;
    mesh.until(&place, |task| {
        task["steps"]["hardware-optimizer"]["status"] == "completed"
    })
    .await;
    assert!(
        given[2].lock().unwrap().is_empty(),
        "it did not wait for both"
    );
    mesh.publish_result(&result_of(&second, done("second")))
        .await;
    let last = begun(&given[2]).await;
    assert!(last.incoming_data.is_empty());
    mesh.publish_result(&result_of(&last, done("last"))).await;
    mesh.until(&place, |task| task["status"] == "completed")
        .await;
}

#[tokio::test]
async fn wrong_plans_are_refused_with_their_findings() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let registered = json!({"id": "listener", "capabilities": ["listening"]});
    let request = mesh
        .client
        .post(mesh.url("/register"))
        .body(registered.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let refused = async |plan: Value| -> (String, String) {
        let response = coordinate(&mesh, &json!({"task": "x", "plan": plan}), &[]).await;
        assert_eq!(response.status(), 422, "{plan}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let problem: Value = response.json().await.unwrap();
        let error = &problem["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (
            format!("{} {}", text("code"), text("field")),
            text("detail"),
        )
    };
    let mut circle = diamond()["plan"].clone();
    let back = json!({"from": "general-agent", "to": "data-processor"});
    circle["edges"].as_array_mut().unwrap().push(back);
    let (code, detail) = refused(circle).await;
    assert_eq!(code, "C005 plan.edges");
    let named = [
        "data-processor → general-agent → data-processor",
        "general-agent → data-processor → general-agent",
    ];
    assert!(named.iter().any(|n| detail.contains(n)), "{detail}");
    for (plan, wanted) in [
        (
            json!({"nodes": [node("wizard")]}),
            "C001 plan.nodes[0].agent",
        ),
        (
            json!({"nodes": [node("listener")]}),
            "C002 plan.nodes[0].agent",
        ),
        (
            json!({"nodes": [node("general-agent"), node("general_agent")]}),
            "C003 plan.nodes[1].agent",
        ),
        (
            json!({"nodes": [node("general-agent")], "edges": [{"from": "x", "to": "general-agent"}]}),
            "C004 plan.edges[0].from",
        ),
        (json!({}), "C007 plan.nodes"),
        (json!("x"), "C012 plan"),
    ] {
        let (code, detail) = refused(plan).await;
        assert_eq!(code, wanted, "{detail}");
    }
    for (body, status) in [
        ("{", 400),
        ("[]", 422),
        (r#"{"task":7}"#, 422),
        (r#"{"task":"x","capabilities":["flying"]}"#, 422),
        (r#"{"task":"x","capabilities":7}"#, 422),
    ] {
        let request = mesh.client.post(mesh.url("/coordinate")).body(body);
        assert_eq!(request.send().await.unwrap().status(), status, "{body}");
    }
    let far = ("x-forwarded-for", "10.0.0.1");
    assert_eq!(coordinate(&mesh, &diamond(), &[far]).await.status(), 401);
}

#[tokio::test]
async fn rules_choose_by_capability_and_load() {
    let mesh = Mesh::start(config()).await;
    let answer = answered(&mesh, &json!({"task": "system_optimization"})).await;
    assert_eq!(answer["plan"]["source"], "rules");
    assert_eq!(
        answer["execution_order"],
        json!(["hardware-optimizer", "resource-arbitrator"])
    );
    // In the order in which they were asked for, and what each did goes to the next.
    let register = async |id: &str, workload: u64| {
        let said = json!({"id": id, "capabilities": ["drawing"], "workload": workload});
        let request = mesh
            .client
            .post(mesh.url("/register"))
            .body(said.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    register("resource-arbitrator", 9).await;
    register("general-agent", 2).await;
    let task = json!({"goal": "a picture", "capabilities": ["data_processing", "drawing"]});
    let answer = answered(&mesh, &task).await;
    assert_eq!(
        answer["execution_order"],
        json!(["data-processor", "general-agent"])
    );
    let incoming = &answer["results"]["general-agent"]["incoming"]["data-processor"];
    assert_eq!(incoming["type"], "data_processing", "{answer}");
}

#[tokio::test]
async fn a_failure_says_why_in_its_agents_place() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    mesh.agent("hardware-optimizer", answer_badly).await;
    mesh.agent("data-processor", answer_well).await;
    let answer = answered(&mesh, &diamond()).await;
    assert_eq!(answer["status"], "failed", "{answer}");
    assert_eq!(answer["error"]["code"], "agent_status");
    let failed = answer["results"]["hardware-optimizer"]["error"]
        .as_str()
        .unwrap();
    assert!(failed.starts_with("agent_status"), "{failed}");
    let skipped = answer["results"]["general-agent"]["error"]
        .as_str()
        .unwrap();
    assert!(skipped.starts_with("predecessor_failed"), "{skipped}");
}

#[tokio::test]
async fn a_key_is_a_collaboration_once() {
    let mesh = Mesh::start(config()).await;
    let key = ("idempotency-key", "once");
    let first: Value = coordinate(&mesh, &diamond(), &[key])
        .await
        .json()
        .await
        .unwrap();
    let again = coordinate(&mesh, &diamond(), &[key]).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let again: Value = again.json().await.unwrap();
    assert_eq!(first, again);
    let mut other = diamond();
    other["plan"]["nodes"][0]["priority"] = json!(1);
    assert_eq!(coordinate(&mesh, &other, &[key]).await.status(), 422);
    // Nor is it a task for the planner.
    let task = json!({"task": "report", "payload": {"subject": "x"}});
    assert_eq!(mesh.post_with(&task, &[key]).await.status(), 422);
    // Another's key is another's, and so is the task.
    let bob = assertion("bob", "");
    let bob = [key, ("x-mesh-assertion", bob.as_str())];
    let theirs: Value = coordinate(&mesh, &diamond(), &bob)
        .await
        .json()
        .await
        .unwrap();
    assert_ne!(theirs["task_id"], first["task_id"]);
    let id = theirs["task_id"].as_str().unwrap();
    let eve = assertion("eve", "");
    let request = mesh.client.get(mesh.url(&format!("/task/{id}")));
    let asked = request
        .header("x-mesh-assertion", eve)
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status(), 404);
}

#[tokio::test]
async fn a_model_plans_and_is_told_once_what_is_wrong() {
    let graph = |edges: Value| {
        json!({
            "nodes": [node("data-processor"), node("general-agent")],
            "edges": edges,
            "synchronization_points": ["when it is read"],
            "estimated_completion": "5",
        })
    };
    let edge = |from: &str, to: &str| json!({"from": from, "to": to, "data": "rows", "weight": 2});
    let (there, back) = (
        edge("data-processor", "general-agent"),
        edge("general-agent", "data-processor"),
    );
    let circle = graph(json!([there, back]));
    let good = graph(json!([there]));
    for (answers, source) in [
        (vec![Answer::Plan(good.clone())], "ollama"),
        (
            vec![Answer::Plan(circle.clone()), Answer::Plan(good)],
            "ollama",
        ),
        (vec![Answer::Plan(circle)], "rules"),
        (vec![Answer::Text("no".to_owned())], "rules"),
    ] {
        let model = Ollama::start(answers).await.unwrap();
        let mut config = config();
        config.planner.ollama = Some(OllamaConfig {
            timeout_ms: 5000,
            num_predict: 256,
            ..OllamaConfig::new(model.url(), "tinyllama")
        });
        let mesh = Mesh::start(config).await;
        let answer = answered(&mesh, &json!({"task": "data_processing"})).await;
        assert_eq!(answer["plan"]["source"], source, "{answer}");
        assert_eq!(answer["status"], "completed", "{answer}");
        if source == "ollama" {
            assert_eq!(
                answer["execution_order"],
                json!(["data-processor", "general-agent"])
            );
            // It is no plan for a task of its type.
            let task = mesh.post(&json!({"task": "data_processing"})).await;
            let task: Value = task.json().await.unwrap();
            let risks = task["plan"]["risks"].to_string();
            assert!(!risks.contains("plan cache"), "{task}");
        } else {
            let risk = answer["plan"]["risks"][0].as_str().unwrap();
            assert!(risk.starts_with("planned by rules"), "{risk}");
        }
    }
}
