//! The model server as the planner sees it: not there yet, busy, broken, used up; and plans that are used again.

use crate::mesh::{Mesh, answer_badly, config, mesh_agents};
use mesh_orchestrator::config::{Config, Ollama as OllamaConfig};
use mesh_orchestrator::double::{Answer, Gate, Ollama, Pull};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

pub fn plan(action: &str) -> Value {
    json!({"execution_plan": [
        {"id": "s", "agent": "data-processor", "action": action, "dependencies": []},
    ]})
}

pub fn with_model(model: &Ollama, change: impl FnOnce(&mut OllamaConfig)) -> Config {
    let mut config = config();
    let mut ollama = OllamaConfig::new(model.url(), "tinyllama");
    change(&mut ollama);
    config.planner.ollama = Some(ollama);
    config.peers_by_certificate = true;
    config
}

async fn task(mesh: &Mesh, payload: Value) -> Value {
    let task = json!({"task": "data_processing", "payload": payload});
    let answer = mesh.post_with(&task, &[("prefer", "wait=20")]).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn source(task: &Value) -> (&str, String) {
    let plan = &task["plan"];
    (plan["source"].as_str().unwrap(), plan["risks"].to_string())
}

#[tokio::test]
async fn tasks_are_planned_by_rules_while_the_model_is_pulled() {
    let gate: Gate = Arc::new(Semaphore::new(0));
    // Breaks off twice, goes on where it was, and waits before its last tenth.
    let pulls = vec![
        Pull::BreaksAt(250_000),
        Pull::BreaksAt(550_000),
        Pull::Gated(Arc::clone(&gate)),
    ];
    let model = Ollama::with_models(vec![Answer::Plan(plan("read"))], &[], pulls)
        .await
        .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        o.pull = true;
        o.keep_alive_s = Some(600);
    }))
    .await;
    let state = |view: &Value| view["models"]["tinyllama"].clone();
    let pulling = mesh
        .until("/models", |v| state(v)["completed"] == 900_000)
        .await;
    assert_eq!(state(&pulling)["state"], "pulling");
    assert_eq!(state(&pulling)["total"], 1_000_000);
    let done = task(&mesh, json!({})).await;
    assert_eq!(done["status"], "completed");
    let (by, risks) = source(&done);
    assert_eq!(by, "rules");
    assert!(risks.contains("being pulled, 90 %"), "{risks}");
    mesh.metric("orchestrator_model_pulled_bytes{model=\"tinyllama\"} 900000")
        .await;
    gate.add_permits(1);
    mesh.until("/models", |v| state(v)["state"] == "ready")
        .await;
    assert_eq!(source(&task(&mesh, json!({})).await).0, "ollama");
    mesh.metric("orchestrator_model_ready{model=\"tinyllama\"} 1")
        .await;
    // Loaded beforehand, and kept as long as mesh.yaml says.
    let calls = model.calls();
    let asked = |path: &str| calls.iter().filter(|(p, _)| p == path).collect::<Vec<_>>();
    assert_eq!(asked("/api/pull").len(), 3);
    let loaded = &asked("/api/generate")[0].1;
    assert_eq!(
        loaded,
        &json!({"model": "tinyllama", "stream": false, "keep_alive": 600})
    );
    assert_eq!(asked("/api/chat")[0].1["keep_alive"], 600);
}

#[tokio::test]
async fn a_model_that_is_taken_away_is_pulled_again_and_one_that_nobody_has_is_named() {
    let model = Ollama::with_models(
        vec![Answer::Plan(plan("read"))],
        &["tinyllama"],
        vec![Pull::Unknown, Pull::Whole],
    )
    .await
    .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        o.pull = true;
        o.cache.entries = 0;
    }))
    .await;
    mesh.until("/models", |v| v["models"]["tinyllama"]["state"] == "ready")
        .await;
    assert_eq!(source(&task(&mesh, json!({})).await).0, "ollama");
    model.remove("tinyllama");
    let (by, risks) = {
        let done = task(&mesh, json!({})).await;
        let (by, risks) = source(&done);
        (by.to_owned(), risks)
    };
    assert_eq!(by, "rules");
    assert!(
        risks.contains("404: model 'tinyllama' not found"),
        "{risks}"
    );
    // The registry does not know it the first time.
    mesh.until("/models", |v| v["models"]["tinyllama"]["state"] == "ready")
        .await;
    assert_eq!(source(&task(&mesh, json!({})).await).0, "ollama");
}

#[tokio::test]
async fn a_missing_model_that_is_not_to_be_pulled_is_said_to_be_missing() {
    let model = Ollama::with_models(vec![Answer::Plan(plan("read"))], &["other"], vec![])
        .await
        .unwrap();
    let mesh = Mesh::start(with_model(&model, |_| {})).await;
    mesh.until("/models", |v| {
        v["models"]["tinyllama"]["state"] == "missing"
    })
    .await;
    let done = task(&mesh, json!({})).await;
    let (by, risks) = source(&done);
    assert_eq!(by, "rules");
    assert!(risks.contains("does not have it"), "{risks}");
    assert!(model.asked().is_empty());
    assert!(model.calls().iter().all(|(path, _)| path != "/api/pull"));
}

