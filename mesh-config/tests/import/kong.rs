//! Kong's files.

use crate::same::{assert_same, meaning};
use crate::{import, kong_of, lost};
use mesh_config::render;
use mesh_config::secret::Secrets;
use mesh_declarative::Config;

const PLAN: &str = include_str!("plan-kong.yml");

#[test]
fn the_plans_gateway_comes_back_without_a_difference() {
    let before = Config::from_yaml(PLAN).unwrap();
    let (imported, after) = kong_of(PLAN);
    assert_eq!(imported.lost, [], "all of it is carried over");
    assert_eq!(imported.secrets, []);
    assert_same(&before, &after);
    // What the comparison would say of a difference, lest it sees none.
    let mut other = before.clone();
    other.services[0].plugins[0].config["minute"] = 101.into();
    assert_ne!(meaning(&before), meaning(&other));
    let mut other = before.clone();
    other.upstreams[0].targets[2].weight = 99;
    assert_ne!(meaning(&before), meaning(&other));
    let mut other = before;
    other.services[2].routes[0].strip_path = false;
    assert_ne!(meaning(&after), meaning(&other));
}

#[test]
fn nothing_of_the_mesh_comes_beside_it() {
    let (imported, mesh) = import(PLAN);
    assert!(mesh.agents.is_empty() && mesh.gateway.routes.is_empty());
    assert!(!mesh.has_orchestrator());
    let config = render::kong(&mesh, &Secrets::none()).unwrap();
    let names: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["backend-api", "ai-orchestrator", "vector-search"]);
    assert_eq!(config.filter_chains, []);
    assert!(imported.text.starts_with("# Imported by `mesh import`"));
}

/// As `kong config db_export` writes: everything at the top, ids, times and nulls.
const EXPORTED: &str = r#"
_format_version: "3.0"
_transform: false
services:
- {id: 5f0e, name: web, host: web.internal, port: 8080, protocol: http, path: /base, retries: 5, connect_timeout: 60000,
   read_timeout: 1000, write_timeout: 60000, enabled: yes, created_at: 1700000000, updated_at: 1700000001, tags: ~,
   client_certificate: ~, tls_verify: ~, tls_verify_depth: ~, ca_certificates: ~}
- {id: 7a11, name: secure, host: secure.internal, port: 443, protocol: https, path: ~, tls_verify: off}
routes:
- {id: 9c22, name: r, service: 5f0e, paths: [/r, "~/x/[0-9]+$"], methods: ~, hosts: ["*.example"], headers: {x-a: [b]}, snis: ~,
   sources: ~, destinations: ~, strip_path: true, preserve_host: true, regex_priority: 7, protocols: [http], tags: [t],
   https_redirect_status_code: 426, path_handling: v1, request_buffering: false, response_buffering: true}
- {name: s, service: {name: secure}, hosts: [s.example]}
upstreams:
- {id: 1b33, name: pool, slots: 10000, hash_on: header, hash_on_header: x-user, hash_fallback: none, algorithm: consistent-hashing}
targets:
- {target: "10.0.0.1:80", weight: 7, upstream: 1b33}
- {target: "10.0.0.2:80", upstream: {id: 1b33}}
plugins:
- {name: key-auth, service: {id: 5f0e}, config: {key_names: [apikey], anonymous: ~}}
- {name: http-log, route: 9c22, enabled: off, config: {http_endpoint: "http://log:1", timeout: 1.5, flush: on, mode: "on"}}
- {name: prometheus, protocols: [http, https], instance_name: one}
"#;

#[test]
fn an_export_of_a_database_is_put_together() {
    let (imported, after) = kong_of(EXPORTED);
    assert_eq!(lost(&imported), ["_transform"]);
    let written = r#"
_format_version: "3.0"
services:
- name: web
  url: http://web.internal:8080/base
  read_timeout: 1000
  routes:
  - {name: r, paths: [/r, "~/x/[0-9]+$"], hosts: ["*.example"], headers: {x-a: [b]}, preserve_host: true, regex_priority: 7, protocols: [http],
     tags: [t], path_handling: v1, request_buffering: false, response_buffering: true,
     plugins: [{name: http-log, enabled: false, config: {http_endpoint: "http://log:1", timeout: 1.5, flush: true, mode: "on"}}]}
  plugins: [{name: key-auth, config: {key_names: [apikey], anonymous: null}}]
- {name: secure, url: "https://secure.internal", tls_verify: false, routes: [{name: s, hosts: [s.example]}]}
upstreams:
- {name: pool, slots: 10000, hash_on: header, hash_on_header: x-user, hash_fallback: none, algorithm: consistent-hashing,
   targets: [{target: "10.0.0.1:80", weight: 7}, {target: "10.0.0.2:80"}]}
plugins: [{name: prometheus, protocols: [http, https], instance_name: one}]
"#;
    assert_same(&Config::from_yaml(written).unwrap(), &after);
}

