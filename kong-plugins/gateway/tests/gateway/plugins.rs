//! Kong's own plugins, as clients and services see them.

use crate::filters::{CALLBACKS, module, on};
use crate::support::{Answer, Gateway, Service, Setup};

const ROUTES: &str = "  routes: [{name: r, paths: [/]}]\n";

async fn with(service: &Service, plugins: &str) -> Gateway {
    let rest = format!("{ROUTES}plugins:\n{plugins}");
    Setup::new(service.address, &rest).start().await
}

async fn preflight(gateway: &Gateway, origin: &str) -> Answer {
    let request = format!(
        "OPTIONS / HTTP/1.1\nhost: a\norigin: {origin}\naccess-control-request-method: POST\n\
         access-control-request-headers: x-a\nconnection: close\n\n"
    );
    gateway.raw(&request).await
}

#[tokio::test]
async fn preflights_are_answered_and_other_answers_marked() {
    let service = Service::start().await;
    let gateway = with(
        &service,
        "- name: cors
  config: {origins: ['http://a.test', 'https?://.*\\.b\\.test'], credentials: true, max_age: 60, methods: [GET, POST], exposed_headers: [x-b]}
",
    )
    .await;
    let answer = preflight(&gateway, "http://a.test:80").await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("access-control-allow-origin", Some("http://a.test")),
        ("access-control-allow-methods", Some("get,post")),
        ("access-control-allow-headers", Some("x-a")),
        ("access-control-allow-credentials", Some("true")),
        ("access-control-max-age", Some("60")),
        ("vary", Some("origin")),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(service.seen().is_empty());
    for (origin, allowed) in [
        ("https://x.b.test", Some("https://x.b.test")),
        ("https://x.b.test.evil", None),
        ("http://evil?http://x.b.test", None),
        ("null", None),
    ] {
        let answer = gateway.get("/", &format!("origin: {origin}\n")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            allowed,
            "{origin}"
        );
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-b"));
    }
}

