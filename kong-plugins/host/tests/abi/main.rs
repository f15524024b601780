//! The host against small modules written in the text format: what each family does, and that nothing
//! a guest does gets out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what stands here runs in tests only"
)]

mod calls;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use mesh_wasm_host::{
    Action, ContextId, Engine, Exchange, HostError, Limits, MetricKind, MetricValue, Module,
    Shared, Vm,
};
use std::sync::Arc;
use std::time::Duration;

const IMPORTS: &str = r#"
(import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
(import "env" "proxy_send_local_response"
  (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
(import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
(import "env" "proxy_call_foreign_function"
  (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_http_call"
  (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
"#;

const BASE: &str = r#"
(memory (export "memory") 2)
(global $heap (mut i32) (i32.const 65536))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get 0))))
(data (i32.const 0) "x-inx-outx-gonea\r\nbkong.ctx.shared\00countrequest.path")
"#;

/// The callbacks of a request, each with its signature.
const CALLBACKS: [&str; 4] = [
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_response_headers",
    "proxy_on_response_body",
];

fn limits() -> Limits {
    Limits {
        memory: 4 * 65536,
        call: Duration::from_millis(30),
        configure: Duration::from_millis(60),
    }
}

fn compile(text: &str) -> Result<Module, HostError> {
    let engine = Engine::new(limits(), 4).unwrap();
    let bytes = wat::parse_str(text).unwrap();
    Module::compile(&engine, "test", &bytes)
}

fn vm(functions: &str) -> Vm {
    let module = compile(&format!("(module {IMPORTS} {BASE} {functions})")).unwrap();
    Vm::new(&module, Arc::new(Shared::default())).unwrap()
}

fn on(callback: &str, body: &str) -> String {
    format!("(func (export \"{callback}\") (param i32 i32 i32) (result i32) {body})")
}

fn exchange() -> Exchange {
    let mut exchange = Exchange::default();
    exchange.request.set_pseudo(":method", "GET");
    exchange
}

fn started(vm: &mut Vm) -> ContextId {
    let root = vm.configure("test", Bytes::from_static(b"{}")).unwrap();
    vm.create_context(root).unwrap()
}

fn run(vm: &mut Vm, callback: &str, exchange: &mut Exchange) -> Result<Action, HostError> {
    let context = started(vm);
    match callback {
        "proxy_on_request_headers" => vm.on_request_headers(context, exchange, false),
        "proxy_on_request_body" => vm.on_request_body(context, exchange),
        "proxy_on_response_headers" => vm.on_response_headers(context, exchange, false),
        _ => vm.on_response_body(context, exchange, true),
    }
}

fn on_headers(body: &str, headers: HeaderMap) -> (Result<Action, HostError>, Exchange) {
    let mut exchange = exchange();
    exchange.request.headers = headers;
    let mut vm = vm(&on("proxy_on_request_headers", body));
    let result = run(&mut vm, "proxy_on_request_headers", &mut exchange);
    (result, exchange)
}

fn header(name: &'static str, value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(name, HeaderValue::from_bytes(value).unwrap());
    headers
}

const COPY: &str = r"
(drop (call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1000) (i32.const 1004)))
(drop (call $replace (i32.const 0) (i32.const 4) (i32.const 5)
  (i32.load (i32.const 1000)) (i32.load (i32.const 1004))))
(i32.const 0)";

#[test]
fn values_cross_with_their_bytes() {
    let value = b"\xff\xfe caf\xc3\xa9";
    let (result, exchange) = on_headers(COPY, header("x-in", value));
    assert!(matches!(result, Ok(Action::Continue)));
    assert_eq!(exchange.request.headers["x-out"].as_bytes(), value);
}

#[test]
fn of_a_repeated_header_all_values_are_read_and_all_are_replaced() {
    let mut headers = header("x-in", b"a");
    headers.append("x-in", HeaderValue::from_static("b"));
    headers.append("x-out", HeaderValue::from_static("1"));
    headers.append("x-out", HeaderValue::from_static("2"));
    let (_, exchange) = on_headers(COPY, headers);
    let out: Vec<_> = exchange.request.headers.get_all("x-out").iter().collect();
    assert_eq!(out, ["a, b"]);
}

#[test]
fn what_is_removed_is_gone() {
    let mut headers = header("x-gone", b"a");
    headers.append("x-gone", HeaderValue::from_static("b"));
    let body = "(drop (call $remove (i32.const 0) (i32.const 9) (i32.const 6))) (i32.const 0)";
    let (result, exchange) = on_headers(body, headers);
    assert!(matches!(result, Ok(Action::Continue)));
    assert!(exchange.request.headers.is_empty());
}

#[test]
fn a_line_break_in_a_value_is_refused() {
    // Traps when the status is not "bad argument".
    let body = "(if (i32.ne (i32.const 2) (call $add (i32.const 0) (i32.const 0) (i32.const 4) \
                (i32.const 15) (i32.const 4))) (then unreachable)) (i32.const 0)";
    let (result, exchange) = on_headers(body, HeaderMap::new());
    assert!(matches!(result, Ok(Action::Continue)), "{result:?}");
    assert!(exchange.request.headers.is_empty());
}

#[test]
fn a_filter_answers() {
    let body = "(drop (call $respond (i32.const 401) (i32.const 0) (i32.const 0) (i32.const 0) \
                (i32.const 4) (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)";
    let (result, _) = on_headers(body, HeaderMap::new());
    let Ok(Action::Respond(answer)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(answer.status, 401);
    assert_eq!(answer.body, "x-in");
}

#[test]
fn an_answer_that_cannot_be_sent_ends_the_call() {
    for (status, map, grpc) in [
        (99, 0, -1),
        (101, 0, -1),
        (700, 0, -1),
        (200, 40, -1),
        (200, 0, 3),
    ] {
        let body = format!(
            "(drop (call $respond (i32.const {status}) (i32.const 0) (i32.const 0) (i32.const 0) \
             (i32.const 0) (i32.const 0) (i32.const {map}) (i32.const {grpc}))) (i32.const 0)"
        );
        let (result, _) = on_headers(&body, HeaderMap::new());
        assert!(matches!(result, Err(HostError::Trap { .. })), "{result:?}");
    }
}

#[test]
fn a_pause_that_nothing_ends_is_an_error() {
    let (result, _) = on_headers("(i32.const 1)", HeaderMap::new());
    assert!(matches!(result, Err(HostError::Unsupported { .. })));
}

#[test]
fn bodies_are_read_and_changed() {
    let body = "(drop (call $buffer (i32.const 0) (i32.const 1) (i32.const 100) (i32.const 1000) \
                (i32.const 1004))) (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const 1) \
                (i32.load (i32.const 1000)) (i32.load (i32.const 1004)))) (i32.const 0)";
    let mut exchange = exchange();
    exchange.request_body = Bytes::from_static(b"abc");
    let mut vm = vm(&on("proxy_on_request_body", body));
    run(&mut vm, "proxy_on_request_body", &mut exchange).unwrap();
    assert_eq!(exchange.request_body, "bcbc");
}

#[test]
fn filters_share_only_where_they_may() {
    let set = |at: u32, size: u32| {
        format!(
            "(drop (call $set_property (i32.const {at}) (i32.const {size}) (i32.const 0) \
             (i32.const 4))) (i32.const 0)"
        )
    };
    // A null value removes; the base address of "x-in" is zero, so the value is taken from 4.
    let shared = set(19, 21).replace(
        "(i32.const 0) (i32.const 4))",
        "(i32.const 4) (i32.const 5))",
    );
    let (result, exchange) = on_headers(&shared, HeaderMap::new());
    assert!(matches!(result, Ok(Action::Continue)), "{result:?}");
    let value = exchange.properties.get("kong.ctx.shared.count").unwrap();
    assert_eq!(value, "x-out");
    let (result, _) = on_headers(&set(40, 12), HeaderMap::new());
    assert!(matches!(result, Err(HostError::Trap { .. })), "{result:?}");
}

#[test]
fn counters_count_for_all_vms() {
    let count = "(drop (call $define (i32.const 0) (i32.const 35) (i32.const 5) (i32.const 1000))) \
                 (drop (call $increment (i32.load (i32.const 1000)) (i64.const 2))) (i32.const 0)";
    let text = format!(
        "(module {IMPORTS} {BASE} {})",
        on("proxy_on_request_headers", count)
    );
    let module = compile(&text).unwrap();
    let metrics = Arc::new(Shared::default());
    for _ in 0..2 {
        let mut vm = Vm::new(&module, Arc::clone(&metrics)).unwrap();
        run(&mut vm, "proxy_on_request_headers", &mut exchange()).unwrap();
    }
    let expected = MetricValue {
        name: "pw_test_count".to_owned(),
        kind: MetricKind::Counter,
        value: 4,
        counts: Vec::new(),
    };
    assert!(
        metrics.metrics.snapshot().contains(&expected),
        "{:?}",
        metrics.metrics.snapshot()
    );
}

#[test]
fn a_trap_in_any_callback_is_an_error_and_spends_the_vm() {
    for callback in CALLBACKS {
        let mut vm = vm(&on(callback, "unreachable"));
        let result = run(&mut vm, callback, &mut exchange());
        let Err(HostError::Trap { callback: name, .. }) = result else {
            panic!("{callback}: {result:?}");
        };
        assert_eq!(name, callback);
        let again = vm.configure("again", Bytes::new());
        assert_eq!(again, Err(HostError::Spent));
    }
    let mut vm = vm("(func (export \"proxy_on_log\") (param i32) unreachable)");
    let context = started(&mut vm);
    assert!(vm.finish(context, &mut exchange()).is_err());
}

#[test]
fn an_endless_loop_in_any_callback_is_stopped() {
    for callback in CALLBACKS {
        let mut vm = vm(&on(callback, "(loop br 0) (i32.const 0)"));
        let result = run(&mut vm, callback, &mut exchange());
        assert!(
            matches!(result, Err(HostError::Timeout { .. })),
            "{result:?}"
        );
    }
    let looping = "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (loop br 0) (i32.const 1))";
    let result = vm(looping).configure("test", Bytes::new());
    assert!(
        matches!(result, Err(HostError::Timeout { .. })),
        "{result:?}"
    );
}

#[test]
fn an_endless_start_is_stopped() {
    for start in [
        "(func $f (loop br 0)) (start $f)",
        "(func (export \"_initialize\") (loop br 0))",
    ] {
        let module = compile(&format!("(module {IMPORTS} {BASE} {start})")).unwrap();
        assert!(Vm::new(&module, Arc::new(Shared::default())).is_err());
    }
}

#[test]
fn memory_and_stack_have_an_end() {
    let grow = "(loop (drop (memory.grow (i32.const 1))) br 0) (i32.const 0)";
    let (result, _) = on_headers(grow, HeaderMap::new());
    let Err(HostError::Trap { reason, .. }) = result else {
        panic!("{result:?}");
    };
    assert!(reason.contains("memory"), "{reason}");
    let recurse =
        "(func $f (param i32) (result i32) (i32.add (i32.const 1) (call $f (local.get 0))))";
    let mut vm = vm(&format!(
        "{recurse} {}",
        on("proxy_on_request_headers", "(call $f (i32.const 0))")
    ));
    let result = run(&mut vm, "proxy_on_request_headers", &mut exchange());
    assert!(matches!(result, Err(HostError::Trap { .. })), "{result:?}");
}

#[test]
fn an_unsupported_function_ends_the_call_with_its_name() {
    let call = format!(
        "(drop (call $foreign {})) (i32.const 0)",
        "(i32.const 0)".repeat(6)
    );
    let (result, _) = on_headers(&call, HeaderMap::new());
    let error = result.unwrap_err();
    assert!(
        error.to_string().contains("proxy_call_foreign_function"),
        "{error}"
    );
}

#[test]
fn addresses_outside_of_the_memory_end_the_call() {
    for call in [
        "(call $get (i32.const 0) (i32.const -1) (i32.const 4) (i32.const 8) (i32.const 8))",
        "(call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.const -2) (i32.const 8))",
        "(call $add (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8) (i32.const -1))",
        "(call $buffer (i32.const 7) (i32.const 0) (i32.const 9) (i32.const -1) (i32.const -1))",
    ] {
        let body = format!("(drop {call}) (i32.const 0)");
        let (result, _) = on_headers(&body, header("x-in", b"value"));
        assert!(
            matches!(result, Err(HostError::Trap { .. })),
            "{call}: {result:?}"
        );
    }
    let wild = BASE.replace("(global.get $heap)\n", "(i32.const -8)\n");
    let body = "(drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 8))) (i32.const 0)";
    let function = on("proxy_on_request_headers", body);
    let module = compile(&format!("(module {IMPORTS} {wild} {function})")).unwrap();
    let mut vm = Vm::new(&module, Arc::new(Shared::default())).unwrap();
    let result = run(&mut vm, "proxy_on_request_headers", &mut exchange());
    assert!(matches!(result, Err(HostError::Trap { .. })), "{result:?}");
}

#[test]
fn a_filter_may_refuse_its_configuration() {
    let no = "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.const 0))";
    let result = vm(no).configure("test", Bytes::new());
    assert!(matches!(result, Err(HostError::Refused { .. })));
}

#[test]
fn ticks_belong_to_the_configuration_that_asked() {
    let mut vm = vm(
        "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
         (if (local.get 1) (then (drop (call $tick (i32.const 1))))) (i32.const 1)) \
         (func (export \"proxy_on_tick\") (param i32) (drop (call $tick (i32.const 500))))",
    );
    let with = vm.configure("with", Bytes::from_static(b"{}")).unwrap();
    let without = vm.configure("without", Bytes::new()).unwrap();
    assert_eq!(vm.tick_period(with), Some(Duration::from_millis(10)));
    assert_eq!(vm.tick_period(without), None);
    vm.on_tick(with).unwrap();
    assert_eq!(vm.tick_period(with), Some(Duration::from_millis(500)));
}

#[test]
fn what_is_no_filter_is_refused_by_name() {
    for (text, word) in [
        ("(module)".to_owned(), "proxy_abi_version"),
        (
            "(module (import \"other\" \"f\" (func)) (func (export \"proxy_abi_version_0_2_1\")))"
                .to_owned(),
            "other",
        ),
        (
            "(module (func (export \"proxy_abi_version_0_2_1\")))".to_owned(),
            "memory",
        ),
        (
            format!("(module {BASE} (func (export \"proxy_on_log\")))"),
            "proxy_on_log",
        ),
    ] {
        let made = compile(&text).and_then(|m| Vm::new(&m, Arc::new(Shared::default())));
        let error = made.map(drop).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let engine = Engine::new(limits(), 1).unwrap();
    assert!(Module::compile(&engine, "rubbish", b"\0asm rubbish").is_err());
    let large = format!(
        "(module (memory (export \"memory\") 9000) {})",
        BASE.lines().skip(2).collect::<String>()
    );
    let made = compile(&large).and_then(|m| Vm::new(&m, Arc::new(Shared::default())));
    assert!(made.is_err());
}

#[test]
fn the_pool_has_room_again_when_a_vm_goes() {
    let engine = Engine::new(limits(), 1).unwrap();
    let bytes = wat::parse_str(format!("(module {IMPORTS} {BASE})")).unwrap();
    let module = Module::compile(&engine, "test", &bytes).unwrap();
    let metrics = Arc::new(Shared::default());
    for _ in 0..3 {
        let vm = Vm::new(&module, Arc::clone(&metrics)).unwrap();
        assert!(Vm::new(&module, Arc::clone(&metrics)).is_err());
        drop(vm);
    }
}
