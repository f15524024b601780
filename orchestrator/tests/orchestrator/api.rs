//! The API as clients see it, over the memory bus.

use crate::mesh::{
    Ground, Mesh, answer_badly, answer_well, assertion, assertion_of, config, silence,
};
use mesh_orchestrator::config::OnFailure;
use mesh_protocol::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};

fn plans_own() -> Value {
    json!({
        "task_type": "code_generation",
        "payload": {"language": "python", "description": "Hello world"},
        "priority": 5,
    })
}

#[tokio::test]
async fn the_plans_own_request_and_how_it_ends() {
    let mesh = Mesh::start(config()).await;
    let response = mesh.post(&plans_own()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    let id = answer["task_id"].as_str().unwrap();
    assert_eq!(answer["plan"]["source"], "rules");
    assert_eq!(answer["plan"]["agents_required"], json!(["general-agent"]));
    // code-generator and qa-validator are not there: one line for each.
    assert_eq!(answer["plan"]["risks"].as_array().unwrap().len(), 2);
    assert_eq!(
        answer["execution"],
        json!({
            "task_id": id,
            "execution_status": "in_progress",
            "steps": [{
                "agent": "general-agent",
                "status": "dispatched",
                "action": "Process code_generation",
                "step_id": "general-agent",
            }],
        })
    );
    let task = mesh.ended(id).await;
    assert_eq!(task["status"], "completed");
    assert_eq!(task["progress"], 100.0);
    let step = &task["steps"]["general-agent"];
    assert_eq!(step["status"], "completed");
    assert_eq!(step["result"]["by"], "general-agent");
    assert!(step["started_at"].is_string() && step["finished_at"].is_string());
    assert_eq!(task["results"]["general-agent"], step["result"]);
    mesh.metric("orchestrator_tasks_total{outcome=\"completed\"} 1")
        .await;
    mesh.metric("orchestrator_tasks_in_flight 0").await;
}

#[tokio::test]
async fn steps_carry_what_agents_and_sidecars_need() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let given = mesh.agent("data-processor", answer_well).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let token = assertion("alice", "");
    let body =
        json!({"task": "data_processing", "payload": {"n": 1}, "priority": 9, "timeout": 30});
    let headers = [
        ("traceparent", trace),
        ("x-mesh-assertion", &*token),
        ("prefer", "wait=20"),
    ];
    let answer: Value = mesh.post_with(&body, &headers).await.json().await.unwrap();
    assert_eq!(answer["status"], "completed");
    let (step, properties) = given.lock().unwrap()[0].clone();
    let id = answer["task_id"].as_str().unwrap();
    assert_eq!(step.task_id.as_str(), id);
    assert_eq!(step.payload["n"], 1);
    assert_eq!(step.role, step.action);
    assert_eq!(step.assertion, Some(token));
    let submitted = step.submitted_ms.unwrap();
    // Two clocks are read for it, a millisecond each.
    let latest = submitted + 30_000 + 2;
    assert!((submitted..=latest).contains(&step.deadline_ms.unwrap()));
    assert_eq!(properties.priority, Some(9));
    assert_eq!(properties.traceparent.as_deref(), Some(trace));
    assert_eq!(
        properties.idempotency_key,
        Some(format!("{id}:data-processor"))
    );
    assert!(properties.expiration_ms.unwrap() <= 30_000);
}

#[tokio::test]
async fn prefer_decides_how_the_answer_comes() {
    let mesh = Mesh::start(config()).await;
    let task = json!({"task": "system_optimization"});
    let later = mesh.post_with(&task, &[("prefer", "respond-async")]).await;
    assert_eq!(later.status(), StatusCode::ACCEPTED);
    assert_eq!(later.headers()["preference-applied"], "respond-async");
    let location = later.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(mesh.get(&location).await.status(), StatusCode::OK);

    let waited = mesh.post_with(&task, &[("prefer", "wait=20")]).await;
    assert_eq!(waited.status(), StatusCode::OK);
    assert_eq!(waited.headers()["preference-applied"], "wait=20");
    let answer: Value = waited.json().await.unwrap();
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["execution"]["execution_status"], "completed");
    assert_eq!(answer["results"].as_object().unwrap().len(), 2);

    let silent = Mesh::without_agents(config(), Ground::new()).await;
    let headers = [("prefer", "respond-async, wait=0")];
    let neither = silent.post_with(&task, &headers).await;
    assert_eq!(neither.status(), StatusCode::ACCEPTED);
    let slow = silent.post_with(&task, &[("prefer", "wait=0")]).await;
    assert_eq!(slow.status(), StatusCode::OK);
    let answer: Value = slow.json().await.unwrap();
    assert_eq!(answer["status"], "in_progress");
}

