//! What a VM says that it has used, and that it says so only where that is counted.

use bytes::Bytes;
use mesh_wasm_host::{Engine, Limits, Module, Shared, Usage, Vm};
use std::sync::Arc;

/// Asks for the time twice per configuration, and runs a loop.
const FILTER: &str = r#"(module
    (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) i32.const 1024)
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (local $left i32)
        (drop (call $now (i32.const 8)))
        (drop (call $now (i32.const 8)))
        (local.set $left (i32.const 1000))
        (loop $again
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))
        i32.const 1))"#;

fn used(engine: &Engine, configurations: usize) -> Option<Usage> {
    let bytes = wat::parse_str(FILTER).unwrap();
    let module = Module::compile(engine, "asking", &bytes).unwrap();
    let mut vm = Vm::new(&module, Arc::new(Shared::default())).unwrap();
    for _ in 0..configurations {
        vm.configure("root", Bytes::new()).unwrap();
    }
    vm.usage()
}

#[test]
fn calls_and_fuel_are_counted_where_they_are_asked_for() {
    let engine = Engine::measured(Limits::default(), 1).unwrap();
    let once = used(&engine, 1).unwrap();
    let calls = [("proxy_get_current_time_nanoseconds".to_owned(), 2)];
    assert_eq!(once.calls, calls.into());
    assert!(once.fuel > 1000, "{once:?}");
    let twice = used(&engine, 2).unwrap();
    assert_eq!(twice.fuel, once.fuel * 2);
    assert_eq!(twice.calls.values().sum::<u64>(), 4);
}

#[test]
fn elsewhere_nothing_is_counted() {
    let engine = Engine::new(Limits::default(), 1).unwrap();
    assert_eq!(used(&engine, 1), None);
}
