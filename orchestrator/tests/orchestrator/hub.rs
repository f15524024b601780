//! The hub over a real Redis.

use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::coordination::hub::contract::all;
use mesh_orchestrator::coordination::hub::{
    Agents, Bounds, Connections, Cursor, Hold, Hub, HubError, Letter, Mailboxes, Posted, Receivers,
    RedisHub,
};
use mesh_tests::redis;
use std::process::Command;
use std::sync::Arc;

fn hub(url: String, bounds: Bounds) -> RedisHub {
    RedisHub::connect(&StoreUrl::try_from(url).unwrap(), bounds).unwrap()
}

#[tokio::test]
async fn passes_the_contract() {
    let server = redis::shared().await;
    all(|bounds| {
        let url = server.database();
        async move { Arc::new(hub(url, bounds)) as Arc<dyn Hub> }
    })
    .await;
}

#[tokio::test]
async fn letters_survive_a_restart_of_the_server() {
    let mut server = redis::start().await;
    let hub = hub(server.url(), Bounds::default());
    let (a, b) = (
        Hold::new("a".parse().unwrap()),
        Hold::new("b".parse().unwrap()),
    );
    hub.take(&a, None).await.unwrap();
    hub.take(&b, None).await.unwrap();
    let letter = |id: &str| Letter {
        id: id.to_owned(),
        to: Receivers::One("b".parse().unwrap()),
        body: format!(r#"{{"id":"{id}"}}"#).into(),
    };
    hub.post(&a, &letter("1")).await.unwrap();
    server.kill().await;
    let away = hub.post(&a, &letter("2")).await;
    assert!(
        matches!(away, Err(HubError::Unavailable { .. })),
        "{away:?}"
    );
    server.start_again().await;
    mesh_tests::wait_for("the hub to answer again", async || {
        hub.renew(&a).await.is_ok()
    })
    .await;
    assert_eq!(hub.post(&a, &letter("1")).await.unwrap(), Posted::Repeated);
    hub.post(&a, &letter("2")).await.unwrap();
    assert_eq!(hub.read(&b, 0).await.unwrap().len(), 2);
}

/// A server that takes over from one that died may not know of the latest letters. A receiver that had them gets the new
/// ones all the same: they do not go by the numbers of those.
#[tokio::test]
async fn a_server_that_has_forgotten_the_latest_letters_gives_no_number_again() {
    let mut server = redis::start().await;
    let hub = hub(server.url(), Bounds::default());
    let (a, b) = (
        Hold::new("a".parse().unwrap()),
        Hold::new("b".parse().unwrap()),
    );
    hub.take(&a, None).await.unwrap();
    let mailbox = hub.take(&b, None).await.unwrap().cursor.mailbox;
    let letter = |id: &str| Letter {
        id: id.to_owned(),
        to: Receivers::One("b".parse().unwrap()),
        body: format!(r#"{{"id":"{id}"}}"#).into(),
    };
    for id in ["1", "2", "3"] {
        hub.post(&a, &letter(id)).await.unwrap();
    }
    let (third, _) = hub.read(&b, 0).await.unwrap()[2];
    hub.acknowledge(&b, third).await.unwrap();
    server.kill().await;
    server.start_again().await;
    mesh_tests::wait_for("the hub to answer again", async || {
        hub.renew(&a).await.is_ok()
    })
    .await;
    let forget = ["HSET", "{agents}:mailbox:b", "last", "1"];
    let mut cli = Command::new("redis-cli");
    let forgot = cli.args(["-u", &server.url()]).args(forget).status();
    assert!(forgot.unwrap().success());
    // Who is connected gets it behind the third, and who comes back with the third does not lose it.
    for id in ["4", "5"] {
        hub.post(&a, &letter(id)).await.unwrap();
    }
    assert_eq!(hub.read(&b, third).await.unwrap().len(), 2);
    let again = Hold::new("b".parse().unwrap());
    let last = Cursor {
        mailbox,
        letter: third,
    };
    let taken = hub.take(&again, Some(&last)).await.unwrap();
    assert_eq!((taken.waiting, taken.resumed), (2, true));
    // And from there on as ever.
    let (fourth, _) = hub.read(&again, third).await.unwrap()[0];
    let last = Cursor {
        letter: fourth,
        ..last
    };
    let again = Hold::new("b".parse().unwrap());
    let taken = hub.take(&again, Some(&last)).await.unwrap();
    assert_eq!((taken.waiting, taken.resumed), (1, true));
    assert_eq!(hub.acknowledge(&again, fourth).await.unwrap(), 1);
}

#[tokio::test]
async fn the_registry_is_as_the_plan_reads_it() {
    let server = redis::shared().await;
    let url = server.database();
    let cli = |arguments: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-u", &url])
            .args(arguments)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    // As the plan's coordinator writes it, and something that nobody understands.
    let theirs =
        r#"{"capabilities":["x"],"status":"active","registered_at":"2025-01-01T00:00:00.000001"}"#;
    cli(&["HSET", "agents:registry", "old_one", theirs, "odd", "{"]);
    let hub = hub(url.clone(), Bounds::default());
    let registered = hub.registered().await.unwrap();
    assert_eq!(registered.len(), 1);
    let mut said = registered[&"old-one".parse().unwrap()].clone();
    assert_eq!((said.capabilities.len(), said.workload), (1, 0));
    said.capabilities.push("y".to_owned());
    assert!(hub.register(&"new".parse().unwrap(), &said).await.unwrap());
    let ours: serde_json::Value =
        serde_json::from_str(&cli(&["HGET", "agents:registry", "new"])).unwrap();
    assert_eq!(ours["capabilities"], serde_json::json!(["x", "y"]));
    assert_eq!(ours["status"], "active");
    assert!(ours["registered_at"].is_string());
}
