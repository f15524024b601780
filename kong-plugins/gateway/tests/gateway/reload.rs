//! Another configuration while requests are on their way.

use crate::filters::{CALLBACKS, module, on};
use crate::lifecycle::{by_hand, read_until};
use crate::support::{Answer, Service, Setup, with_causes};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn yaml(service: SocketAddr, rest: &str) -> String {
    Setup::new(service, rest).yaml
}

const ROUTES: &str = "  routes: [{name: r, paths: [/]}]\n";

#[tokio::test]
async fn new_requests_meet_the_new_configuration_and_old_ones_end_with_theirs() {
    let (address, accepted) = by_hand().await;
    let second = Service::start().await;
    let gateway = Setup::new(address, ROUTES).start().await;
    // A connection that stays, with a request in flight.
    let mut client = gateway.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut service = accepted.await.unwrap();
    let moved = "  routes: [{name: r, paths: [/], strip_path: false}, {name: t, paths: [/t]}]\n";
    gateway.reload(&yaml(second.address, moved)).await.unwrap();
    assert_eq!(gateway.get("/t/x", "").await.status, 200);
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst";
    service.write_all(answer).await.unwrap();
    read_until(&mut client, "first").await;
    // The same connection, the new service.
    client.write_all(request).await.unwrap();
    read_until(&mut client, "ok").await;
    assert_eq!(second.seen().len(), 2);
    let loaded = gateway.metric("gateway_reloads_total", &[("outcome", "loaded")]);
    assert!((loaded - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_dropped() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES)
        .changed(|config| config.workers = 2)
        .start()
        .await;
    let gateway = std::sync::Arc::new(gateway);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (gateway, stop) = (std::sync::Arc::clone(&gateway), stop.clone());
        clients.spawn(async move {
            let mut asked = 0;
            while !stop.is_cancelled() {
                assert_eq!(gateway.get("/", "").await.status, 200);
                asked += 1;
            }
            asked
        });
    }
    for round in 0..20 {
        let routes = format!("  routes: [{{name: r{round}, paths: [/]}}]\n");
        gateway
            .reload(&yaml(service.address, &routes))
            .await
            .unwrap();
    }
    stop.cancel();
    let asked: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(service.seen().len(), asked);
}

#[tokio::test]
async fn what_cannot_be_run_changes_nothing() {
    let service = Service::start().await;
    let filter = module(
        "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.eqz (local.get 1)))",
    );
    let gateway = Setup::new(service.address, ROUTES)
        .with_modules(&[("picky", &filter)])
        .start()
        .await;
    for (rest, word) in [
        ("  routes: [{name: new, paths: [x]}]\n", "path x"),
        ("plugins: [{name: zipkin}]\n", "zipkin"),
        (
            "filter_chains: [{service: s, filters: [{name: absent}]}]\n",
            "absent",
        ),
        (
            "filter_chains: [{service: s, filters: [{name: picky, config: bad}]}]\n",
            "refused its configuration",
        ),
    ] {
        let refusal = gateway
            .reload(&yaml(service.address, rest))
            .await
            .unwrap_err();
        assert!(refusal.contains(word), "{refusal}");
        assert_eq!(gateway.get("/", "").await.status, 200, "{rest}");
    }
    let mut config = gateway.config.clone();
    config.workers = 7;
    let refusal = gateway.handle.reload(config).await.unwrap_err();
    assert!(with_causes(&refusal).contains("workers"));
    let refused = gateway.metric("gateway_reloads_total", &[("outcome", "refused")]);
    assert!((refused - 5.0).abs() < f64::EPSILON, "{refused}");
}

#[tokio::test]
async fn a_mended_filter_is_loaded_without_a_restart() {
    let service = Service::start().await;
    let chain = |config: &str| {
        format!(
            "{ROUTES}filter_chains: [{{service: s, filters: [{{name: f, config: {config}}}]}}]\n"
        )
    };
    // Traps on every request when its configuration is long.
    let filter = module(
        &("(global $broken (mut i32) (i32.const 0)) \
           (func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
           (global.set $broken (i32.gt_u (local.get 1) (i32.const 4))) (i32.const 1))"
            .to_owned()
            + &on(
                CALLBACKS[0],
                "(if (global.get $broken) (then unreachable)) (i32.const 0)",
            )),
    );
    let gateway = Setup::new(service.address, &chain("broken"))
        .with_modules(&[("f", &filter)])
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/", "").await.status, 503);
    }
    assert!(service.seen().is_empty());
    gateway
        .reload(&yaml(service.address, &chain("good")))
        .await
        .unwrap();
    assert_eq!(gateway.get("/", "").await.status, 200);
    gateway
        .reload(&yaml(service.address, &chain("broken")))
        .await
        .unwrap();
    assert_eq!(gateway.get("/", "").await.status, 503);
}

