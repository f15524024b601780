//! Filters that misbehave, and chains in their order.

use crate::support::{Gateway, Service, Setup};
use std::time::Duration;

const ROUTES: &str = "  routes: [{name: r, paths: [/]}]\n";

/// A module with a bump allocator, the imports used here, and `functions`.
pub fn module(functions: &str) -> String {
    format!(
        r#"(module
(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_send_local_response"
  (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_register_shared_queue" (func $queue (param i32 i32 i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
(import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
(memory (export "memory") 2)
(global $heap (mut i32) (i32.const 65536))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get 0))))
(data (i32.const 0) "x-orderABx-seenticks")
{functions})"#
    )
}

pub fn on(callback: &str, body: &str) -> String {
    format!("(func (export \"{callback}\") (param i32 i32 i32) (result i32) {body})")
}

pub const CALLBACKS: [&str; 4] = [
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_response_headers",
    "proxy_on_response_body",
];

/// Adds the letter at `at` to `x-order` of the map.
fn mark(map: u32, at: u32) -> String {
    format!(
        "(drop (call $add (i32.const {map}) (i32.const 0) (i32.const 7) (i32.const {at}) (i32.const 1)))"
    )
}

async fn with(service: &Service, functions: &str) -> Gateway {
    let chain = "filter_chains: [{service: s, filters: [{name: bad, config: {a: 1}}]}]\n";
    Setup::new(service.address, &(ROUTES.to_owned() + chain))
        .with_modules(&[("bad", &module(functions))])
        .changed(|config| {
            config.limits.memory = 4 * 65536;
            config.limits.call = Duration::from_millis(30);
            config.limits.configure = Duration::from_millis(60);
        })
        .start()
        .await
}

/// One request through a filter that fails once in `callback`, then one after it.
async fn failing(callback: &str, body: &str) {
    let service = Service::start().await;
    // Fails only for requests that carry x-seen.
    let wanted = "(i32.eqz (call $get (i32.const 0) (i32.const 9) (i32.const 6) (i32.const 1000) (i32.const 1004)))";
    let body = format!("(if {wanted} (then {body})) (i32.const 0)");
    let gateway = with(&service, &on(callback, &body)).await;
    let answer = gateway.post("/", "x-seen: 1\n", "body").await;
    let sent = usize::from(!callback.contains("request"));
    if callback == "proxy_on_response_body" {
        // The head is out: what is left is to break off.
        assert!(!answer.body.contains("ok"), "{answer:?}");
    } else {
        assert_eq!(answer.status, 503, "{callback}: {answer:?}");
        assert!(answer.body.contains("filter-failed"));
    }
    assert_eq!(service.seen().len(), sent, "{callback}");
    let failures = gateway.metric("gateway_filter_failures_total", &[("filter", "bad")]);
    assert!(
        (failures - 1.0).abs() < f64::EPSILON,
        "{callback}: {failures}"
    );
    // The instance has been replaced.
    assert_eq!(gateway.post("/", "", "body").await.status, 200);
}

#[tokio::test]
async fn a_trap_lets_nothing_pass() {
    for callback in CALLBACKS {
        failing(callback, "unreachable").await;
    }
}

#[tokio::test]
async fn an_endless_loop_lets_nothing_pass() {
    for callback in CALLBACKS {
        failing(callback, "(loop br 0)").await;
    }
}

#[tokio::test]
async fn memory_without_end_lets_nothing_pass() {
    for callback in CALLBACKS {
        failing(callback, "(loop (drop (memory.grow (i32.const 1))) br 0)").await;
    }
}

#[tokio::test]
async fn memory_that_was_used_up_comes_back() {
    const MB: usize = 1024 * 1024;
    let service = Service::start().await;
    // Writes into every page that it gets.
    let greedy = "(loop (i32.store (i32.shl (memory.grow (i32.const 1)) (i32.const 16)) (i32.const 1)) br 0) \
                  (i32.const 0)";
    let chain = "filter_chains: [{service: s, filters: [{name: bad}]}]\n";
    let gateway = Setup::new(service.address, &(ROUTES.to_owned() + chain))
        .with_modules(&[("bad", &module(&on(CALLBACKS[0], greedy)))])
        .changed(|config| config.limits.memory = 64 * MB)
        .start()
        .await;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    assert_eq!(gateway.get("/", "").await.status, 503);
    let before = resident();
    for _ in 0..10 {
        assert_eq!(gateway.get("/", "").await.status, 503);
    }
    // 640 MB were written; what other tests use meanwhile is far less.
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 * MB, "{} MB", grown / MB);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_filter_that_fails_to_begin_with_a_request_lets_nothing_pass() {
    let service = Service::start().await;
    // Root contexts have no parent; those of requests have one, and every second one fails.
    let functions = "(global $made (mut i32) (i32.const 0)) \
        (func (export \"proxy_on_context_create\") (param i32 i32) \
        (if (local.get 1) (then (global.set $made (i32.add (global.get $made) (i32.const 1))) \
        (if (i32.eq (global.get $made) (i32.const 2)) (then unreachable)))))";
    let gateway = with(&service, functions).await;
    for status in [200, 503, 200, 503, 200] {
        assert_eq!(gateway.get("/", "").await.status, status);
    }
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test]
async fn a_filter_that_fails_when_a_request_is_over_is_replaced() {
    for body in ["unreachable", "(loop br 0)"] {
        for (callback, signature) in [
            ("proxy_on_done", "(param i32) (result i32)"),
            ("proxy_on_log", "(param i32)"),
            ("proxy_on_delete", "(param i32)"),
        ] {
            let service = Service::start().await;
            let functions =
                format!("(func (export \"{callback}\") {signature} {body} unreachable)");
            let gateway = with(&service, &functions).await;
            for _ in 0..3 {
                assert_eq!(gateway.get("/", "").await.status, 200, "{callback}");
            }
            let failures = || gateway.metric("gateway_filter_failures_total", &[("filter", "bad")]);
            crate::support::until("three failures", async || failures() > 2.5).await;
        }
    }
}