#[tokio::test]
async fn everybody_may_ask_when_no_origin_is_named() {
    let service = Service::start().await;
    let gateway = with(&service, "- {name: cors}\n").await;
    assert_eq!(
        gateway
            .get("/", "")
            .await
            .header("access-control-allow-origin"),
        Some("*")
    );
    let answer = preflight(&gateway, "http://a.test").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn requests_are_transformed_before_the_filters() {
    let service = Service::start().await;
    // Answers 418 unless the header that the plugin adds is there.
    let check = "(if (call $get (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 1000) (i32.const 1004))
        (then (drop (call $respond (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const -1))))) (i32.const 0)";
    let filter = module(&(on(CALLBACKS[0], check) + "(data (i32.const 100) \"x-add\")"));
    let rest = format!(
        "{ROUTES}plugins:
- name: request-transformer
  config:
    http_method: PUT
    remove: {{headers: [x-gone, X_Alias], querystring: [secret]}}
    rename: {{headers: ['x-old:x-new'], querystring: ['a:b']}}
    replace: {{headers: ['x-set:1', 'x-absent:1'], querystring: ['q:1 2']}}
    add: {{headers: ['x-add:a:b', 'x-set:2'], querystring: ['c:d']}}
    append: {{headers: ['x-more:2']}}
filter_chains: [{{service: s, filters: [{{name: f}}]}}]
"
    );
    let gateway = Setup::new(service.address, &rest)
        .with_modules(&[("f", &filter)])
        .start()
        .await;
    let headers = "x-gone: 1\nX-Gone: 2\nx_alias: 3\nx-old: 4\nx-set: 5\nx-more: 1\n";
    let answer = gateway.get("/p?secret=1&a=x%26y&q=0&q=9", headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = service.only();
    assert_eq!(
        (&*seen.method, &*seen.target),
        ("PUT", "/p?b=x%26y&q=1%202&c=d")
    );
    let value = |name| seen.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!(value("x-gone"), None);
    assert_eq!(value("x_alias"), None);
    assert_eq!(value("x-old"), None);
    assert_eq!(value("x-new"), Some("4"));
    assert_eq!(value("x-set"), Some("1"));
    assert_eq!(value("x-absent"), None);
    assert_eq!(value("x-add"), Some("a:b"));
    let more: Vec<_> = seen.headers.get_all("x-more").iter().collect();
    assert_eq!(more, ["1", "2"]);
}

#[tokio::test]
async fn bodies_are_limited_with_and_without_a_length() {
    let service = Service::start().await;
    let gateway = with(
        &service,
        "- {name: request-size-limiting, config: {allowed_payload_size: 4, size_unit: bytes}}\n",
    )
    .await;
    let chunked = |body: &str| {
        format!(
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\nconnection: close\n\n{:x}\n{body}\n0\n\n",
            body.len()
        )
    };
    assert_eq!(gateway.post("/", "", "four").await.status, 200);
    assert_eq!(gateway.raw(&chunked("four")).await.status, 200);
    assert_eq!(gateway.get("/", "").await.status, 200);
    for answer in [
        gateway.post("/", "", "fiver").await,
        gateway.raw(&chunked("fiver")).await,
    ] {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.body, r#"{"message":"Request size limit exceeded"}"#);
    }
    let expecting = gateway.post("/", "expect: 100-continue\n", "fiver").await;
    assert_eq!(expecting.status, 417);
    assert_eq!(service.seen().len(), 3);
    assert_eq!(service.seen()[1].body, "four");
}

#[tokio::test]
async fn a_length_may_be_asked_for() {
    let service = Service::start().await;
    let gateway = with(
        &service,
        "- {name: request-size-limiting, config: {require_content_length: true}}\n",
    )
    .await;
    assert_eq!(gateway.post("/", "", "four").await.status, 200);
    assert_eq!(gateway.get("/", "").await.status, 411);
}

#[tokio::test]
async fn addresses_are_allowed_and_denied() {
    let service = Service::start().await;
    for (config, status, body) in [
        ("{allow: [127.0.0.0/8]}", 200, "ok"),
        (
            "{allow: ['::1', 10.0.0.1]}",
            403,
            r#"{"message":"IP address not allowed: 127.0.0.1"}"#,
        ),
        (
            "{deny: [127.0.0.1], allow: [127.0.0.1]}",
            403,
            r#"{"message":"IP address not allowed: 127.0.0.1"}"#,
        ),
        (
            "{deny: [127.0.0.1], status: 404, message: gone}",
            404,
            r#"{"message":"gone"}"#,
        ),
        ("{deny: [10.0.0.0/8]}", 200, "ok"),
    ] {
        let gateway = with(
            &service,
            &format!("- {{name: ip-restriction, config: {config}}}\n"),
        )
        .await;
        // What a client says of its address counts for nothing.
        let answer = gateway
            .get("/", "x-forwarded-for: 10.0.0.1\nx-real-ip: 10.0.0.1\n")
            .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{config}"
        );
    }
}

#[tokio::test]
async fn the_rate_is_limited_with_kongs_headers() {
    let service = Service::start().await;
    let gateway = with(
        &service,
        "- {name: rate-limiting, config: {year: 2, limit_by: header, header_name: x-who}}\n",
    )
    .await;
    for (left, who) in [("1", "a"), ("0", "a"), ("1", "b")] {
        let answer = gateway.get("/", &format!("x-who: {who}\n")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-remaining"), Some(left));
        assert_eq!(answer.header("x-ratelimit-remaining-year"), Some(left));
        assert_eq!(answer.header("retry-after"), None);
    }
    let answer = gateway.get("/", "x-who: a\n").await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.body, r#"{"message":"API rate limit exceeded"}"#);
    assert_eq!(answer.header("x-ratelimit-limit-year"), Some("2"));
    assert_eq!(answer.header("ratelimit-limit"), Some("2"));
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        answer.header("retry-after"),
        answer.header("ratelimit-reset")
    );
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_exact_over_workers() {
    let service = Service::start().await;
    let rest = format!("{ROUTES}plugins: [{{name: rate-limiting, config: {{year: 50}}}}]\n");
    let gateway = Setup::new(service.address, &rest)
        .changed(|config| config.workers = 2)
        .start()
        .await;
    let gateway = std::sync::Arc::new(gateway);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gateway = std::sync::Arc::clone(&gateway);
        tasks.spawn(async move { gateway.get("/", "").await.status });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 50);
    assert_eq!(statuses.iter().filter(|s| **s == 429).count(), 50);
}