#[test]
fn what_has_no_place_is_named_with_it() {
    let text = r#"_format_version: "3.0"
consumers:
- username: a
services:
- name: a
  url: http://a
  client_certificate: {id: x}
  routes:
  - paths: [/nameless]
  - {name: tcp, protocols: [tcp], destinations: [{port: 1}]}
  - {name: twice, paths: [/a]}
  - {name: twice, paths: [/b]}
  - {name: crooked, paths: [/b/../c]}
  plugins:
  - {name: acl, consumer: a, config: {allow: [x]}}
  - {name: cors, ordering: {before: {access: [jwt]}}}
  - {name: pre-function, config: {header: {env: PRODUCTION}}}
- name: a
  url: http://b
- name: nowhere
- name: "b c"
  url: http://c
- {name: user, url: "http://u:p@d"}
routes:
- {name: lost, paths: [/l], service: gone}
upstreams:
- {name: u, client_certificate: {id: y}, healthchecks: {active: {healthy: {interval: 1, often: 2}}}}
- {name: v, slots: many}
vaults: [{name: env, prefix: e}]
_info: {select_tags: [x]}
"#;
    let (imported, mesh) = import(text);
    let places: Vec<(&str, usize)> = imported
        .lost
        .iter()
        .map(|lost| (lost.path.as_str(), lost.line))
        .collect();
    for (path, line) in [
        ("consumers", 3),
        ("services[0].client_certificate", 7),
        ("services[0].routes[0]", 9),
        ("services[0].routes[1]", 10),
        ("services[0].routes[3]", 12),
        ("services[0].plugins[0]", 15),
        ("services[0].plugins[1].ordering", 16),
        ("services[0].plugins[2]", 17),
        ("services[1]", 18),
        ("services[2]", 20),
        ("routes[0]", 25),
        ("upstreams[0].client_certificate", 27),
        ("upstreams[0].healthchecks.active.healthy.often", 27),
        ("upstreams[1]", 28),
        ("vaults", 29),
        ("_info", 30),
    ] {
        assert!(
            places.contains(&(path, line)),
            "{path}:{line} in {places:#?}"
        );
    }
    // What mesh.yaml alone refuses is named by what it was.
    for what in ["route crooked", "service b c", "service user"] {
        let named = imported
            .lost
            .iter()
            .any(|lost| lost.reason.starts_with(what));
        assert!(named, "{what} in {:#?}", imported.lost);
    }
    assert!(!format!("{:?}{}", imported.lost, imported.text).contains("u:p@"));
    let services: Vec<&str> = mesh.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(services, ["a"]);
    let gateway = mesh.services[0].gateway.as_ref().unwrap();
    let routes: Vec<&str> = gateway.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(routes, ["a-route-1", "twice"]);
    assert_eq!(gateway.plugins.len(), 1);
    // All of it stands in the file too.
    for lost in &imported.lost {
        let reason = lost.reason.split(':').next().unwrap();
        assert!(imported.text.contains(reason), "{}", imported.text);
    }
}

#[test]
fn secrets_become_references_and_are_listed() {
    let text = r#"
_format_version: "3.0"
services:
- name: web
  url: http://web
  plugins:
  - name: rate-limiting
    config: {minute: 5, policy: redis, redis: {host: redis, password: hunter2}}
  - name: request-transformer
    config: {add: {headers: ["Authorization:Basic hunter2", "X-A:b"]}}
  - name: session
    config: {secret: "{vault://env/session-secret}"}
certificates:
- cert: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
  key: "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
  snis: [{name: web.example}, {name: "*.web.example"}]
- {cert: "{vault://env/other-cert}", key: "{vault://env/other-key}"}
- {cert: "{vault://hcv/cert}", key: "{vault://hcv/key}"}
"#;
    let (imported, mesh) = import(text);
    assert!(!imported.text.contains("hunter2"), "{}", imported.text);
    let listed: Vec<(&str, &str)> = imported
        .secrets
        .iter()
        .map(|s| (s.variable.as_str(), s.path.as_str()))
        .collect();
    assert_eq!(
        listed,
        [
            (
                "WEB_RATE_LIMITING_REDIS_PASSWORD",
                "services[0].plugins[0].config.redis.password"
            ),
            (
                "WEB_REQUEST_TRANSFORMER_ADD_HEADERS_0",
                "services[0].plugins[1].config.add.headers[0]"
            ),
            ("WEB_EXAMPLE_TLS_KEY", "certificates[0].key"),
            ("OTHER_CERT", "certificates[1].cert"),
            ("OTHER_KEY", "certificates[1].key"),
        ]
    );
    assert_eq!(lost(&imported), ["certificates[2]"]);
    // With the values, the file that runs is the one that was.
    let value = |name: &str| match name {
        "WEB_RATE_LIMITING_REDIS_PASSWORD" => Some("hunter2".to_owned()),
        "WEB_REQUEST_TRANSFORMER_ADD_HEADERS_0" => Some("Authorization:Basic hunter2".to_owned()),
        "WEB_EXAMPLE_TLS_KEY" => {
            Some("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n".to_owned())
        }
        "OTHER_CERT" | "OTHER_KEY" => Some(format!(
            "{{vault://env/{}}}",
            name.to_lowercase().replace('_', "-")
        )),
        _ => None,
    };
    let wanted = mesh.sources();
    let wanted = wanted
        .into_iter()
        .filter(|(path, _)| path != "gateway.assertion.key");
    let secrets = Secrets::resolve(wanted, std::path::Path::new("."), &value).unwrap();
    let after = render::kong(&mesh, &secrets).unwrap();
    let mut before = Config::from_yaml(text).unwrap();
    before.certificates.truncate(2);
    assert_same(&before, &after);
}
