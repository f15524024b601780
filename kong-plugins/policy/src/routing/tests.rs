//! Which agent a request is sent to, and which requests are sent nowhere.

mod configs;

use super::*;
use crate::Caller;
use crate::decision::FOUND_CALLER;
use crate::host::MemoryHost;
use crate::request::MemoryHead;
use mesh_protocol::Timestamp;
use mesh_protocol::load::{AgentLoad, Loads};
use mesh_protocol::problem::Problem;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW_MS: u64 = 1_700_000_000_000;

const AGENTS: &str = r#"[
  {"id": "hardware-optimizer", "capabilities": ["hardware"], "aliases": ["hw", "HW.v2"]},
  {"id": "code-generator", "capabilities": ["code", "text"]},
  {"id": "qa-validator", "capabilities": ["code"]},
  {"id": "general-agent"}
]"#;

const RULES: &str = r#"[
  {"match": {"path": {"exact": "/canary"}}, "to": {"weighted": {"agents": {"code-generator": 95, "qa-validator": 5}, "sticky": "consumer"}}},
  {"match": {"path": {"prefix": "/pair/"}, "headers": [{"name": "x-session"}]},
   "to": {"weighted": {"agents": {"code-generator": 1, "qa-validator": 1}, "sticky": {"header": "x-session"}}}},
  {"match": {"path": {"prefix": "/any"}}, "to": {"weighted": {"agents": {"code-generator": 1, "qa-validator": 1, "general-agent": 0}}}},
  {"match": {"headers": [{"name": "x-pin", "value": "hw"}], "scopes": ["ops"]}, "to": {"agent": "hardware_optimizer"}},
  {"match": {"claims": {"tier": "free"}, "path": {"prefix": "/ai"}}, "to": {"agent": "general-agent"}},
  {"to": {"named": {"prefix": "/agents/"}}},
  {"match": {"path": {"exact": "/named"}}, "to": {"named": {"header": "x-agent"}}},
  {"to": {"capability": {"prefix": "/can/"}}},
  {"match": {"path": {"exact": "/do"}}, "to": {"capability": {"header": "x-capability"}}},
  {"match": {"path": {"prefix": "/ai"}, "task_types": ["code_generation"]}, "to": {"agent": "code-generator"}},
  {"match": {"path": {"prefix": "/ai"}, "task_types": ["qa", "test"]}, "to": {"agent": "qa-validator"}},
  {"match": {"path": {"prefix": "/ai"}}, "to": {"agent": "general-agent"}},
  {"match": {"path": {"exact": "/tasks"}, "task_types": ["qa"]}, "to": {"agent": "qa-validator"}}
]"#;