#[tokio::test]
async fn a_filter_that_fails_on_its_tick_is_replaced() {
    for body in [
        "unreachable",
        "(loop br 0)",
        "(loop (drop (memory.grow (i32.const 1))) br 0)",
    ] {
        let service = Service::start().await;
        let functions = format!(
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
            (drop (call $tick (i32.const 10))) (i32.const 1)) \
            (func (export \"proxy_on_tick\") (param i32) {body})"
        );
        let gateway = with(&service, &functions).await;
        let failures = || gateway.metric("gateway_filter_failures_total", &[("filter", "bad")]);
        crate::support::until("two failures", async || failures() > 1.5).await;
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
}

#[tokio::test]
async fn an_unsupported_function_lets_nothing_pass() {
    let call = format!("(drop (call $queue {}))", "(i32.const 0)".repeat(3));
    failing("proxy_on_request_headers", &call).await;
}

#[tokio::test]
async fn a_filter_that_does_not_start_is_refused_at_start() {
    for (functions, word) in [
        (
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.const 0))",
            "refused its configuration",
        ),
        (
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) unreachable)",
            "proxy_on_configure",
        ),
    ] {
        let chain = "filter_chains: [{service: s, filters: [{name: bad}]}]\n";
        let refusal = Setup::new("127.0.0.1:9".parse().unwrap(), &(ROUTES.to_owned() + chain))
            .with_modules(&[("bad", &module(functions))])
            .refusal()
            .await;
        assert!(
            refusal.contains(word) && refusal.contains("bad"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn filters_of_the_service_go_before_filters_of_the_route() {
    let service = Service::start().await;
    let chains = "filter_chains:
- {name: b, route: r, filters: [{name: b}]}
- {name: a, service: s, filters: [{name: a}, {name: off, enabled: false}]}
";
    let marks = |at| {
        let request = on(CALLBACKS[0], &(mark(0, at) + "(i32.const 0)"));
        let response = on(CALLBACKS[2], &(mark(2, at) + "(i32.const 0)"));
        module(&(request + &response))
    };
    let gateway = Setup::new(service.address, &(ROUTES.to_owned() + chains))
        .with_modules(&[("a", &marks(7)), ("b", &marks(8))])
        .start()
        .await;
    let answer = gateway.get("/", "").await;
    let seen = service.only();
    let order: Vec<_> = seen.headers.get_all("x-order").iter().collect();
    assert_eq!(order, ["A", "B"]);
    let back: Vec<_> = answer
        .head
        .lines()
        .filter(|l| l.starts_with("x-order"))
        .collect();
    assert_eq!(back, ["x-order: b", "x-order: a"]);
}

#[tokio::test]
async fn after_an_answer_no_request_callback_runs_but_all_response_callbacks() {
    let service = Service::start().await;
    let chain = "filter_chains: [{service: s, filters: [{name: a}, {name: b}]}]\n";
    let respond = "(drop (call $respond (i32.const 429) (i32.const 0) (i32.const 0) (i32.const 7) \
                   (i32.const 2) (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)";
    let a = module(&on(CALLBACKS[0], respond));
    // Traps if it is asked about the request.
    let b = module(
        &(on(CALLBACKS[0], "unreachable") + &on(CALLBACKS[2], &(mark(2, 8) + "(i32.const 0)"))),
    );
    let gateway = Setup::new(service.address, &(ROUTES.to_owned() + chain))
        .with_modules(&[("a", &a), ("b", &b)])
        .start()
        .await;
    let answer = gateway.post("/", "", "body").await;
    assert_eq!((answer.status, answer.body.as_str()), (429, "AB"));
    assert_eq!(answer.header("x-order"), Some("b"));
    assert_eq!(answer.header("content-length"), Some("2"));
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn bodies_are_changed_on_both_ways() {
    let service = Service::start().await;
    let change = |kind: u32| {
        format!(
            "(if (local.get 1) (then (drop (call $set_buffer (i32.const {kind}) (i32.const 0) \
             (i32.const 100) (i32.const 0) (i32.const 7))))) (i32.const 0)"
        )
    };
    let length = "(drop (call $remove (i32.const 2) (i32.const 20) (i32.const 14))) (i32.const 0)";
    let functions = on(CALLBACKS[1], &change(0))
        + &on(CALLBACKS[3], &change(1))
        + &on(CALLBACKS[2], length)
        + "(data (i32.const 20) \"content-length\")";
    let gateway = with(&service, &functions).await;
    let answer = gateway
        .post("/", "", "a longer body than the new one")
        .await;
    assert_eq!(service.only().body, "x-order");
    assert!(answer.body.contains("x-order"), "{answer:?}");
}

#[tokio::test]
async fn ticks_run_without_requests() {
    let service = Service::start().await;
    let functions = "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
        (drop (call $tick (i32.const 10))) (i32.const 1)) \
        (func (export \"proxy_on_tick\") (param i32) \
        (drop (call $define (i32.const 0) (i32.const 15) (i32.const 5) (i32.const 1000))) \
        (drop (call $increment (i32.load (i32.const 1000)) (i64.const 1))))";
    let gateway = with(&service, functions).await;
    let ticked = async {
        while gateway.metric("pw_bad_ticks", &[]) < 3.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, ticked)
        .await
        .expect("no ticks");
}
