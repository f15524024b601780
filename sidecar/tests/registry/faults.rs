//! A Consul that answers 500, hangs, changes its leader, or is none.

use crate::double::{Answer, Double, indexed, instances, text};
use crate::setup::{Announced, are, at, follow, stale, until};
use mesh_sidecar::config;
use mesh_sidecar::registry::contract::instance;
use mesh_sidecar::registry::{Consul, Health, Registry, RegistryError, State};
use mesh_tests::{wait_for, within};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Impatient, so that a hanging Consul is noticed soon.
fn impatient(url: &str) -> Arc<dyn Registry> {
    let config = config::Consul {
        wait_ms: 200,
        timeout_ms: 300,
        ..config::Consul::at(url)
    };
    Arc::new(Consul::new(&config).unwrap())
}

#[tokio::test]
async fn errors_are_told_apart_by_what_can_be_done() {
    type Expected = fn(&RegistryError) -> bool;
    let away: Expected = |e| matches!(e, RegistryError::Away(_));
    let refused: Expected = |e| matches!(e, RegistryError::Refused(_));
    let unknown: Expected = |e| *e == RegistryError::Unknown;
    for (status, body, of_report, of_register) in [
        (500, "No cluster leader", away, away),
        (
            500,
            "CheckID \"service:x\" does not have associated TTL",
            unknown,
            away,
        ),
        (500, "Unknown check \"service:x\"", unknown, away),
        (404, "Unknown check ID \"service:x\"", unknown, refused),
        (403, "Permission denied", refused, refused),
        (403, "ACL not found", refused, refused),
        (400, "Invalid Service Meta", refused, refused),
        (429, "Too Many Requests", away, away),
        (503, "", away, away),
        (302, "", away, away),
    ] {
        let double = Double::start(move |_, _| text(status, body)).await;
        let registry = at(&double.url);
        let reported = registry.report("x", &Health::Passing).await.unwrap_err();
        assert!(of_report(&reported), "{status} {body}: {reported}");
        let error = registry.register(&instance("x", 1)).await.unwrap_err();
        assert!(of_register(&error), "{status} {body}: {error}");
        let error = registry.instances(&"x".parse().unwrap(), None).await;
        let error = error.unwrap_err();
        assert!(away(&error) || refused(&error), "{status} {body}: {error}");
        assert!(error.to_string().contains(body), "{error}");
    }
}