#[tokio::test]
async fn the_most_specific_plugin_runs() {
    let service = Service::start().await;
    let rest = "  plugins: [{name: ip-restriction, config: {deny: [127.0.0.1], status: 402}}]
  routes:
  - {name: own, paths: [/own], plugins: [{name: ip-restriction, config: {deny: [127.0.0.1], status: 403}}]}
  - {name: named, paths: [/named]}
  - {name: off, paths: [/off], plugins: [{name: ip-restriction, enabled: false, config: {allow: [127.0.0.1]}}]}
  - {name: of-service, paths: [/]}
- name: other
  url: http://127.0.0.1:9
  routes: [{name: global, paths: [/global]}]
plugins:
- {name: ip-restriction, config: {deny: [127.0.0.1], status: 401}}
- {name: ip-restriction, route: named, config: {deny: [127.0.0.1], status: 404}}
- {name: prometheus, config: {status_code_metrics: true, latency_metrics: true}}
";
    let gateway = Setup::new(service.address, rest).start().await;
    for (path, status) in [
        ("/own", 403),
        ("/named", 404),
        ("/off", 402),
        ("/x", 402),
        ("/global", 401),
    ] {
        assert_eq!(gateway.get(path, "").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_plugin_that_answers_keeps_the_filters_from_running() {
    let service = Service::start().await;
    let rest = format!(
        "{ROUTES}plugins:
- {{name: ip-restriction, config: {{deny: [127.0.0.1]}}}}
- {{name: cors}}
filter_chains: [{{service: s, filters: [{{name: f}}]}}]
"
    );
    let traps = module(&(on(CALLBACKS[0], "unreachable") + &on(CALLBACKS[2], "unreachable")));
    let gateway = Setup::new(service.address, &rest)
        .with_modules(&[("f", &traps)])
        .start()
        .await;
    let answer = gateway.get("/", "origin: http://a.test\n").await;
    assert_eq!(answer.status, 403);
    // The answer is for a page that must be able to read it.
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let address = "127.0.0.1:9".parse().unwrap();
    let secret = "hunter2";
    for (plugin, words) in [
        ("{name: jwt}", ["plugin jwt", "jwt_auth"]),
        (
            "{name: cors, config: {origin: a}}",
            ["plugin cors", "origin"],
        ),
        (
            "{name: cors, config: {origins: ['(', b]}}",
            ["plugin cors", "config.origins"],
        ),
        ("{name: cors}, {name: cors}", ["plugin cors", "twice"]),
        (
            "{name: cors, instance_name: one}",
            ["plugin cors", "instance_name"],
        ),
        (
            "{name: ip-restriction}",
            ["plugin ip-restriction", "config.allow"],
        ),
        (
            "{name: ip-restriction, config: {allow: [a]}}",
            ["config.allow", "no address"],
        ),
        (
            "{name: request-size-limiting, config: {size_unit: mb}}",
            ["request-size-limiting", "mb"],
        ),
        (
            "{name: rate-limiting, config: {second: 1, policy: redis}}",
            ["rate-limiting", "redis"],
        ),
        (
            "{name: rate-limiting, service: x, config: {second: 1}}",
            ["service x", "there is none"],
        ),
        (
            "{name: rate-limiting, route: x, config: {second: 1}}",
            ["route x", "there is none"],
        ),
        (
            "{name: prometheus, config: {per_consumer: true}}",
            ["prometheus", "consumer"],
        ),
        (
            "{name: request-transformer, config: {add: {headers: ['a:$(hunter2)']}}}",
            ["config.add", "templates"],
        ),
        (
            "{name: request-transformer, config: {add: {headers: 'authorization:hunter2'}}}",
            ["request-transformer", "sequence"],
        ),
        (
            "{name: request-transformer, config: {add: {body: ['a:hunter2']}}}",
            ["config.add.body", "not supported"],
        ),
        (
            "{name: request-transformer, config: {replace: {headers: ['host:hunter2']}}}",
            ["host", "not supported"],
        ),
    ] {
        let rest = format!("{ROUTES}plugins: [{plugin}]\n");
        let refusal = Setup::new(address, &rest).refusal().await;
        for word in words {
            assert!(refusal.contains(word), "{plugin}: {refusal}");
        }
        assert!(!refusal.contains(secret), "{refusal}");
    }
}
