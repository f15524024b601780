//! Tokens that nobody gets round.

use crate::mesh::Mesh;
use crate::shared_model::{Stream, ask, chat, problem, start, words};
use mesh_orchestrator::double::Gate;
use mesh_tests::wait_for;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;

fn budget(tokens: u64) -> mesh_orchestrator::config::Budgets {
    serde_json::from_value(json!({"default": {"tokens": tokens, "per_s": 3600}})).unwrap()
}

async fn waiting(mesh: &Mesh, calls: usize) {
    mesh.metric(&format!("orchestrator_model_calls_waiting {calls}"))
        .await;
}

/// Whoever asks many times at once has not all of it before the first is counted.
#[tokio::test]
async fn calls_that_wait_in_the_line_wait_for_tokens_too() {
    let gate: Gate = Arc::new(Semaphore::new(0));
    let (model, mesh) = start(vec![words(&gate)], |o| {
        o.concurrency = 1;
        o.budgets = budget(10);
    })
    .await;
    let mesh = Arc::new(mesh);
    let asking = |_| {
        let mesh = Arc::clone(&mesh);
        tokio::spawn(async move {
            let answer = ask(&mesh, "data-processor", "chat", &chat(false)).await;
            answer.status().as_u16()
        })
    };
    let all: Vec<_> = (0..8).map(asking).collect();
    waiting(&mesh, 7).await;
    gate.add_permits(1_000);
    let mut statuses = Vec::new();
    for one in all {
        statuses.push(one.await.unwrap());
    }
    // The second may have its turn while the first is being counted.
    let paid = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=2).contains(&paid), "{statuses:?}");
    assert!(
        statuses.iter().all(|s| matches!(s, 200 | 429)),
        "{statuses:?}"
    );
    assert_eq!(model.at_work().1, 1);
}

/// The model has read a question whose asker leaves before the end, which would say what it cost.
#[tokio::test]
async fn who_leaves_pays_for_the_question() {
    let gate: Gate = Arc::new(Semaphore::new(1));
    let (_model, mesh) = start(vec![words(&gate)], |o| o.budgets = budget(9_000)).await;
    let question = json!({"model": "tinyllama", "prompt": "word ".repeat(8_000)});
    let mut stream = Stream::of(&mesh, "generate", &question).await;
    stream.line().await;
    drop(stream);
    let tokens = question.to_string().len() / 4;
    mesh.metric(&format!(
        "orchestrator_model_tokens_total{{consumer=\"data-processor\",direction=\"input\"}} {tokens}"
    ))
    .await;
    gate.add_permits(1_000);
    wait_for("the books to be written", async || {
        let answer = ask(&mesh, "data-processor", "chat", &chat(false)).await;
        answer.status() == 429
    })
    .await;
    let refused = ask(&mesh, "data-processor", "chat", &chat(true)).await;
    problem(refused, 429, "model-budget-exhausted").await;
}