#[tokio::test]
async fn who_is_not_known_need_not_be_deregistered() {
    for (status, body) in [
        (404, "Unknown service ID"),
        (500, "Unknown service \"x\""),
        (200, ""),
    ] {
        let double = Double::start(move |_, _| text(status, body)).await;
        at(&double.url).deregister("x").await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_absence() {
    let endless = format!("[{}", " ".repeat(17 * 1024 * 1024));
    for (answer, words) in [
        (indexed(1, &json!({"not": "a list"})), "not its API's"),
        (indexed(1, &json!([{"Service": {}}])), "not its API's"),
        (text(200, "<html>"), "not its API's"),
        (text(200, "[]"), "no index"),
        (text(200, &endless), "longer than"),
    ] {
        let double = Double::start(move |_, _| answer.clone()).await;
        let error = at(&double.url).instances(&"x".parse().unwrap(), None).await;
        let error = error.unwrap_err();
        assert!(matches!(error, RegistryError::Away(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn no_error_holds_the_token() {
    let token = "0b2e5f0c-secret";
    for echo in ["token 0b2e5f0c-secret may not", "no"] {
        let double = Double::start(move |_, _| text(403, echo)).await;
        let config = config::Consul {
            token: Some(token.to_owned().into()),
            ..config::Consul::at(&double.url)
        };
        let registry = Consul::new(&config).unwrap();
        let error = registry.register(&instance("x", 1)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        assert_eq!(double.asked()[0].token.as_deref(), Some(token));
    }
}

#[tokio::test]
async fn a_base_path_stays_and_ids_are_escaped() {
    let double = Double::start(|_, _| text(200, "")).await;
    let registry = at(&format!("{}/consul/", double.url));
    registry.deregister("a/b ?#").await.unwrap();
    let path = double.asked()[0].path.clone();
    assert_eq!(path, "/consul/v1/agent/service/deregister/a%2Fb%20%3F%23");
}

#[tokio::test]
async fn an_index_of_zero_is_not_asked_with() {
    let double = Double::start(|_, _| indexed(0, &json!([]))).await;
    let (discovery, mut watch) = follow(&impatient(&double.url), "a");
    are(&mut watch, &[]).await;
    wait_for("a blocking question", || async {
        double
            .asked()
            .iter()
            .any(|asked| asked.path.contains("index="))
    })
    .await;
    discovery.close().await;
    for asked in double.asked() {
        assert!(!asked.path.contains("index=0"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_consul_that_hangs_is_away_and_what_was_known_stays() {
    let hangs = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&hangs);
    let double = Double::start(move |asked, _| {
        if told.load(Ordering::Relaxed) || asked.path.contains("index=") {
            return Answer::Hang;
        }
        indexed(5, &instances("a", &[1, 2]))
    })
    .await;
    let registry = impatient(&double.url);
    let (_discovery, mut watch) = follow(&registry, "a");
    are(&mut watch, &["a-1", "a-2"]).await;
    hangs.store(true, Ordering::Relaxed);
    let known = until(&mut watch, "stale", stale).await;
    let State::Stale { why, .. } = &known.state else {
        unreachable!()
    };
    assert_eq!(why, "registry is away: does not answer in time");
    assert_eq!(known.instances.len(), 2);
    // Nor does anybody wait for ever who announces.
    let announced = Announced::start(&registry, instance("a", 1));
    wait_for("the reason", || async {
        let reason = announced.announcement.reason().unwrap_or_default();
        reason == "service is not registered yet: registry is away: does not answer in time"
    })
    .await;
    announced.leave().await;
    hangs.store(false, Ordering::Relaxed);
    are(&mut watch, &["a-1", "a-2"]).await;
}

#[tokio::test]
async fn a_change_of_leader_is_sat_out() {
    // An election, and then a leader whose index is behind.
    let double = Double::start(|_, number| match number {
        0 => indexed(90, &instances("a", &[1, 2])),
        1..4 => text(500, "No cluster leader"),
        4 => indexed(40, &instances("a", &[1])),
        5 => indexed(41, &instances("a", &[1, 3])),
        6 => indexed(12, &instances("a", &[1, 2, 3])),
        7 => indexed(12, &instances("a", &[1, 2, 3])),
        _ => Answer::Hang,
    })
    .await;
    let (discovery, mut watch) = follow(&at(&double.url), "a");
    let known = until(&mut watch, "stale", stale).await;
    assert_eq!(known.instances.len(), 2);
    are(&mut watch, &["a-1", "a-2", "a-3"]).await;
    wait_for("all questions", || async { double.asked().len() >= 9 }).await;
    discovery.close().await;
    let indices: Vec<_> = double
        .asked()
        .iter()
        .map(|asked| {
            let (_, rest) = asked.path.split_once("index=")?;
            rest.split('&').next()?.parse::<u64>().ok()
        })
        .collect();
    let anew = [
        None,
        Some(90),
        None,
        None,
        None,
        Some(40),
        Some(41),
        None,
        Some(12),
    ];
    assert_eq!(indices[..9], anew);
}

#[tokio::test]
async fn a_filtered_answer_is_a_refusal() {
    let double = Double::start(|_, _| {
        let headers = vec![
            ("x-consul-index", "3".to_owned()),
            ("x-consul-results-filtered-by-acls", "true".to_owned()),
        ];
        Answer::Text(200, headers, "[]".to_owned())
    })
    .await;
    let found = at(&double.url).instances(&"a".parse().unwrap(), None).await;
    let why = "the token may not read service `a`".to_owned();
    assert_eq!(found, Err(RegistryError::Refused(why)));
}

#[tokio::test]
async fn an_announcer_goes_on_until_it_is_heard() {
    let double = Double::start(|asked, number| match number {
        0..3 => text(500, "No cluster leader"),
        3 => text(403, "ACL not found"),
        // Registered, and forgotten at once, twice.
        _ if number < 8 && asked.path.contains("check/update") => {
            text(404, "Unknown check ID \"service:a-1\"")
        }
        _ if asked.path.contains("health/service") => indexed(1, &json!([])),
        _ => text(200, ""),
    })
    .await;
    let mut announced = Announced::start(&at(&double.url), instance("a", 1));
    announced.registered().await;
    assert_eq!(announced.announcement.shown()["state"], "registered");
    let registered = double.asked();
    let registered = registered
        .iter()
        .filter(|asked| asked.path.contains("service/register"));
    assert_eq!(registered.count(), 7);
    announced.leave().await;
    let last = double.asked().pop().unwrap();
    assert!(last.path.contains("service/deregister/a-1"), "{last:?}");
}

#[tokio::test]
async fn an_announcer_leaves_in_time_without_a_registry() {
    let double = Double::start(|_, _| Answer::Hang).await;
    let announced = Announced::start(&at(&double.url), instance("a", 1));
    wait_for("a question", || async { !double.asked().is_empty() }).await;
    let announcement = announced.announcement.clone();
    within("the announcer to leave", announced.leave()).await;
    let reason = announcement.reason().unwrap();
    assert!(reason.starts_with("service is deregistered"), "{reason}");
}
