//! What others have on the same servers, what a user may not see, and servers that are none.

use crate::scene::{Scene, both};
use mesh_tests::consul;
use mesh_tests::rabbitmq::Release;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;

const SHARED: &str = "  queues: [{name: shared, bindings: [{exchange: ai.events}]}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_mesh_has_too_stays_when_this_one_has_it_no_more() {
    let scene = Scene::new(Release::Three).await;
    scene.write(&scene.management, SHARED, "");
    scene.apply().await;
    let file = scene.dir.path().join("mesh.yaml");
    let first = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, first.replace("mesh: m\n", "mesh: second\n")).unwrap();
    scene.apply().await;
    // The second has it no more, and the first has.
    scene.write(&scene.management, "", "");
    let without = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, without.replace("mesh: m\n", "mesh: second\n")).unwrap();
    assert_eq!(scene.differences().await, [""; 0]);
    scene.apply().await;
    assert!(scene.queues().await.contains(&"shared".to_owned()));
    // Nobody else has it: it goes.
    std::fs::write(&file, &without).unwrap();
    assert_eq!(
        scene.differences().await,
        [
            "Deleted rabbitmq queue shared",
            "Deleted rabbitmq binding ai.events -> shared ()"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_somebody_else_feeds_is_not_made_anew() {
    let scene = Scene::new(Release::Three).await;
    let v = scene.vhost.clone();
    let audit = |kind: &str| format!("  exchanges: [{{name: audit, type: {kind}}}]");
    scene.write(&scene.management, &audit("topic"), "");
    scene.apply().await;
    let exchange = json!({"type": "topic", "durable": true});
    scene
        .by_hand(Method::PUT, &format!("exchanges/{v}/billing"), exchange)
        .await;
    let path = format!("bindings/{v}/e/billing/e/audit");
    scene
        .by_hand(Method::POST, &path, json!({"routing_key": "x.#"}))
        .await;
    assert_eq!(scene.differences().await, [""; 0]);
    for messaging in [audit("fanout"), String::new()] {
        scene.write(&scene.management, &messaging, "");
        let refused = scene.mesh(&["apply", "--yes"]).await;
        assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
        assert!(
            both(&refused).contains("billing leads to it; unbind that first"),
            "{}",
            both(&refused)
        );
    }
    let kept = scene.by_hand(Method::GET, &path, Value::Null).await;
    assert_eq!(kept.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_host_that_the_user_does_not_see_is_not_said_to_be_missing() {
    let scene = Scene::new(Release::Three).await;
    scene.write(&scene.management, "", "");
    scene.apply().await;
    let user = json!({"password": "pw", "tags": "policymaker"});
    scene.by_hand(Method::PUT, "users/blind", user).await;
    let blind = scene.url.replace("guest:guest", "blind:pw");
    let mut asked = scene.command(&["diff"]);
    asked.env("RABBITMQ_URL", blind);
    let out = crate::scene::run(asked).await;
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    let wanted = format!("RabbitMQ shows blind no virtual host {}", scene.vhost);
    assert!(both(&out).contains(&wanted), "{}", both(&out));
}

/// A server that answers everything so.
fn answering(head: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_broker_does_not_look_like_an_empty_one() {
    let scene = Scene::new(Release::Three).await;
    for (head, body) in [
        ("404 Not Found", "not here"),
        ("200 OK", "{}"),
        ("200 OK", "null"),
    ] {
        scene.write(&answering(head, body), "", "");
        let out = scene.mesh(&["diff"]).await;
        assert_eq!(out.status.code(), Some(1), "{}", both(&out));
        assert!(
            both(&out).contains("no management API of RabbitMQ"),
            "{}",
            both(&out)
        );
    }
    // Who refuses and repeats what he was asked with does not bring it to the screen.
    let echo = answering("500 Odd", "no entry for hunter2-of-consul");
    let yaml = format!(
        "version: 1\nmesh: m\ngateway: {{auth: {{development: true}}}}\n\
         orchestrator: {{planner: {{general_agent: a}}}}\n\
         registry: {{backend: consul, url: \"{echo}\", token: {{env: CONSUL_TOKEN}}}}\n\
         agents: [{{id: a, endpoint: 'http://127.0.0.1:9'}}]\n"
    );
    std::fs::write(scene.dir.path().join("mesh.yaml"), yaml).unwrap();
    let mut asked = scene.command(&["diff"]);
    asked.env("CONSUL_TOKEN", "hunter2-of-consul");
    let out = crate::scene::run(asked).await;
    assert!(both(&out).contains("no entry for ***"), "{}", both(&out));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_may_not_read_is_not_said_to_be_missing() {
    let scene = Scene::new(Release::Three).await;
    let consul = consul::start_with_acl().await;
    let yaml = |token: &str| {
        format!(
            "version: 1\nmesh: m\ngateway: {{auth: {{development: true}}}}\n\
             orchestrator: {{planner: {{general_agent: worker}}}}\n\
             registry: {{backend: consul, url: \"{}\", token: {{file: {token}}}}}\n\
             agents: [{{id: worker, endpoint: 'http://127.0.0.1:9'}}]\n",
            consul.url()
        )
    };
    let rest = "agent_prefix \"\" {policy=\"read\"} operator=\"write\" key_prefix \"mesh/\" {policy=\"write\"} session_prefix \"\" {policy=\"write\"}";
    for (name, rules) in [
        (
            "all",
            "service_prefix \"\" {policy=\"write\" intentions=\"write\"}",
        ),
        ("none", ""),
        (
            "closed",
            "service_prefix \"\" {policy=\"write\" intentions=\"deny\"}",
        ),
    ] {
        let token = consul.token_for(name, &format!("{rules} {rest}")).await;
        std::fs::write(scene.dir.path().join(name), token).unwrap();
    }
    let file = scene.dir.path().join("mesh.yaml");
    std::fs::write(&file, yaml("all")).unwrap();
    assert!(!scene.differences().await.is_empty());
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
    for (token, what) in [
        ("none", "Consul does not show intention gateway"),
        ("closed", "Consul does not show intention gateway"),
    ] {
        std::fs::write(&file, yaml(token)).unwrap();
        let out = scene.mesh(&["diff"]).await;
        assert_eq!(out.status.code(), Some(1), "{}", both(&out));
        assert!(both(&out).contains(what), "{}", both(&out));
    }
    // Nor is it said to be missing by `mesh check`.
    let key = scene.dir.path().join(".mesh/assertion.key");
    std::fs::create_dir(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap();
    std::fs::write(&file, yaml("none")).unwrap();
    let out = scene.mesh(&["check"]).await;
    let said = both(&out);
    assert!(
        said.contains("Consul does not show gateway to this token [registry_unreachable]"),
        "{said}"
    );
    assert!(!said.contains("not_registered"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_mesh_is_said_before_anything_is_done() {
    let scene = Scene::new(Release::Three).await;
    let consul = consul::start().await;
    let more = format!("registry: {{backend: consul, url: \"{}\"}}", consul.url());
    scene.write(&scene.management, "", &more);
    scene.apply().await;
    let file = scene.dir.path().join("mesh.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, yaml.replace("mesh: m\n", "mesh: second\n")).unwrap();
    let out = scene.mesh(&["diff"]).await;
    assert!(
        both(&out).contains("it belongs to the mesh m, so this is refused"),
        "{}",
        both(&out)
    );
}