#[tokio::test]
async fn an_older_filter_does_not_tick_on() {
    let service = Service::start().await;
    let ticking = module(
        "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
        (drop (call $tick (i32.const 10))) (i32.const 1)) \
        (func (export \"proxy_on_tick\") (param i32) \
        (drop (call $define (i32.const 0) (i32.const 15) (i32.const 5) (i32.const 1000))) \
        (drop (call $increment (i32.load (i32.const 1000)) (i64.const 1))))",
    );
    let chain = |name: &str| {
        format!("{ROUTES}filter_chains: [{{service: s, filters: [{{name: {name}}}]}}]\n")
    };
    let gateway = Setup::new(service.address, &chain("old"))
        .with_modules(&[("old", &ticking), ("new", &ticking)])
        .start()
        .await;
    let (old, new) = (
        || gateway.metric("pw_old_ticks", &[]),
        || gateway.metric("pw_new_ticks", &[]),
    );
    crate::support::until("a tick", async || old() > 0.0).await;
    gateway
        .reload(&yaml(service.address, &chain("new")))
        .await
        .unwrap();
    let before = old();
    crate::support::until("ticks of the new one", async || new() > 5.0).await;
    assert!((old() - before).abs() < f64::EPSILON);
}

#[tokio::test]
async fn the_program_loads_its_file_again() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let service = Service::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kong.yml");
    std::fs::write(
        &file,
        yaml(service.address, "  routes: [{name: r, paths: [/a]}]\n"),
    )
    .unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_gateway"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
            "--filters",
            ".",
        ])
        .args(["--status", "127.0.0.1:0", "--config"])
        .arg(&file)
        .env("RUST_LOG", "info")
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut line = async |word: &str| loop {
        let line = lines
            .next_line()
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("no {word}"));
        if line.contains(word) {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            return value["fields"].clone();
        }
    };
    let address = |fields: &serde_json::Value| -> SocketAddr {
        fields["address"].as_str().unwrap().parse().unwrap()
    };
    let gateway = address(&line("gateway listens").await);
    let status = address(&line("metrics at").await);
    let ask = async |address: SocketAddr, path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        Answer::read(&all)
    };
    let pid = pid_of(&child);
    let hang_up = || {
        std::process::Command::new("kill")
            .args(["-HUP", &pid])
            .status()
    };
    assert_eq!(ask(gateway, "/a").await.status, 200);
    assert_eq!(ask(gateway, "/b").await.status, 404);
    std::fs::write(&file, "rubbish: [").unwrap();
    hang_up().unwrap();
    line("configuration not loaded").await;
    assert_eq!(ask(gateway, "/a").await.status, 200);
    std::fs::write(
        &file,
        yaml(service.address, "  routes: [{name: r, paths: [/b]}]\n"),
    )
    .unwrap();
    hang_up().unwrap();
    line("configuration loaded").await;
    assert_eq!(ask(gateway, "/b").await.status, 200);
    assert_eq!(ask(gateway, "/a").await.status, 404);
    let metrics = ask(status, "/metrics").await;
    assert!(
        metrics
            .body
            .contains("gateway_reloads_total{outcome=\"loaded\"} 1"),
        "{}",
        metrics.body
    );
    assert_eq!(ask(status, "/status").await.status, 200);
    assert_eq!(ask(status, "/other").await.status, 404);
    std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .unwrap();
    assert!(child.wait().await.unwrap().success());
}

fn pid_of(child: &tokio::process::Child) -> String {
    child.id().unwrap().to_string()
}

/// A header map as the ABI packs it, in the escapes of the text format.
fn packed(pairs: &[(&str, &str)]) -> (String, usize) {
    let word = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let mut bytes = word(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(word(name.len()));
        bytes.extend(word(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend(format!("{name}\0{value}\0").bytes());
    }
    let text = bytes.iter().map(|b| format!("\\{b:02x}")).collect();
    (text, bytes.len())
}

#[tokio::test]
async fn filters_know_what_they_asked_for_before_requests_meet_them() {
    let (service, told) = tokio::join!(Service::start(), Service::start());
    let authority = told.address.to_string();
    let (head, length) = packed(&[(":method", "GET"), (":path", "/what"), (":authority", "a")]);
    // Asks on its tick, which by itself comes after a minute, and traps on requests until it knows.
    let asking = module(
        &("(global $known (mut i32) (i32.const 0)) \
           (func (export \"proxy_on_configure\") (param i32 i32) (result i32) \
           (drop (call $tick (i32.const 60000))) (i32.const 1)) \
           (func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32) \
           (global.set $known (i32.const 1)))"
            .to_owned()
            + &format!(
                "(data (i32.const 100) \"{authority}\") (data (i32.const 200) \"{head}\") \
                 (func (export \"proxy_on_tick\") (param i32) (drop (call $http_call (i32.const 100) \
                 (i32.const {}) (i32.const 200) (i32.const {length}) (i32.const 0) (i32.const 0) \
                 (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 1000))))",
                authority.len()
            )
            + &on(
                CALLBACKS[0],
                "(if (i32.eqz (global.get $known)) (then unreachable)) (i32.const 0)",
            )),
    )
    .replace(
        "(memory (export",
        "(import \"env\" \"proxy_http_call\" (func $http_call \
         (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))\n(memory (export",
    );
    let chain = "filter_chains: [{service: s, filters: [{name: f}]}]\n";
    let gateway = Setup::new(service.address, ROUTES)
        .with_modules(&[("f", &asking)])
        .start()
        .await;
    let text = yaml(service.address, &(ROUTES.to_owned() + chain));
    gateway.reload(&text).await.unwrap();
    assert_eq!(told.only().target, "/what");
    assert_eq!(gateway.get("/", "").await.status, 200);
    // Who does not answer holds up nothing for long: what comes late comes late.
    drop(told);
    gateway.reload(&text).await.unwrap();
}
