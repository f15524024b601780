//! Resources at the API, over memory: steps that wait, leases of outside agents, who may.

use crate::mesh::{Ground, Mesh, answer_well, assertion, config, silence};
use mesh_orchestrator::config::Config;
use mesh_orchestrator::resources::contract::amounts;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

fn with_gpu() -> Config {
    let mut config = Config {
        resources: amounts(&[("gpu", 1), ("memory", 1 << 34)]),
        ..config()
    };
    config.agents[2].resources = amounts(&[("gpu", 1)]);
    config
}

async fn mesh() -> Mesh {
    let mesh = Mesh::without_agents(with_gpu(), Ground::new()).await;
    mesh.agent("data-processor", answer_well).await;
    mesh
}

async fn call(mesh: &Mesh, method: Method, path: &str, body: Value, by: Option<&str>) -> Response {
    let mut request = mesh.client.request(method, mesh.url(path));
    if let Some(assertion) = by {
        request = request.header("x-mesh-assertion", assertion);
    }
    request.body(body.to_string()).send().await.unwrap()
}

async fn take(mesh: &Mesh, body: Value) -> Value {
    let response = call(mesh, Method::POST, "/resources/leases", body, None).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    response.json().await.unwrap()
}

async fn problem(response: Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    response.json().await.unwrap()
}

fn path_of(lease: &Value) -> String {
    format!("/resources/leases/{}", lease["lease_id"].as_str().unwrap())
}

async fn in_use(mesh: &Mesh, gpu: u64, waiting: u64) {
    mesh.until("/resources", |standing| {
        standing["resources"]["gpu"]["in_use"] == gpu && standing["waiting"] == waiting
    })
    .await;
}

fn one_gpu(ttl_s: u64) -> Value {
    json!({"resources": {"gpu": 1}, "ttl_s": ttl_s})
}

#[tokio::test]
async fn a_step_waits_says_so_and_goes_on() {
    let mesh = mesh().await;
    let lease = take(&mesh, one_gpu(60)).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let path = format!("/task/{id}");
    let task = mesh
        .until(&path, |t| {
            t["steps"]["data-processor"]["status"] == "waiting"
        })
        .await;
    let step = &task["steps"]["data-processor"];
    assert_eq!(step["waiting_for"], json!(["gpu"]));
    assert!(
        step["deadline"].is_string() || step["deadline"].is_number(),
        "{step}"
    );
    assert_eq!(task["status"], "in_progress");
    assert_eq!(
        task["plan"]["execution_plan"][0]["resources"],
        json!({"gpu": 1})
    );
    let standing = mesh.get_json("/resources").await;
    assert_eq!(
        standing["resources"]["gpu"],
        json!({"capacity": 1, "in_use": 1, "waiting": 1})
    );
    assert_eq!(standing["holders"][0]["lease_id"], lease["lease_id"]);
    let gone = call(&mesh, Method::DELETE, &path_of(&lease), json!({}), None).await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let task = mesh.ended(&id).await;
    assert_eq!(task["status"], "completed");
    assert!(task["steps"]["data-processor"].get("waiting_for").is_none());
    in_use(&mesh, 0, 0).await;
    mesh.metric("orchestrator_resource_wait_seconds_count{resource=\"gpu\"} 2")
        .await;
    mesh.metric("orchestrator_resource_capacity{resource=\"gpu\"} 1")
        .await;
}

