//! Calls that filters make on their ticks.

use super::*;
use mesh_wasm_host::CallAnswer;

/// Makes a call on its tick, and counts what it gets by the first digit of the status and the body's size.
const CALLER: &str = r#"
(data (i32.const 2000) "127.0.0.1:1:method:path:authoritypOST/x")
(data (i32.const 2100) "\03\00\00\00\07\00\00\00\04\00\00\00\05\00\00\00\02\00\00\00\0a\00\00\00\01\00\00\00:method\00POST\00:path\00/x\00:authority\00a\00")
(data (i32.const 2200) "body")
(data (i32.const 2210) ":status")
(func (export "proxy_on_tick") (param i32)
  (drop (call $define (i32.const 2) (i32.const 35) (i32.const 5) (i32.const 1000)))
  (drop (call $http_call (i32.const 2000) (i32.const 11) (i32.const 2100) (i32.const 63)
    (i32.const 2200) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 250) (i32.const 1004))))
(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
  (if (i32.ne (local.get 1) (i32.load (i32.const 1004))) (then (unreachable)))
  (if (local.get 2) (then
    (drop (call $get (i32.const 6) (i32.const 2210) (i32.const 7) (i32.const 1008) (i32.const 1012)))
    (drop (call $buffer (i32.const 4) (i32.const 0) (i32.const 99) (i32.const 1016) (i32.const 1020)))
    (drop (call $record (i32.load (i32.const 1000))
      (i64.extend_i32_u (i32.add (i32.load8_u (i32.load (i32.const 1008))) (i32.load (i32.const 1020)))))))
  (else (drop (call $record (i32.load (i32.const 1000)) (i64.const 7))))))
"#;

#[test]
fn calls_are_made_on_ticks_and_their_ends_are_told() {
    let module = compile(&format!("(module {IMPORTS} {BASE} {CALLER})")).unwrap();
    let shared = Arc::new(Shared::default());
    let mut vm = Vm::new(&module, Arc::clone(&shared)).unwrap();
    let root = vm.configure("test", Bytes::new()).unwrap();
    vm.on_tick(root).unwrap();
    let calls = vm.take_calls();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(call.authority, "127.0.0.1:1");
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/x"));
    assert_eq!(call.headers, header("host", b"a"));
    assert_eq!(call.body, "body");
    assert_eq!(call.timeout, Duration::from_millis(250));
    let answer = CallAnswer::answered(
        http::StatusCode::OK,
        HeaderMap::new(),
        Bytes::from_static(b"12345"),
    );
    vm.on_call_response(call, answer).unwrap();
    vm.on_tick(root).unwrap();
    let call = vm.take_calls().remove(0);
    vm.on_call_response(&call, CallAnswer::failed("timeout"))
        .unwrap();
    let metrics = shared.metrics.snapshot();
    let metric = metrics.first().unwrap();
    // '2' and five bytes; then 7 for the one that failed.
    assert_eq!(metric.value, u64::from(b'2') + 5 + 7, "{metric:?}");
    assert_eq!(metric.counts.last(), Some(&2));
    assert_eq!(metric.counts.get(3), Some(&1), "7 is at most 10");
}

#[test]
fn calls_that_nobody_makes_are_bounded() {
    let module = compile(&format!("(module {IMPORTS} {BASE} {CALLER})")).unwrap();
    let mut vm = Vm::new(&module, Arc::new(Shared::default())).unwrap();
    let root = vm.configure("test", Bytes::new()).unwrap();
    for _ in 0..100 {
        vm.on_tick(root).unwrap();
    }
    assert_eq!(vm.take_calls().len(), 64);
}

#[test]
fn a_call_on_a_requests_way_ends_it() {
    let call = "(drop (call $http_call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) \
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))) (i32.const 0)";
    let (result, _) = on_headers(call, HeaderMap::new());
    let Err(HostError::Unsupported { function, .. }) = result else {
        panic!("{result:?}")
    };
    assert!(function.starts_with("proxy_http_call"), "{function}");
}
