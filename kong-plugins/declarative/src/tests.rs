//! What is read, what is refused, and that both directions agree.

use super::*;
use serde_json::json;

const SAMPLE: &str = r#"
_format_version: "3.0"
_transform: true
services:
  - name: orchestrator
    url: http://127.0.0.1:8589
    read_timeout: 300000
    routes:
      - name: orchestrate
        paths: [/ai/orchestrate]
        methods: [POST]
        strip_path: true
      - name: task
        paths: [/task, "~/t/(?<id>[a-z]+)$"]
        strip_path: false
    plugins:
      - name: cors
        config:
          origins: [http://localhost:10011]
          credentials: true
upstreams:
  - name: pool
    targets:
      - target: a:1
        weight: 100
      - target: b:2
        weight: 7
    healthchecks:
      active:
        healthy: {interval: 10, successes: 2}
        unhealthy: {interval: 5, tcp_failures: 3}
      passive:
        healthy: {successes: 5}
filter_chains:
  - name: orchestrate
    route: orchestrate
    filters:
      - name: jwt_auth
        config: {mode: "on", country: "no", n: 1}
"#;

#[test]
fn a_file_is_read() {
    let config = Config::from_yaml(SAMPLE).unwrap();
    let service = &config.services[0];
    assert_eq!(service.connect_timeout, 60_000);
    assert_eq!(service.read_timeout, 300_000);
    assert!(service.routes[0].strip_path);
    assert!(!service.routes[1].strip_path);
    assert_eq!(
        config.filter_chains[0].filters[0].config,
        json!({"mode": "on", "country": "no", "n": 1})
    );
}

#[test]
fn what_is_written_is_read_again() {
    let mut config = Config::from_yaml(SAMPLE).unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        "AbC+/".repeat(12)
    );
    config.filter_chains[0].filters[0].config = json!({
        "key": pem, "yes": "yes", "off": "off", "null": "null", "number": "0123", "float": "1e3",
        "empty": "", "colon": "a: b", "long": "x y ".repeat(300), "hash": "a #b", "list": [[], {}, [1.5]],
        "date": "2020-01-01", "sexagesimal": "12:30:45", "tilde": "~", "octal": "0o17", "bool": false,
    });
    let yaml = config.to_yaml().unwrap();
    assert_eq!(Config::from_yaml(&yaml).unwrap(), config, "{yaml}");
    assert_eq!(Config::from_yaml(&yaml).unwrap().to_yaml().unwrap(), yaml);
}

#[test]
fn defaults_are_not_written() {
    let config = Config {
        services: vec![Service {
            name: "s".into(),
            url: Some("http://127.0.0.1:1".into()),
            routes: vec![Route {
                name: "r".into(),
                paths: vec!["/r".into()],
                ..Route::default()
            }],
            ..Service::default()
        }],
        ..Config::default()
    };
    let expected = "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://127.0.0.1:1\n  routes:\n  - name: r\n    paths:\n    - /r\n";
    assert_eq!(config.to_yaml().unwrap(), expected);
}

#[test]
fn an_unknown_field_is_named() {
    for (text, field) in [
        ("_format_version: \"3.0\"\nconsumers: []\n", "consumers"),
        (
            "_format_version: \"3.0\"\nservices: [{name: a, url: http://a, rettries: 1}]\n",
            "rettries",
        ),
        (
            "_format_version: \"3.0\"\nfilter_chains: [{filters: [{name: a, confg: 1}]}]\n",
            "confg",
        ),
        ("_format_version: \"2.1\"\n", "2.1"),
        ("services: []\n", "_format_version"),
        (
            "_format_version: \"3.0\"\nservices: []\nservices: []\n",
            "services",
        ),
    ] {
        let error = Config::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn rubbish_is_an_error() {
    for text in [
        "",
        "a",
        "- 1",
        "\u{0}",
        "{",
        "_format_version: [",
        "&a [*a]",
    ] {
        assert!(Config::from_yaml(text).is_err(), "{text}");
    }
    let large = "#".repeat(MAX_BYTES + 1);
    assert!(matches!(
        Config::from_yaml(&large),
        Err(DeclarativeError::TooLarge(_))
    ));
}

#[test]
fn aliases_do_not_grow_without_end() {
    let with = |repeated: usize| {
        let aliases = vec!["*a"; repeated].join(", ");
        format!(
            "_format_version: \"3.0\"\nplugins: [{{name: cors, config: {{a: &a [1, 2, 3], b: [{aliases}]}}}}]\n"
        )
    };
    // A hundred of one anchor are refused by the reader already.
    assert!(Config::from_yaml(&with(50)).is_ok());
    assert!(Config::from_yaml(&with(MAX_ALIASED)).is_err());
}

#[test]
fn a_service_says_where_it_is() {
    let at = |url: &str| {
        Service {
            url: Some(url.into()),
            ..Service::default()
        }
        .target()
    };
    let target = at("http://127.0.0.1:8589").unwrap();
    assert_eq!((target.port, target.path.as_str()), (8589, ""));
    let target = at("https://[::1]/a/").unwrap();
    assert_eq!((target.tls, target.port), (true, 443));
    assert_eq!(
        (target.host.as_str(), target.path.as_str()),
        ("[::1]", "/a/")
    );
    for wrong in [
        "",
        "/a",
        "ftp://a",
        "a:1",
        "http://",
        "http://u:p@a",
        "http://a/?b",
    ] {
        assert!(at(wrong).is_err(), "{wrong}");
    }
    let parts = Service {
        host: Some("a".into()),
        ..Service::default()
    };
    assert_eq!(parts.target().unwrap().port, 80);
    assert!(Service::default().target().is_err());
    let both = Service {
        url: Some("http://a".into()),
        port: Some(1),
        ..Service::default()
    };
    assert!(both.target().is_err());
}

#[test]
fn configurations_stay_out_of_debug() {
    let config = Config::from_yaml(SAMPLE).unwrap();
    assert!(!format!("{config:?}").contains("country"));
}
