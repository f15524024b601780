//! Ollama's own Python client against `/ollama`: an agent that uses it needs no more than the URL.

use crate::mesh::Mesh;
use crate::models::with_model;
use mesh_orchestrator::double::{Answer, Ollama};
use mesh_tests::binary::program_of;
use serde_json::{Value, json};
use std::path::Path;
use tokio::process::Command;

async fn run(url: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/orchestrator/ollama_client.py");
    let output = Command::new(program_of("ollama", "python"))
        .arg(script)
        .arg(url)
        .env_remove("OLLAMA_HOST")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .kill_on_drop(true)
        .output();
    let output = mesh_tests::within("the client", output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_real_client_library_does_all_it_can_do() {
    let model = Ollama::with_models(
        vec![Answer::Text("all is well".into())],
        &["tinyllama", "huge"],
        vec![],
    )
    .await
    .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| o.concurrency = 2)).await;
    let said = run(&mesh.url("/ollama")).await;
    let not_shared = "model \"huge\" is not shared by this mesh";
    let wanted = json!({
        "chat": ["all is well", 18, "stop"],
        "chat_parts": ["all ", "is ", "well", ""],
        "chat_done": [true, 11],
        "generate": ["all is well", true],
        "generate_parts": ["all ", "is ", "well", ""],
        "embed": [[1.0, 0.5, -0.25], [2.0, 0.5, -0.25]],
        "list": ["tinyllama:latest"],
        "loaded": "load",
        "concurrently": vec!["all is well"; 8],
        "not_shared": [404, not_shared],
        "not_shared_streamed": [404, not_shared],
        "not_here": [404, "of Ollama's API there is chat, generate, embed, tags and version here"],
    });
    assert_eq!(said, wanted);
    assert!(model.at_work().1 <= 2);
    mesh.metric("orchestrator_model_calls_total{consumer=\"local\",outcome=\"ok\"} 14")
        .await;
}

#[tokio::test]
async fn the_real_client_library_hears_what_is_refused() {
    let model = Ollama::start(vec![Answer::Text("all is well".into())])
        .await
        .unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        o.budgets =
            serde_json::from_value(json!({"default": {"tokens": 1, "per_s": 3600}})).unwrap();
    }))
    .await;
    let url = mesh.url("/ollama");
    let script = "import ollama, sys\n\
        client = ollama.Client(host=sys.argv[1])\n\
        client.generate('tinyllama', 'x')\n\
        try:\n    client.generate('tinyllama', 'x')\n\
        except ollama.ResponseError as refused:\n    print(refused.status_code, refused.error)\n";
    let output = Command::new(program_of("ollama", "python"))
        .args(["-c", script, &url])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("429 the tokens of local are used up"),
        "{output:?}"
    );
}
