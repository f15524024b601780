//! What is read, what is refused, and what is never shown.

use super::*;

const FILE: &str = "
service: data-processor
app: {url: 'http://localhost:8080/base/'}
admin_listen: 127.0.0.1:0
worker:
  bus: {backend: rabbitmq, url: 'amqp://u:secret@127.0.0.1:5672/%2f'}
  concurrency: 2
registry: {consul: {url: 'http://127.0.0.1:8500', token: hidden}}
identity: {source: {consul: {}}}
inbound: {listen: '127.0.0.1:0'}
outbound: {listen: '127.0.0.1:0'}
policy: {intentions: [{from: any, paths: [/process]}]}
";

#[test]
fn yaml_and_json_are_read() {
    let config = Config::from_text(FILE).unwrap();
    let place = config.check().unwrap().app.unwrap();
    assert_eq!(place.process_uri, "http://127.0.0.1:8080/base/process");
    assert_eq!(config.worker.as_ref().unwrap().max_attempts, 3);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(Config::from_text(&json).unwrap(), config);
}

#[test]
fn meta_that_consul_would_refuse_are_refused_here() {
    let mut config = Config::from_text(FILE).unwrap();
    let registration = &mut config.registry.registration;
    registration.capabilities = (0..60).map(|n| format!("capability-{n}")).collect();
    registration.meta = (0..61)
        .map(|n| (format!("key-{n}"), String::new()))
        .collect();
    registration.meta.insert("long".to_owned(), "x".repeat(513));
    let faults = config.check().unwrap_err().join("; ");
    for wanted in ["at most 60", "meta.long", "capabilities are"] {
        assert!(faults.contains(wanted), "{faults}");
    }
}

#[test]
fn every_fault_is_named() {
    for (from, to, wanted) in [
        ("concurrency: 2", "concurrency: 0", "concurrency"),
        ("concurrency: 2", "max_attempts: 0", "max_attempts"),
        (
            "concurrency: 2",
            "delivery: {max_crashes: 20}",
            "below the queue's delivery limit",
        ),
        (
            "concurrency: 2",
            "delivery: {longest_delay_ms: 10}",
            "below first_delay_ms",
        ),
        (
            "concurrency: 2",
            "delivery: {unrecoverable: [404]}",
            "404 is none",
        ),
        ("service: data-processor", "service: Data", "is no service"),
        ("concurrency: 2", "surprise: 2", "surprise"),
        ("localhost:8080", "agent.example", "by address"),
        ("localhost:8080", "u:p@127.0.0.1", "credentials"),
        ("http://localhost", "https://localhost", "http://"),
        (
            "{consul: {}}",
            "{development: {directory: d}}",
            "trust_domain",
        ),
        ("[/process]", "[/a/../b]", "dot segments"),
        (
            "inbound: {listen: '127.0.0.1",
            "inbound: {listen: '0.0.0.0",
            "advertise",
        ),
        (
            "outbound: {listen: '127.0.0.1",
            "outbound: {listen: '0.0.0.0",
            "loopback",
        ),
        (
            "inbound: {listen: '127.0.0.1:0'}",
            "inbound: {listen: '127.0.0.1:0', identity_headers: {x-user: peer, x_user: peer_service}}",
            "some programs read as another",
        ),
        (
            "token: hidden}}",
            "token: hidden}, registration: {meta: {a b: c}}}",
            "`a b` must be",
        ),
        (
            "{from: any,",
            "{from: any, callers: {subjects: [a]},",
            "policy.assertions",
        ),
    ] {
        let faults = Config::from_text(&FILE.replace(from, to)).unwrap_err();
        assert!(faults.join(" ").contains(wanted), "{to}: {faults:?}");
    }
    let two = FILE.replace("concurrency: 2", "concurrency: 0\n  timeout_ms: 0");
    assert_eq!(Config::from_text(&two).unwrap_err().len(), 2);
}

#[test]
fn the_environment_wins() {
    let mut config = Config::from_text(FILE).unwrap();
    let environment = |name: &str| match name {
        "CONSUL_URL" => Some("http://127.0.0.9:1".to_owned()),
        "CONSUL_HTTP_TOKEN" => Some("other".to_owned()),
        "RABBITMQ_URL" => Some(" ".to_owned()),
        _ => None,
    };
    config.apply(&environment).unwrap();
    let consul = config.registry.consul().unwrap();
    assert_eq!(consul.url, "http://127.0.0.9:1");
    assert_eq!(consul.token.as_ref().unwrap().expose(), "other");
    let wrong = |name: &str| (name == "RABBITMQ_URL").then(|| "http://secret@x".to_owned());
    let faults = config.apply(&wrong).unwrap_err().join(" ");
    assert!(
        faults.contains("RABBITMQ_URL") && !faults.contains("secret"),
        "{faults}"
    );
}

#[test]
fn no_secret_is_in_any_text() {
    let config = Config::from_text(FILE).unwrap();
    let text = format!(
        "{config:?} {}",
        serde_json::to_string(&config.masked()).unwrap()
    );
    assert!(
        !text.contains("secret") && !text.contains("hidden"),
        "{text}"
    );
}

#[test]
fn a_container_is_found_where_the_environment_says() {
    let everywhere = FILE.replace(
        "inbound: {listen: '127.0.0.1:0'}",
        "inbound: {listen: '0.0.0.0:15006'}",
    );
    let faults = Config::from_text(&everywhere).unwrap_err().join("; ");
    assert!(faults.contains("registry.registration.address"), "{faults}");
    let known = everywhere.replace(
        "token: hidden}",
        "token: hidden}, registration: {address: auto}",
    );
    let mut config = Config::from_text(&known).unwrap();
    assert_eq!(config.registry.registration.address, Some(Advertised::Auto));
    let said =
        |text: &'static str| move |name: &str| (name == "MESH_ADVERTISE").then(|| text.to_owned());
    config.apply(&said("10.1.2.3")).unwrap();
    let address = Advertised::Address("10.1.2.3".parse().unwrap());
    assert_eq!(config.registry.registration.address, Some(address));
    let refused = config.apply(&said("0.0.0.0")).unwrap_err().join("; ");
    assert!(refused.contains("MESH_ADVERTISE"), "{refused}");
}
