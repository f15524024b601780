//! Applies that are killed in the middle, and two at once.

use crate::scene::{Scene, both, run};
use crate::stalling::Stalling;
use mesh_tests::consul;
use mesh_tests::rabbitmq::Release;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const QUEUES: &str = "  queues: [{name: one}, {name: two}, {name: three}]";

fn registry(consul: &str) -> String {
    format!("registry: {{backend: consul, url: \"{consul}\"}}")
}

fn start(scene: &Scene) -> Child {
    let mut command = scene.command(&["apply", "--yes"]);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_that_is_killed_is_gone_on_with_and_forgets_nothing() {
    let scene = Scene::new(Release::Three).await;
    let mut way = Stalling::new(&scene.management, 4).await;
    scene.write(&way.url, QUEUES, "");
    let mut killed = start(&scene);
    way.stalled().await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(scene.queues().await.len(), 4, "in the middle");

    // `one` was not there yet, and `three` neither; the mesh wants them no more, and knows that they would be its own.
    scene.write(&scene.management, "  queues: [{name: two}]", "");
    let began = Instant::now();
    scene.apply().await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "the lock went with its holder"
    );
    assert_eq!(scene.differences().await, [""; 0]);
    assert!(scene.queues().await.contains(&"two".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_apply_made_is_the_meshs_own() {
    let scene = Scene::new(Release::Three).await;
    // Queues are declared by name; all of the mesh's own begin with `a`.
    scene.write(&scene.management, "", "");
    scene.apply().await;
    let mut way = Stalling::new(&scene.management, 2).await;
    scene.write(&way.url, QUEUES, "");
    let mut killed = start(&scene);
    way.stalled().await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    scene.write(&scene.management, "", "");
    assert_eq!(
        scene.differences().await,
        ["Deleted rabbitmq queue one", "Deleted rabbitmq queue three"]
    );
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_in_consul_is_freed_when_its_holder_was_killed() {
    let scene = Scene::new(Release::Three).await;
    let consul = consul::start().await;
    let mut way = Stalling::new(&scene.management, 2).await;
    scene.write(&way.url, QUEUES, &registry(&consul.url()));
    let mut killed = start(&scene);
    way.stalled().await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    scene.write(&scene.management, QUEUES, &registry(&consul.url()));
    let began = Instant::now();
    scene.apply().await;
    println!("the lock in Consul was freed after {:?}", began.elapsed());
    assert_eq!(scene.differences().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_applies_one_waits_or_is_refused_by_a_lock_file() {
    two_at_once("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_applies_one_waits_or_is_refused_by_a_lock_in_consul() {
    let consul = consul::start().await;
    two_at_once(&registry(&consul.url())).await;
}

async fn two_at_once(more: &str) {
    let scene = Scene::new(Release::Three).await;
    let mut way = Stalling::new(&scene.management, 2).await;
    scene.write(&way.url, QUEUES, more);
    let first = start(&scene);
    let pid = first.id().to_string();
    way.stalled().await;

    let refused = scene
        .mesh(&["apply", "--yes", "--lock-timeout", "1s"])
        .await;
    let said = both(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("holds the lock") && said.contains(&pid),
        "{said}"
    );
    // Who only looks is not held up.
    let looks = scene.mesh(&["apply", "--dry-run"]).await;
    assert_eq!(looks.status.code(), Some(2), "{}", both(&looks));

    let second = tokio::spawn(run(scene.command(&[
        "apply",
        "--yes",
        "--lock-timeout",
        "50s",
    ])));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!second.is_finished(), "it waits");
    way.open();
    let first = tokio::task::spawn_blocking(move || first.wait_with_output());
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", both(&first));
    let second = second.await.unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", both(&second));
    assert!(both(&second).contains("no difference"), "{}", both(&second));
    assert_eq!(scene.differences().await, [""; 0]);
}