fn config(agents: &str, rules: &str, more: &str) -> AgentRouter {
    serde_json::from_str(&format!(r#"{{"agents":{agents},"rules":{rules}{more}}}"#)).unwrap()
}

fn policy(more: &str) -> Policy {
    compile(&config(AGENTS, RULES, more)).unwrap()
}

fn host() -> MemoryHost {
    MemoryHost::at(Timestamp::from_millis(NOW_MS))
}

fn calling(sub: &str, scope: &str, tier: &str) -> MemoryHost {
    let host = host();
    let caller = Caller {
        sub: sub.to_owned(),
        origin: "https://issuer.example".to_owned(),
        scope: scope.to_owned(),
        claims: [("tier".to_owned(), tier.to_owned())].into(),
    };
    host.leave(FOUND_CALLER, serde_json::to_vec(&caller).unwrap());
    host
}

fn get(path: &str) -> MemoryHead {
    MemoryHead::new("GET", path)
}

/// Where a request goes: the agent and why, or the status and kind of the refusal.
fn ask(
    policy: &Policy,
    head: &MemoryHead,
    body: Option<&[u8]>,
    host: &MemoryHost,
) -> Result<(String, &'static str), (u16, String)> {
    let mut request = Request::default();
    let mut decision = policy.decide(&mut request, head, host);
    if policy.wants_body(&request) {
        assert_eq!(decision, Decision::Pass(Pass::because("awaits_body")));
        decision = policy.decide_body(&mut request, body, host);
    }
    match decision {
        Decision::Pass(pass) => {
            assert_eq!(pass.set_body, None);
            let named = pass.set_headers.first().map(|(name, id)| {
                assert_eq!(*name, "x-mesh-agent");
                assert_eq!(pass.leave, [("mesh_agent", id.clone().into_bytes())]);
                id.clone()
            });
            Ok((named.unwrap_or_default(), pass.reason))
        }
        Decision::Refuse(refusal) => {
            let problem: Problem = serde_json::from_slice(&refusal.body).unwrap();
            let waits = refusal
                .headers
                .iter()
                .any(|(name, _)| *name == "retry-after");
            assert_eq!(waits, refusal.status == 503);
            let name = problem.kind.rsplit(':').next().unwrap_or_default();
            Err((refusal.status, name.to_owned()))
        }
    }
}

fn agent(policy: &Policy, head: &MemoryHead, host: &MemoryHost) -> String {
    match ask(policy, head, Some(b""), host) {
        Ok((agent, _)) => agent,
        Err((_, kind)) => kind,
    }
}

#[test]
fn the_path_names_the_agent() {
    let policy = policy("");
    for (path, expected) in [
        ("/agents/hardware-optimizer", "hardware-optimizer"),
        ("/agents/hardware_optimizer/process", "hardware-optimizer"),
        ("/agents/hw", "hardware-optimizer"),
        ("/agents/HW.v2/x?y=/z", "hardware-optimizer"),
        ("/agents/general-agent?x", "general-agent"),
        ("/agents/hw.v2", "unknown-agent"),
        ("/agents/Hardware-Optimizer", "unknown-agent"),
        ("/agents/", "unknown-agent"),
        ("/agents//hw", "hardware-optimizer"),
        ("/x/../agents/./hw", "hardware-optimizer"),
        ("/agents/../hw", "unknown-agent"),
        ("/agents/hardware%2Doptimizer", "hardware-optimizer"),
        ("/agents/h%77", "hardware-optimizer"),
        ("/agents/hw%2Fx", "unknown-agent"),
        ("/agents/hw%zz", "unknown-agent"),
        ("/agents/nobody", "unknown-agent"),
        ("/agents", "unknown-agent"),
        ("/agentsx/hw", "unknown-agent"),
        ("/x/agents/hw", "unknown-agent"),
    ] {
        assert_eq!(agent(&policy, &get(path), &host()), expected, "{path}");
    }
    let long = format!("/agents/{}", "a".repeat(10_000));
    assert_eq!(agent(&policy, &get(&long), &host()), "unknown-agent");
    let mut head = get("/named").with("x-agent", "qa_validator");
    assert_eq!(agent(&policy, &head, &host()), "qa-validator");
    head = head.with("x-agent", "hw");
    assert_eq!(agent(&policy, &head, &host()), "unknown-agent", "two names");
    let head = get("/named").with("x-agent", &b"\xff"[..]);
    assert_eq!(agent(&policy, &head, &host()), "unknown-agent");
    assert_eq!(
        ask(&policy, &get("/named"), None, &host()),
        Err((404, "unknown-agent".into())),
        "no rule"
    );
}

#[test]
fn capabilities_are_of_agents() {
    let policy = policy("");
    for (head, expected) in [
        (get("/can/hardware/x"), "hardware-optimizer"),
        (get("/can/text"), "code-generator"),
        (get("/can/cook"), "unknown-capability"),
        (get("/can/"), "unknown-capability"),
        (get("/do").with("x-capability", "text"), "code-generator"),
        (get("/do").with("x-capability", ""), "unknown-capability"),
        (get("/do"), "unknown-agent"),
    ] {
        assert_eq!(agent(&policy, &head, &host()), expected, "{head:?}");
    }
    let mut host = host();
    let mut agents = BTreeMap::new();
    for number in 0..1_000 {
        host.set_now_ns(NOW_MS * 1_000_000 + number);
        let chosen = agent(&policy, &get("/can/code"), &host);
        *agents.entry(chosen).or_insert(0) += 1;
    }
    assert_eq!(agents.len(), 2);
    assert!(agents.values().all(|share| *share > 400), "{agents:?}");
}

#[test]
fn the_first_rule_that_holds_decides() {
    let policy = policy("");
    let ops = calling("a", "ops", "paid");
    for (head, host, expected) in [
        (get("/ai").with("x-pin", "hw"), &ops, "hardware-optimizer"),
        (get("/ai").with("x-pin", "HW"), &ops, "general-agent"),
        (
            get("/ai").with("x-pin", "hw").with("x-pin", "hw"),
            &ops,
            "general-agent",
        ),
        (get("/ai").with("x-pin", "hw"), &host(), "general-agent"),
        (get("/ai/x"), &calling("a", "", "free"), "general-agent"),
        (get("/aix"), &ops, "unknown-agent"),
        (get("/"), &ops, "unknown-agent"),
        (get("/pair/1").with("x-session", ""), &ops, "code-generator"),
        (get("/pair/1"), &ops, "unknown-agent"),
        (get("/pair"), &ops, "unknown-agent"),
    ] {
        assert_eq!(agent(&policy, &head, host), expected, "{head:?}");
    }
    let pass = self::policy(r#","otherwise":"pass""#);
    assert_eq!(
        ask(&pass, &get("/"), None, &host()),
        Ok((String::new(), "no_rule"))
    );
}

#[test]
fn task_types_are_read_of_bodies() {
    let policy = policy("");
    let post = |path: &str, body: &[u8]| {
        let head = MemoryHead::new("POST", path);
        ask(&policy, &head, Some(body), &host()).map_or_else(|(_, kind)| kind, |(agent, _)| agent)
    };
    for (path, body, expected) in [
        (
            "/ai",
            &br#"{"task":"code_generation"}"#[..],
            "code-generator",
        ),
        ("/ai/x", br#"{"task_type":"test"}"#, "qa-validator"),
        ("/ai", br#"{"task_type":"other"}"#, "general-agent"),
        (
            "/ai",
            br#"{"task_type":"qa","task":"code_generation"}"#,
            "qa-validator",
        ),
        ("/ai", br#"{"task":"qa","task":"qa"}"#, "general-agent"),
        ("/ai", b"{", "general-agent"),
        ("/ai", b"", "general-agent"),
        ("/tasks", br#"{"task":"qa"}"#, "qa-validator"),
        ("/tasks", br#"{"task":"no"}"#, "unknown-agent"),
        ("/tasks", &[b'['; 10_000], "unknown-agent"),
    ] {
        let text = String::from_utf8_lossy(body);
        assert_eq!(post(path, body), expected, "{path} {text:.60}");
    }
    let head = MemoryHead::new("POST", "/ai");
    assert_eq!(
        ask(&policy, &head, None, &host()),
        Err((413, "body-too-large".into()))
    );
    // Of what cannot be a task the body is not waited for.
    let mut request = Request::default();
    for head in [MemoryHead::new("GET", "/ai"), MemoryHead::new("PUT", "/ai")] {
        let decision = policy.decide(&mut request, &head, &host());
        assert!(matches!(decision, Decision::Pass(pass) if pass.reason == "routed"));
        assert!(!policy.wants_body(&request));
    }
}

#[test]
fn canaries_hold_on_to_their_callers() {
    let policy = policy("");
    let mut canaries = 0;
    for number in 0..2_000 {
        let mut host = calling(&format!("caller-{number}"), "", "");
        let chosen = agent(&policy, &get("/canary"), &host);
        host.set_now_ns(number);
        assert_eq!(agent(&policy, &get("/canary"), &host), chosen);
        canaries += u32::from(chosen == "qa-validator");
    }
    assert!((60..=140).contains(&canaries), "{canaries}");
    // Of callers that nobody knows each request is on its own, and so without stickiness.
    for path in ["/canary", "/any"] {
        let mut host = host();
        let chosen: std::collections::BTreeSet<String> = (0..500)
            .map(|number| {
                host.set_now_ns(number);
                agent(&policy, &get(path), &host)
            })
            .collect();
        assert_eq!(chosen.len(), 2, "{path}");
    }
    let sessions: std::collections::BTreeSet<String> = (0..50)
        .map(|number| {
            let head = get("/pair/x").with("x-session", format!("{number}"));
            agent(&policy, &head, &host())
        })
        .collect();
    assert_eq!(sessions.len(), 2);
}

#[test]
fn nobody_says_the_agent_but_the_router() {
    let policy = policy("");
    for name in RESERVED_HEADERS.iter().filter(|n| n.ends_with("agent")) {
        let head = get("/agents/hw").with(name, "");
        assert_eq!(
            ask(&policy, &head, None, &host()),
            Err((400, "reserved-header".into()))
        );
    }
    // That one is the work of the filter before.
    let head = get("/agents/hw").with("x-mesh-assertion", "a");
    assert!(ask(&policy, &head, None, &host()).is_ok());
}

const LOAD: &str = r#","load":{"authority":"127.0.0.1:8589","interval_ms":1000,"stale_after":3"#;

fn know(policy: &Policy, host: &MemoryHost, consumers: &[(&str, u32)]) {
    let load = |consumers| AgentLoad {
        consumers,
        ..AgentLoad::default()
    };
    let loads = Loads {
        agents: consumers
            .iter()
            .map(|(id, consumers)| ((*id).to_owned(), load(*consumers)))
            .collect(),
        ..Loads::default()
    };
    let [asked] = policy.tick(host).try_into().unwrap();
    let body = serde_json::to_vec(&loads).unwrap();
    policy.fetched(asked.id, Fetched::Answer { status: 200, body }, host);
}

#[test]
fn whoever_is_not_there_gets_nothing() {
    let policy = policy(&format!("{LOAD}}}"));
    assert_eq!(policy.tick_ms(), Some(1_000));
    let mut host = host();
    let one = ask(&policy, &get("/agents/hw"), None, &host);
    assert_eq!(one, Ok(("hardware-optimizer".into(), "stale_passed")));
    know(
        &policy,
        &host,
        &[
            ("hardware-optimizer", 0),
            ("code-generator", 0),
            ("qa-validator", 1),
        ],
    );
    let gone = Err((503, "no-healthy-instance".into()));
    assert_eq!(ask(&policy, &get("/agents/hw"), None, &host), gone);
    assert_eq!(ask(&policy, &get("/can/hardware"), None, &host), gone);
    let head = MemoryHead::new("POST", "/ai");
    let body = br#"{"task":"code_generation"}"#;
    assert_eq!(ask(&policy, &head, Some(body), &host), gone);
    // Nobody heard of the general agent.
    assert_eq!(
        agent(&policy, &get("/agents/general-agent"), &host),
        "general-agent"
    );
    for number in 0..50 {
        host.set_now_ns(NOW_MS * 1_000_000 + number);
        assert_eq!(agent(&policy, &get("/any"), &host), "qa-validator");
        assert_eq!(agent(&policy, &get("/can/code"), &host), "qa-validator");
    }
    know(
        &policy,
        &host,
        &[("code-generator", 0), ("qa-validator", 0)],
    );
    // A weight of 0 takes nothing, whoever else is gone.
    assert_eq!(ask(&policy, &get("/any"), None, &host), gone);
    host.set_now_ns((NOW_MS + 3_001) * 1_000_000);
    let (_, reason) = ask(&policy, &get("/any"), None, &host).unwrap();
    assert_eq!(reason, "stale_passed");
}

#[test]
fn or_is_refused_while_nobody_knows() {
    let policy = policy(&format!(r#"{LOAD},"when_stale":"refuse"}}"#));
    let host = host();
    let refused = Err((503, "no-healthy-instance".into()));
    assert_eq!(ask(&policy, &get("/agents/hw"), None, &host), refused);
    // Whom nobody has needs no knowledge.
    assert_eq!(agent(&policy, &get("/agents/x"), &host), "unknown-agent");
    know(&policy, &host, &[]);
    let known = ask(&policy, &get("/agents/hw"), None, &host);
    assert_eq!(known, Ok(("hardware-optimizer".into(), "routed")));
}

proptest! {
    #[test]
    fn nothing_panics_and_only_declared_agents_are_named(
        method in prop_oneof![Just("POST".to_owned()), Just("GET".to_owned()), "[ -~]{0,4}"],
        path in prop_oneof![
            "/(agents|can|ai|any|canary|pair)(/[a-z%_.-]{0,8}){0,2}",
            "[\\PC]{0,40}",
        ],
        header in prop::collection::vec(any::<u8>(), 0..24),
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        now_ns in any::<u64>(),
    ) {
        let policy = policy(&format!("{LOAD}}}"));
        let mut host = host();
        know(&policy, &host, &[("code-generator", 0)]);
        host.set_now_ns(now_ns);
        let mut head = MemoryHead::new(&method, &path);
        for name in ["x-session", "x-agent", "x-capability", "x-pin", "content-length"] {
            head = head.with(name, header.clone());
        }
        if let Ok((agent, _)) = ask(&policy, &head, body.as_deref(), &host) {
            assert!(policy.agents.ids.iter().any(|id| id.as_str() == agent));
        }
    }
}
