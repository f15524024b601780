//! A model that answers well, slowly, rubbish, wrongly: each case ends in a sound plan that says whose
//! it is.

use crate::mesh::{Mesh, config};
use mesh_orchestrator::config::Ollama as OllamaConfig;
use mesh_orchestrator::double::{Answer, Ollama};
use serde_json::{Value, json};
use std::time::Duration;

fn plan(steps: Value) -> Value {
    json!({
        "execution_plan": steps,
        "resources": {"cpu": "10", "memory": "64", "gpu": false},
        "estimated_time": 5,
        "confidence": 0.9,
        "risks": [],
    })
}

fn good() -> Value {
    plan(json!([
        {"id": "read", "agent": "data-processor", "action": "read it", "dependencies": []},
        {"id": "think", "agent": "general-agent", "action": "think", "dependencies": ["data-processor"]},
    ]))
}

fn unknown_agents() -> Value {
    plan(json!([{"id": "a", "agent": "wizard", "action": "x", "dependencies": []}]))
}

fn cycle() -> Value {
    plan(json!([
        {"id": "a", "agent": "general-agent", "action": "x", "dependencies": ["b"]},
        {"id": "b", "agent": "general-agent", "action": "x", "dependencies": ["a"]},
    ]))
}

/// Two steps, the second with `more` in it.
fn two(more: Value) -> Value {
    let mut second = json!({"id": "b", "agent": "general-agent", "action": "x"});
    let fields = more.as_object().unwrap().clone();
    second.as_object_mut().unwrap().extend(fields);
    plan(json!([{"id": "a", "agent": "data-processor", "action": "x", "dependencies": []}, second]))
}

/// The task's end, and what the model was asked.
async fn run(answers: Vec<Answer>) -> (Value, Vec<Value>) {
    let task = json!({"task": "data_processing", "payload": {"text": "a,b"}});
    run_task(answers, 1000, &task).await
}

async fn run_task(answers: Vec<Answer>, timeout_ms: u64, task: &Value) -> (Value, Vec<Value>) {
    let model = Ollama::start(answers).await.unwrap();
    let mut config = config();
    config.planner.ollama = Some(OllamaConfig {
        timeout_ms,
        num_predict: 256,
        ..OllamaConfig::new(model.url(), "tinyllama")
    });
    let mesh = Mesh::start(config).await;
    let answer = mesh.post_with(task, &[("prefer", "wait=20")]).await;
    assert_eq!(answer.status(), 200);
    (answer.json().await.unwrap(), model.asked())
}

async fn falls_back(answers: Vec<Answer>, calls: usize, why: &str) {
    let (task, asked) = run(answers).await;
    assert_eq!(task["plan"]["source"], "rules", "{why}");
    assert_eq!(task["status"], "completed", "{why}");
    let risks = task["plan"]["risks"].to_string();
    assert!(risks.contains(why), "{risks}");
    assert_eq!(asked.len(), calls, "{why}");
}

#[tokio::test]
async fn a_good_plan_is_run() {
    let (task, asked) = run(vec![Answer::Plan(good())]).await;
    assert_eq!(task["plan"]["source"], "ollama");
    assert_eq!(task["status"], "completed");
    // The second step was given the first one's result.
    let incoming = &task["results"]["think"]["incoming"];
    assert_eq!(incoming["read"]["agent"], "data-processor");
    assert_eq!(incoming["read"]["data"]["done"], "read it");
    let request = &asked[0];
    assert_eq!(request["stream"], false);
    assert_eq!(
        request["options"],
        json!({"temperature": 0, "num_predict": 256})
    );
    let agent = &request["format"]["properties"]["execution_plan"]["items"]["properties"]["agent"];
    assert!(
        agent["enum"]
            .as_array()
            .unwrap()
            .contains(&json!("data-processor"))
    );
}

