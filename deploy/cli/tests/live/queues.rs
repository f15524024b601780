//! A queue that holds messages stays, unless it is said that it may go.

use crate::scene::{Scene, both};
use mesh_bus::{BrokerUrl, BusConfig};
use mesh_tests::rabbitmq::Release;
use mesh_tests::{wait_for, within};
use reqwest::Method;
use serde_json::Value;

fn queue(arguments: &str) -> String {
    format!(
        "  queues: [{{name: kept, arguments: {{{arguments}}}, bindings: [{{exchange: ai.events}}, {{exchange: ai.coordination, key: k}}]}}]"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classic_queue_with_messages_stays() {
    stays(Release::Three, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_queue_with_messages_stays() {
    stays(Release::Four, "x-queue-type: quorum").await;
}

async fn stays(release: Release, kind: &str) {
    let scene = Scene::new(release).await;
    scene.write(&scene.management, &queue(kind), "");
    scene.apply().await;
    scene.publish("kept").await;

    // Other arguments: it would have to be declared anew.
    let comma = if kind.is_empty() { "" } else { ", " };
    let other = queue(&format!("{kind}{comma}x-max-length: 7"));
    scene.write(&scene.management, &other, "");
    assert_eq!(scene.differences().await, ["Updated rabbitmq queue kept"]);
    let refused = scene.mesh(&["apply", "--yes"]).await;
    let said = both(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("stopped at rabbitmq queue kept: refused: queue kept holds 1 messages"),
        "{said}"
    );
    assert!(said.contains("0 of 1 changes were made"), "{said}");
    assert_eq!(
        scene.get("kept").await.len(),
        1,
        "the message is still there"
    );
    // Empty, it goes, and its bindings come again.
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);

    // Out of mesh.yaml.
    scene.publish("kept").await;
    scene.write(&scene.management, "", "");
    let refused = scene.mesh(&["apply", "--yes", "-o", "json"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    let report: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(report["stopped"]["at"], "rabbitmq queue kept", "{report}");
    let made = report["changes"].as_array().unwrap().iter();
    assert_eq!(
        made.filter(|change| change["done"] == true).count(),
        0,
        "{report}"
    );
    // And so do its bindings.
    assert_eq!(scene.differences().await.len(), 3);
    assert!(scene.queues().await.contains(&"kept".to_owned()));
    let forced = scene
        .mesh(&["apply", "--yes", "--delete-queues-with-messages"])
        .await;
    assert_eq!(forced.status.code(), Some(0), "{}", both(&forced));
    assert!(!scene.queues().await.contains(&"kept".to_owned()));
    assert_eq!(scene.differences().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_consumer_holds_its_message_stays() {
    let scene = Scene::new(Release::Three).await;
    scene.write(&scene.management, &queue(""), "");
    scene.apply().await;
    scene.publish("kept").await;
    let url = BrokerUrl::try_from(scene.url.clone()).unwrap();
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url })
        .await
        .unwrap();
    let mut consumer = bus.consume("kept", 1).await.unwrap();
    let held = within("the message", consumer.next()).await.unwrap();
    scene.write(&scene.management, "", "");
    let refused = scene.mesh(&["apply", "--yes"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    held.ack().await.unwrap();
    drop(consumer);
    bus.close().await;
    wait_for("the statistics", || async {
        let path = format!("queues/{}/kept", scene.vhost);
        let queue = scene.by_hand(Method::GET, &path, Value::Null).await;
        queue["messages"] == 0 && queue["consumers"] == 0
    })
    .await;
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_message_was_taken_a_moment_ago_stays_with_rabbitmq_3() {
    taken_a_moment_ago(Release::Three).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_message_was_taken_a_moment_ago_stays_with_rabbitmq_4() {
    taken_a_moment_ago(Release::Four).await;
}

/// Statistics do not know of it yet, the queue itself counts only what waits, and there is no consumer any more.
async fn taken_a_moment_ago(release: Release) {
    let scene = Scene::new(release).await;
    scene.write(&scene.management, &queue(""), "");
    scene.apply().await;
    scene.write(&scene.management, "", "");
    let url = BrokerUrl::try_from(scene.url.clone()).unwrap();
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url })
        .await
        .unwrap();
    let mut consumer = bus.consume("kept", 1).await.unwrap();
    scene.publish("kept").await;
    let held = within("the message", consumer.next()).await.unwrap();
    drop(consumer);
    wait_for("the consumer to be gone", || async {
        bus.depth("kept").await.unwrap().consumers == 0
    })
    .await;
    let refused = scene.mesh(&["apply", "--yes"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    assert!(
        both(&refused).contains("refused: queue kept holds 1 messages"),
        "{}",
        both(&refused)
    );
    held.ack().await.unwrap();
    bus.close().await;
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
}