#[tokio::test]
async fn the_breaker_opens_spares_the_server_and_closes() {
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let model = Ollama::start(vec![Answer::Raw(503, busy.to_owned())])
        .await
        .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| o.cache.entries = 0)).await;
    for _ in 0..5 {
        let done = task(&mesh, json!({})).await;
        assert!(source(&done).1.contains("503: server busy"), "{done}");
    }
    mesh.metric("orchestrator_model_breaker{state=\"open\"} 1")
        .await;
    let done = task(&mesh, json!({})).await;
    assert!(source(&done).1.contains("left alone"), "{done}");
    assert_eq!(model.asked().len(), 5);
    model.answer(vec![Answer::Plan(plan("read"))]);
    // After its pause one call tries, and that is enough.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while source(&task(&mesh, json!({})).await).0 == "rules" {
        assert!(tokio::time::Instant::now() < deadline, "it stays open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mesh.metric("orchestrator_model_breaker{state=\"closed\"} 1")
        .await;
    mesh.metric("orchestrator_model_calls_total{consumer=\"planner\",outcome=\"busy\"} 5")
        .await;
}

#[tokio::test]
async fn never_more_plans_at_the_same_time_than_allowed_and_the_rest_by_rules() {
    let slow = Answer::Slow(Duration::from_millis(100), plan("read"));
    let model = Ollama::start(vec![slow]).await.unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        // It would take a turn too.
        o.preload = false;
        o.concurrency = 2;
        o.queue.max = 4;
        o.cache.entries = 0;
    }))
    .await;
    let tasks = (0..20).map(|_| task(&mesh, json!({})));
    let tasks = futures_util::future::join_all(tasks).await;
    assert_eq!(model.at_work().1, 2);
    let by_rules = tasks.iter().filter(|t| source(t).0 == "rules");
    let full = by_rules.filter(|t| source(t).1.contains("as many calls as allowed wait"));
    let full = full.count();
    assert!((1..=14).contains(&full), "{full}");
    assert!(tasks.iter().all(|t| t["status"] == "completed"));
    let line = format!(
        "orchestrator_model_calls_total{{consumer=\"planner\",outcome=\"queue_full\"}} {full}"
    );
    mesh.metric(&line).await;
    mesh.metric("orchestrator_model_calls_under_way 0").await;
}

#[tokio::test]
async fn a_used_up_budget_leaves_planning_to_the_rules() {
    let model = Ollama::start(vec![Answer::Plan(plan("read"))])
        .await
        .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        o.budgets = serde_json::from_value(json!({
            // A plan of the double costs 11 + 18 tokens.
            "consumers": {"planner": {"tokens": 50, "per_s": 3600}},
        }))
        .unwrap();
        o.cache.entries = 0;
    }))
    .await;
    assert_eq!(source(&task(&mesh, json!({})).await).0, "ollama");
    assert_eq!(source(&task(&mesh, json!({})).await).0, "ollama");
    let done = task(&mesh, json!({})).await;
    let (by, risks) = source(&done);
    assert_eq!(by, "rules");
    assert!(risks.contains("tokens of planner are used up"), "{risks}");
    assert_eq!(model.asked().len(), 2);
    for line in [
        "orchestrator_model_tokens_total{consumer=\"planner\",direction=\"input\"} 22",
        "orchestrator_model_tokens_total{consumer=\"planner\",direction=\"output\"} 36",
        "orchestrator_model_calls_total{consumer=\"planner\",outcome=\"budget_exhausted\"} 1",
    ] {
        mesh.metric(line).await;
    }
}

#[tokio::test]
async fn a_plan_is_used_again_for_the_same_shape_and_never_with_values_in_it() {
    let answers = ["read the text", "say hello", "read the text"];
    let answers = answers.map(|action| Answer::Plan(plan(action)));
    let model = Ollama::start(answers.to_vec()).await.unwrap();
    let mesh = Mesh::start(with_model(&model, |_| {})).await;
    let first = task(&mesh, json!({"text": "hello"})).await;
    assert!(!source(&first).1.contains("plan cache"));
    let again = task(&mesh, json!({"text": "another"})).await;
    assert_eq!(source(&again).0, "ollama");
    assert!(source(&again).1.contains("plan cache"), "{again}");
    assert_eq!(model.asked().len(), 1);
    // The payload is this task's own.
    assert_eq!(again["status"], "completed");
    // Another shape is another plan; this one speaks of the value.
    let other = json!({"text": "hello", "n": 1});
    task(&mesh, other.clone()).await;
    task(&mesh, other).await;
    assert_eq!(model.asked().len(), 3);
    for line in [
        "orchestrator_plan_cache_total{outcome=\"hit\"} 1",
        "orchestrator_plan_cache_total{outcome=\"miss\"} 3",
        "orchestrator_plan_cache_total{outcome=\"kept\"} 2",
        "orchestrator_plan_cache_total{outcome=\"not_kept\"} 1",
    ] {
        mesh.metric(line).await;
    }
}

#[tokio::test]
async fn a_plan_whose_run_fails_is_made_anew() {
    let model = Ollama::start(vec![Answer::Plan(plan("read"))])
        .await
        .unwrap();
    let config = with_model(&model, |_| {});
    let mesh = Mesh::without_agents(config, crate::mesh::Ground::new()).await;
    for agent in mesh_agents() {
        mesh.agent(&agent, answer_badly).await;
    }
    for asked in 1..=2 {
        assert_eq!(task(&mesh, json!({})).await["status"], "failed");
        assert_eq!(model.asked().len(), asked);
    }
}