#[tokio::test]
async fn a_wrong_plan_gets_one_chance() {
    let (task, asked) = run(vec![Answer::Plan(unknown_agents()), Answer::Plan(good())]).await;
    assert_eq!(task["plan"]["source"], "ollama");
    assert_eq!(asked.len(), 2);
    assert!(asked[1]["messages"].to_string().contains("P001"));
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_never_dropped() {
    for wrong in [
        json!({"dependencies": [{"id": "a"}]}),
        json!({"dependencies": {"a": 1}}),
        json!({"dependencies": [null, ["a"]]}),
        json!({"depends_on": ["a"]}),
        json!({"payload": "a,b"}),
        json!({"timeout": 2.5}),
    ] {
        let (task, asked) = run(vec![Answer::Plan(two(wrong.clone())), Answer::Plan(good())]).await;
        assert_eq!(task["plan"]["source"], "ollama", "{wrong}");
        assert_eq!(asked.len(), 2, "{wrong}");
        assert!(
            asked[1]["messages"].to_string().contains("P013 at \\\"b"),
            "{wrong}"
        );
    }
    let depends_on = two(json!({"depends_on": ["a"]}));
    falls_back(vec![Answer::Plan(depends_on)], 2, "P013").await;
}

#[tokio::test]
async fn a_lone_dependency_is_waited_for() {
    let lone = two(json!({"dependencies": "a", "timeout": "7"}));
    let (task, asked) = run(vec![Answer::Plan(lone)]).await;
    assert_eq!(asked.len(), 1);
    let step = &task["plan"]["execution_plan"][1];
    assert_eq!(
        (&step["dependencies"], &step["timeout"]),
        (&json!(["a"]), &json!(7))
    );
    assert_eq!(task["results"]["b"]["incoming"]["a"]["data"]["done"], "x");
}

#[tokio::test]
async fn a_slow_model_leaves_the_rules_most_of_a_short_task() {
    let slow = Answer::Slow(Duration::from_secs(60), good());
    let task = json!({"task": "data_processing", "timeout": 3});
    let (task, asked) = run_task(vec![slow], 30_000, &task).await;
    assert_eq!(task["plan"]["source"], "rules");
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(asked.len(), 1);
    assert!(task["plan"]["risks"].to_string().contains("its share"));
}

#[tokio::test]
async fn plans_that_stay_wrong_are_left() {
    falls_back(vec![Answer::Plan(unknown_agents())], 2, "P001").await;
    falls_back(vec![Answer::Plan(cycle())], 2, "P006").await;
    let wide = (0..30)
        .map(|n| json!({"id": format!("s{n}"), "agent": "general-agent", "action": "x", "dependencies": []}))
        .collect();
    falls_back(vec![Answer::Plan(plan(Value::Array(wide)))], 2, "P008").await;
    let twice = json!([
        {"id": "a", "agent": "general-agent", "action": "x", "dependencies": []},
        {"id": "a", "agent": "general-agent", "action": "x", "dependencies": ["c"]},
    ]);
    falls_back(vec![Answer::Plan(plan(twice))], 2, "P003 P004").await;
}

#[tokio::test]
async fn a_model_that_fails_is_left() {
    let slow = Answer::Slow(Duration::from_secs(60), good());
    falls_back(vec![slow], 1, "time limit").await;
    falls_back(
        vec![Answer::Text("I would rather not.".into())],
        1,
        "not JSON",
    )
    .await;
    falls_back(vec![Answer::Raw(200, "{}".into())], 1, "not done").await;
    falls_back(vec![Answer::Raw(200, "<html>".into())], 1, "not JSON").await;
    let full = r#"{"error":"server busy, please try again. maximum pending requests exceeded"}"#;
    falls_back(vec![Answer::Raw(503, full.into())], 1, "503").await;
    falls_back(vec![Answer::Raw(404, "{}".into())], 1, "404").await;
    falls_back(vec![Answer::Length(good())], 1, "length").await;
    falls_back(vec![Answer::CutOff], 1, "connection broke").await;
    falls_back(vec![Answer::Endless], 1, "larger").await;
    falls_back(
        vec![Answer::Plan(json!({"steps": []}))],
        1,
        "no execution_plan",
    )
    .await;
}

#[tokio::test]
async fn a_model_that_is_not_there_is_left() {
    let gone = Ollama::start(vec![]).await.unwrap().url();
    let mut config = config();
    config.planner.ollama = Some(OllamaConfig {
        timeout_ms: 1000,
        ..OllamaConfig::new(gone, "tinyllama")
    });
    let mesh = Mesh::start(config).await;
    let answer = mesh.post(&json!({"task": "data_processing"})).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["plan"]["source"], "rules");
}