#[tokio::test]
async fn the_wait_counts_for_the_deadline_and_a_cancel_ends_it() {
    let mesh = mesh().await;
    take(&mesh, one_gpu(60)).await;
    let late = mesh
        .submit(&json!({"task": "data_processing", "timeout": 1}))
        .await;
    let called_off = mesh.submit(&json!({"task": "data_processing"})).await;
    in_use(&mesh, 1, 2).await;
    let url = mesh.url(&format!("/task/{called_off}"));
    let answer = mesh.client.delete(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let task = mesh.ended(&late).await;
    assert_eq!(task["error"]["code"], "deadline_exceeded");
    let detail = task["steps"]["data-processor"]["error"]["detail"]
        .as_str()
        .unwrap();
    assert!(detail.contains("resources"), "{detail}");
    in_use(&mesh, 1, 0).await;
}

#[tokio::test]
async fn a_step_at_its_agent_holds_what_it_takes_and_gives_it_back_when_late() {
    let mesh = Mesh::without_agents(with_gpu(), Ground::new()).await;
    mesh.agent("data-processor", silence).await;
    let id = mesh
        .submit(&json!({"task": "data_processing", "timeout": 2}))
        .await;
    let standing = mesh
        .until("/resources", |s| s["resources"]["gpu"]["in_use"] == 1)
        .await;
    assert_eq!(standing["holders"][0]["task_id"], json!(id));
    assert_eq!(standing["holders"][0]["step_id"], "data-processor");
    let answer = call(&mesh, Method::POST, "/resources/leases", one_gpu(1), None).await;
    let refused = problem(answer, StatusCode::CONFLICT).await;
    assert!(
        refused["type"]
            .as_str()
            .unwrap()
            .ends_with("resources-in-use"),
        "{refused}"
    );
    in_use(&mesh, 1, 0).await;
    // Whoever waits long enough has it.
    let mut body = one_gpu(1);
    body["wait_s"] = json!(20);
    take(&mesh, body).await;
    assert_eq!(mesh.ended(&id).await["status"], "failed");
    // And loses it, since nobody renews it.
    in_use(&mesh, 0, 0).await;
    mesh.metric("orchestrator_resource_expiries_total 1").await;
}

#[tokio::test]
async fn leases_belong_to_whom_they_were_given() {
    let mesh = mesh().await;
    let (reads, mine, theirs) = (
        assertion("eve", "tasks:write"),
        assertion("alice", "tasks:write resources:lease"),
        assertion("bob", "resources:lease"),
    );
    let post = async |by: &str| {
        call(
            &mesh,
            Method::POST,
            "/resources/leases",
            one_gpu(60),
            Some(by),
        )
        .await
    };
    problem(post(&reads).await, StatusCode::FORBIDDEN).await;
    let lease = post(&mine).await;
    assert_eq!(lease.status(), StatusCode::CREATED);
    let lease: Value = lease.json().await.unwrap();
    let first = lease["token"].as_u64().unwrap();
    let path = path_of(&lease);
    for by in [Some(theirs.as_str()), None] {
        let renewed = call(&mesh, Method::PUT, &path, json!({"ttl_s": 9}), by).await;
        problem(renewed, StatusCode::NOT_FOUND).await;
        let gone = call(&mesh, Method::DELETE, &path, json!({}), by).await;
        problem(gone, StatusCode::NOT_FOUND).await;
    }
    // What others hold is shown to those who may read all.
    for (by, holders) in [(&mine, 1), (&theirs, 0), (&reads, 0)] {
        let shown = call(&mesh, Method::GET, "/resources", json!({}), Some(by)).await;
        let shown: Value = shown.json().await.unwrap();
        assert_eq!(shown["resources"]["gpu"]["in_use"], 1);
        assert_eq!(shown["holders"].as_array().unwrap().len(), holders);
    }
    let renewed = call(&mesh, Method::PUT, &path, json!({"ttl_s": 9}), Some(&mine)).await;
    assert_eq!(renewed.status(), StatusCode::OK);
    let gone = call(&mesh, Method::DELETE, &path, json!({}), Some(&mine)).await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let again: Value = post(&theirs).await.json().await.unwrap();
    assert!(again["token"].as_u64().unwrap() > first);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let mesh = mesh().await;
    for (body, status) in [
        (
            json!({"resources": {"tpu": 1}, "ttl_s": 1}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            json!({"resources": {"gpu": 2}, "ttl_s": 1}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (json!([]), StatusCode::UNPROCESSABLE_ENTITY),
        (
            json!({"x": "y".repeat(20_000)}),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let answer = call(&mesh, Method::POST, "/resources/leases", body, None).await;
        problem(answer, status).await;
    }
    let path = "/resources/leases/task_1%2Fdata-processor";
    let gone = call(&mesh, Method::DELETE, path, json!({}), None).await;
    problem(gone, StatusCode::NOT_FOUND).await;
    // A mesh that declares nothing has nothing to give.
    let bare = Mesh::without_agents(config(), Ground::new()).await;
    let answer = call(&bare, Method::POST, "/resources/leases", one_gpu(1), None).await;
    problem(answer, StatusCode::NOT_FOUND).await;
    assert_eq!(bare.get_json("/resources").await["resources"], json!({}));
}
