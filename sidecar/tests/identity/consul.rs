//! The certificate authority of a real Consul.

use crate::authority::{Authority, replace};
use crate::mesh::{Member, generation, name, says, serial, shake};
use crate::traffic::Traffic;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use mesh_sidecar::config::{self, Consul, IdentitySource, Secret};
use mesh_sidecar::identity::{Alpn, Identity, Tls};
use mesh_tests::consul::{self, Setup};
use mesh_tests::wait_for;
use rcgen::SanType;
use serde_json::json;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

fn identity() -> config::Identity {
    config::Identity {
        source: IdentitySource::Consul {},
        ..config::Identity::default()
    }
}

fn member(service: &str, consul: &Consul) -> Member {
    Member::start(service, &identity(), Some(consul))
}

async fn know_each_other(server: &Tls, client: &Tls) {
    let wanted = server.id().service.to_string();
    let (accepted, connected) = shake(server, client, &wanted, Alpn::H2).await;
    assert_eq!(accepted.unwrap().peer, *client.id());
    assert_eq!(connected.unwrap().peer, *server.id());
}

fn roots(member: &Member) -> usize {
    member.identity.shown()["roots"].as_array().unwrap().len()
}

#[tokio::test]
async fn services_have_certificates_of_consul() {
    let consul = consul::shared().await;
    let settings = Consul::at(consul.url());
    let server = member("data-processor", &settings);
    let client = member("gateway", &settings);
    let (server_tls, client_tls) = (server.first().await, client.first().await);
    know_each_other(&server_tls, &client_tls).await;
    let said = consul.get("/v1/agent/connect/ca/roots").await;
    let domain = said["TrustDomain"].as_str().unwrap();
    assert_eq!(server_tls.trust_domain(), domain);
    let wanted = format!("spiffe://{domain}/ns/default/dc/dc1/svc/data-processor");
    assert_eq!(server_tls.id().to_string(), wanted);
    let shown = server.identity.shown();
    assert_eq!(shown["source"], "consul");
    assert_eq!(shown["certificate"]["spiffe_id"], wanted);
    assert!(server.identity.reasons().is_empty());
}