#[tokio::test]
async fn bad_requests_hear_what_is_wrong() {
    let mut config = config();
    config.limits.max_body_bytes = 1000;
    config.planner.general_agent = None;
    let mesh = Mesh::start(config).await;
    let post = async |body: String| {
        let sent = mesh.client.post(mesh.url("/")).body(body).send();
        let response = sent.await.unwrap();
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let status = response.status().as_u16();
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status);
        let fields: Vec<String> = problem["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| e["field"].as_str().unwrap().to_owned())
            .collect();
        (status, fields)
    };
    assert_eq!(post("{".into()).await, (400, vec![]));
    assert_eq!(post(String::new()).await, (400, vec![]));
    assert_eq!(
        post(r#"{"task":1,"priority":11}"#.into()).await,
        (422, vec!["task".into(), "priority".into()])
    );
    assert_eq!(
        post(r#"{"task":"unheard_of"}"#.into()).await,
        (422, vec!["task_type".into()])
    );
    assert_eq!(
        post(format!(r#"{{"task":"{}"}}"#, "x".repeat(2000))).await,
        (413, vec!["payload".into()])
    );
    for path in [
        "/nothing",
        "/task/none",
        "/task/a%2Fb",
        "/task/%ff",
        "/task/%ff/events",
        "/task/none/events",
    ] {
        let response = mesh.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    let wrong = mesh.get("/orchestrate").await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers()["allow"], "POST");
    let list = mesh.get("/tasks?status=odd").await;
    assert_eq!(list.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut() {
    let mut config = config();
    config.limits.max_body_bytes = 1000;
    let mesh = Mesh::start(config).await;
    let parts = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 100]));
    let body = reqwest::Body::wrap_stream(parts);
    let sent = mesh.client.post(mesh.url("/")).body(body).send().await;
    // The answer comes, or the connection is closed under the sender.
    if let Ok(response) = sent {
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn who_is_not_local_needs_one_assertion() {
    let mesh = Mesh::start(config()).await;
    let alice = assertion("alice", "");
    let status = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = mesh.client.get(mesh.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        if response.status() == StatusCode::UNAUTHORIZED {
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
        response.status().as_u16()
    };
    let far = ("x-forwarded-for", "10.0.0.1");
    assert_eq!(status("/agents", &[]).await, 200);
    assert_eq!(status("/agents", &[far]).await, 401);
    assert_eq!(status("/agents", &[("host", "evil.example")]).await, 401);
    assert_eq!(
        status("/agents", &[("origin", "http://evil.example")]).await,
        401
    );
    assert_eq!(status("/health", &[far]).await, 200);
    assert_eq!(status("/nothing", &[far]).await, 401);
    let token = ("x-mesh-assertion", &*alice);
    assert_eq!(status("/agents", &[far, token]).await, 200);
    assert_eq!(status("/agents", &[token, token]).await, 401);
    let other = format!("{alice}x");
    assert_eq!(
        status("/agents", &[("x-mesh-assertion", &other)]).await,
        401
    );
}

#[tokio::test]
async fn an_assertion_outside_its_time_is_a_matter_of_clocks_not_of_the_client() {
    let mesh = Mesh::start(config()).await;
    let now = Timestamp::now().seconds();
    for made in [now - 3600, now + 3600] {
        let request = mesh.client.get(mesh.url("/agents"));
        let request = request.header("x-mesh-assertion", assertion_of(made, "alice", ""));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        let problem: Value = response.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("clocks"));
    }
}

#[tokio::test]
async fn tasks_belong_to_who_submitted_them() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let (alice, bob) = (assertion("alice", ""), assertion("bob", "x"));
    let auditor = assertion("carol", "a tasks:read-all");
    let response = mesh
        .post_with(&plans_own(), &[("x-mesh-assertion", &alice)])
        .await;
    let answer: Value = response.json().await.unwrap();
    let id = answer["task_id"].as_str().unwrap();
    let ask = async |method: reqwest::Method, path: String, token: &str| {
        let request = mesh.client.request(method, mesh.url(&path));
        let request = request.header("x-mesh-assertion", token);
        request.send().await.unwrap()
    };
    let get = reqwest::Method::GET;
    let task = format!("/task/{id}");
    for (token, seen, listed) in [(&alice, 200, 1), (&bob, 404, 0), (&auditor, 200, 1)] {
        let response = ask(get.clone(), task.clone(), token).await;
        assert_eq!(response.status().as_u16(), seen);
        let list: Value = ask(get.clone(), "/tasks".into(), token)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(list["tasks"].as_array().unwrap().len(), listed);
    }
    let events = ask(get.clone(), format!("{task}/events"), &bob).await;
    assert_eq!(events.status().as_u16(), 404);
    let delete = reqwest::Method::DELETE;
    for (token, status) in [(&bob, 404), (&auditor, 403), (&alice, 200), (&alice, 409)] {
        let response = ask(delete.clone(), task.clone(), token).await;
        assert_eq!(response.status().as_u16(), status);
    }
    assert_eq!(mesh.get_json(&task).await["status"], "cancelled");
}

#[tokio::test]
async fn events_are_replayed_then_live_then_over() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let id = mesh.submit(&json!({"task": "system_optimization"})).await;
    let path = format!("/task/{id}/events");
    let mut live = mesh.get(&path).await;
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while text.matches("event: step.dispatched").count() < 2 {
        text.push_str(std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("event: task.accepted"));
    mesh.metric("orchestrator_sse_clients 1").await;
    mesh.agent("hardware-optimizer", answer_well).await;
    mesh.agent("resource-arbitrator", answer_well).await;
    while let Some(chunk) = live.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(text.matches("event: step.completed").count(), 2);
    assert!(
        text.trim_end()
            .lines()
            .rev()
            .any(|l| l == "event: task.completed")
    );
    mesh.metric("orchestrator_sse_clients 0").await;
    // Once more, from the store.
    let again = mesh.get(&path).await.text().await.unwrap();
    let kinds = |text: &str| {
        let mut kinds: Vec<String> = text
            .lines()
            .filter(|l| l.starts_with("event:"))
            .map(str::to_owned)
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&again), kinds(&text));
}

#[tokio::test]
async fn failures_say_why() {
    let mut config = config();
    config.steps.on_failure = OnFailure::Continue;
    let mesh = Mesh::without_agents(config, Ground::new()).await;
    mesh.agent("hardware-optimizer", answer_badly).await;
    mesh.agent("resource-arbitrator", answer_well).await;
    let task = mesh.submit(&json!({"task": "system_optimization"})).await;
    let task = mesh.ended(&task).await;
    assert_eq!(task["status"], "failed");
    assert_eq!(task["error"]["code"], "agent_status");
    assert_eq!(task["progress"], 50.0);
    let steps = &task["steps"];
    assert_eq!(steps["hardware-optimizer"]["error"]["code"], "agent_status");
    assert_eq!(steps["resource-arbitrator"]["status"], "completed");
    assert_eq!(task["results"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn deadlines_end_what_nobody_answers() {
    let mut config = config();
    config.steps.timeout_ms = 50;
    let mesh = Mesh::without_agents(config, Ground::new()).await;
    mesh.agent("hardware-optimizer", silence).await;
    let task = mesh.submit(&json!({"task": "system_optimization"})).await;
    let task = mesh.ended(&task).await;
    assert_eq!(task["status"], "failed");
    assert_eq!(task["error"]["code"], "deadline_exceeded");
    let plain = Mesh::without_agents(crate::mesh::config(), Ground::new()).await;
    let task = plain
        .submit(&json!({"task": "system_optimization", "timeout": 1}))
        .await;
    let task = plain.ended(&task).await;
    assert_eq!(task["error"]["code"], "deadline_exceeded");
}

#[tokio::test]
async fn too_many_tasks_are_refused_for_a_while() {
    let mut config = config();
    config.limits.max_runs = 1;
    let mesh = Mesh::without_agents(config, Ground::new()).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let refused = mesh.post(&json!({"task": "data_processing"})).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    mesh.agent("data-processor", answer_well).await;
    mesh.ended(&id).await;
    mesh.metric("orchestrator_tasks_in_flight 0").await;
    mesh.submit(&json!({"task": "data_processing"})).await;
}

#[tokio::test]
async fn the_orchestrator_tells_of_itself() {
    let mesh = Mesh::start(config()).await;
    let ready = mesh.until("/ready", |r| r["ready"] == true).await;
    assert_eq!(ready["reasons"], json!([]));
    let agents = mesh.get_json("/agents").await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 4);
    assert_eq!(mesh.get_json("/health").await["status"], "healthy");
    for n in 0..3 {
        mesh.submit(&json!({"task": "data_processing", "payload": {"n": n}}))
            .await;
    }
    let first = mesh.get_json("/tasks?limit=2").await;
    assert_eq!(first["tasks"].as_array().unwrap().len(), 2);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = mesh
        .get_json(&format!("/tasks?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(rest["tasks"].as_array().unwrap().len(), 1);
    assert!(rest.get("next_cursor").is_none());
}