#[tokio::test]
async fn a_trust_domain_that_is_not_the_configured_one_is_refused() {
    let consul = consul::shared().await;
    let configured = config::Identity {
        trust_domain: Some("mesh.test".to_owned()),
        ..identity()
    };
    let settings = Consul::at(consul.url());
    let member = Member::start("gateway", &configured, Some(&settings));
    says(&member, "not mesh.test as configured").await;
    assert!(member.identity.tls().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_rotated_without_a_failure() {
    let consul = consul::start().await;
    let settings = Consul::at(consul.url());
    let server = member("server", &settings);
    let client = member("client", &settings);
    let traffic = Traffic::start(&server, &client).await;
    let before = (serial(&server), serial(&client));
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    // Consul reads the key of an authority in SEC 1 or PKCS #8.
    let change = json!({"Provider": "consul", "Config": {"PrivateKey": key}});
    consul.put("/v1/connect/ca/configuration", change).await;
    wait_for("both roots", || async {
        roots(&server) == 2 && roots(&client) == 2
    })
    .await;
    traffic.goes_on("both roots").await;
    // Consul spreads the new certificates over some time.
    wait_for("new certificates", || async {
        serial(&server) != before.0 && serial(&client) != before.1
    })
    .await;
    traffic.goes_on("new certificates").await;
    // Signed across, the authorities know each other: one change for the roots, one for the certificate.
    assert_eq!((generation(&server), generation(&client)), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_comes_back_empty_is_followed_without_a_failure() {
    let mut consul = consul::start().await;
    let settings = Consul::at(consul.url());
    let server = member("server", &settings);
    let client = member("client", &settings);
    let traffic = Traffic::start(&server, &client).await;
    let old = server.first().await.trust_domain().to_owned();
    consul.kill().await;
    traffic.goes_on("consul's absence").await;
    assert!(server.identity.reasons().is_empty());
    consul.start_again().await;
    let said = consul.get("/v1/agent/connect/ca/roots").await;
    assert_ne!(said["TrustDomain"], old);
    for step in 2..=4 {
        wait_for("the next step", || async {
            generation(&server) >= step && generation(&client) >= step
        })
        .await;
        traffic.goes_on("a step").await;
    }
    let (server, client) = (server.first().await, client.first().await);
    assert_eq!(said["TrustDomain"], server.trust_domain());
    assert_eq!(said["TrustDomain"], client.trust_domain());
}

#[tokio::test]
async fn consul_may_come_later() {
    let mut consul = consul::start().await;
    consul.stop().await;
    let member = member("gateway", &Consul::at(consul.url()));
    says(&member, "consul is away").await;
    let reasons = member.identity.reasons().join(" ");
    assert!(
        reasons.contains("no certificate yet: consul is away"),
        "{reasons}"
    );
    consul.start_again().await;
    member.first().await;
    assert!(member.identity.reasons().is_empty());
}

#[tokio::test]
async fn a_token_without_the_right_is_told_and_a_better_one_is_taken() {
    let consul = consul::start_with_acl().await;
    let rules = r#"service "gateway" { policy = "write" }"#;
    let right = consul.token_for("right", rules).await;
    let wrong = consul
        .token_for("wrong", r#"service "other" { policy = "write" }"#)
        .await;
    let given = Consul {
        token: Some(Secret::from(right.clone())),
        ..Consul::at(consul.url())
    };
    let good = member("gateway", &given).first().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let from_file = Consul {
        token_file: Some(file.clone()),
        ..Consul::at(consul.url())
    };
    let member = member("gateway", &from_file);
    says(&member, "token file of consul").await;
    replace(&file, &format!("{wrong}\n"));
    says(&member, "consul answers 403").await;
    assert!(!member.identity.reasons().join(" ").contains(&wrong));
    let refused = member.metric(
        "sidecar_certificate_renewals_total",
        &[("outcome", "refused")],
    );
    assert!(refused >= 1.0);
    replace(&file, &right);
    know_each_other(&*member.first().await, &good).await;
}

#[tokio::test]
async fn what_consul_answers_instead_is_told() {
    let long = "x".repeat(17 << 20);
    let answers = [
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "No cluster leader",
            "consul answers 500: No cluster leader",
        ),
        (StatusCode::OK, "null", "not its API's"),
        (StatusCode::OK, &long, "answer is longer than"),
        (
            StatusCode::OK,
            r#"{"TrustDomain": "a.consul", "Roots": null}"#,
            "consul answers 500: not begun",
        ),
        (StatusCode::FOUND, "elsewhere", "consul answers 302"),
    ];
    for (status, body, wanted) in answers {
        let body = body.to_owned();
        let router = Router::new()
            .route(
                "/v1/agent/connect/ca/roots",
                get(move || async move { (status, body) }),
            )
            .fallback(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "not begun") });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.unwrap() });
        says(&member("gateway", &Consul::at(url)), wanted).await;
    }
    // One that takes a connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Consul {
        timeout_ms: 100,
        ..Consul::at(format!("http://{}", silent.local_addr().unwrap()))
    };
    says(
        &member("gateway", &settings),
        "consul is away: does not answer in time",
    )
    .await;
}

#[tokio::test]
async fn consul_is_asked_over_tls() {
    let authority = Authority::new("consul's");
    let issued = authority.issue_with("consul", |p| {
        p.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    });
    let consul = consul::start_with(Setup {
        tls: Some((issued.chain_pem(), issued.key_pem())),
        ..Setup::default()
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let settings = |root: &Authority| {
        replace(&file, &root.pem());
        Consul {
            ca_file: Some(file.clone()),
            ..Consul::at(consul.https_url())
        }
    };
    member("gateway", &settings(&authority)).first().await;
    let stranger = member("gateway", &settings(&Authority::new("other")));
    says(&stranger, "consul is away").await;
    let missing = Consul {
        ca_file: Some(directory.path().join("none.pem")),
        ..Consul::at(consul.https_url())
    };
    let metrics = prometheus::Registry::new();
    let made = Identity::new(&name("gateway"), &identity(), Some(&missing), &metrics);
    assert!(made.is_err_and(|error| error.to_string().contains("none.pem")));
}
