//! Which tasks enter: their shape, type, priority and time, and whether there is room.

mod busy;
mod ceilings;
mod configs;

use super::*;
use crate::Caller;
use crate::config::{Ceiling, Load, TaskTypes};
use crate::decision::FOUND_CALLER;
use crate::host::MemoryHost;
use crate::request::MemoryHead;
use mesh_protocol::Timestamp;
use mesh_protocol::load::{self, AgentLoad, Loads};
use mesh_protocol::problem::Problem;
use mesh_protocol::task::TaskRequest;
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;
const TASK: &str = r#"{"task_type":"report","payload":{"a":1},"priority":8,"timeout":60}"#;

fn config() -> TaskAdmission {
    serde_json::from_str("{}").unwrap()
}

fn load() -> Load {
    serde_json::from_str(r#"{"authority":"127.0.0.1:8589"}"#).unwrap()
}

fn host() -> MemoryHost {
    MemoryHost::at(Timestamp::from_millis(NOW_MS))
}

fn calling(scope: &str, claims: &[(&str, &str)]) -> MemoryHost {
    let caller = Caller {
        sub: "alice".to_owned(),
        origin: "https://issuer.example".to_owned(),
        scope: scope.to_owned(),
        claims: claims
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let host = host();
    host.leave(FOUND_CALLER, serde_json::to_vec(&caller).unwrap());
    host
}

fn post() -> MemoryHead {
    MemoryHead::new("POST", "/ai/orchestrate").with("content-type", "application/json")
}

/// Asks by head, and by body if one is wanted; what was set in place of the body, and why.
fn ask(
    policy: &Policy,
    head: &MemoryHead,
    body: Option<&[u8]>,
    host: &MemoryHost,
) -> Result<(Option<String>, &'static str), Refusal> {
    let mut request = Request::default();
    let pass = match policy.decide(&mut request, head, host) {
        Decision::Refuse(refusal) => return Err(refusal),
        Decision::Pass(pass) => pass,
    };
    if !policy.wants_body(&request) {
        return Ok((None, pass.reason));
    }
    match policy.decide_body(&mut request, body, host) {
        Decision::Refuse(refusal) => Err(refusal),
        Decision::Pass(pass) => {
            let set = pass.set_body.map(|body| String::from_utf8(body).unwrap());
            Ok((set, pass.reason))
        }
    }
}

fn task(
    policy: &Policy,
    body: &str,
    host: &MemoryHost,
) -> Result<(Option<String>, &'static str), Refusal> {
    ask(policy, &post(), Some(body.as_bytes()), host)
}

fn kind(refusal: &Refusal) -> (u16, String) {
    let problem: Problem = serde_json::from_slice(&refusal.body).unwrap();
    assert_eq!(problem.status, refusal.status);
    assert_eq!(
        refusal.headers.first(),
        Some(&("content-type", "application/problem+json".to_owned()))
    );
    let name = problem.kind.rsplit([':', '#']).next().unwrap_or_default();
    (refusal.status, name.to_owned())
}

fn retry_after(refusal: &Refusal) -> Option<&str> {
    let header = refusal
        .headers
        .iter()
        .find(|(name, _)| *name == "retry-after");
    header.map(|(_, value)| value.as_str())
}

#[test]
fn a_head_decides_what_it_can() {
    let policy = compile(&config()).unwrap();
    for (head, expected) in [
        (MemoryHead::new("GET", "/"), Ok("not_a_task")),
        (MemoryHead::new("DELETE", "/task/1"), Ok("not_a_task")),
        (MemoryHead::new("post", "/"), Ok("not_a_task")),
        (post(), Ok("admitted")),
        (post().with("content-length", "2"), Ok("admitted")),
        (
            MemoryHead::new("POST", "/"),
            Err((415, "unsupported-media-type")),
        ),
        (
            post().with("content-type", "application/json"),
            Err((415, "unsupported-media-type")),
        ),
        (post().with("content-length", "0"), Err((400, "not-json"))),
        (post().with("content-length", "1048576"), Ok("admitted")),
        (
            post().with("content-length", "1048577"),
            Err((413, "body-too-large")),
        ),
        (
            post().with("content-length", "-1"),
            Err((413, "body-too-large")),
        ),
        (
            post().with("content-length", "2,2"),
            Err((413, "body-too-large")),
        ),
        (
            post().with("content-length", "18446744073709551616"),
            Err((413, "body-too-large")),
        ),
    ] {
        let found = ask(&policy, &head, Some(TASK.as_bytes()), &host());
        let found = found.map(|(_, reason)| reason).map_err(|r| kind(&r));
        let expected = expected.map_err(|(status, name)| (status, name.to_owned()));
        assert_eq!(found, expected, "{head:?}");
    }
}

#[test]
fn media_types_are_json_or_are_refused() {
    for (value, is) in [
        ("application/json", true),
        ("Application/JSON", true),
        ("application/json; charset=utf-8", true),
        ("application/json ;x", true),
        ("application/vnd.mesh.task+json", true),
        ("application/problem+json", true),
        ("application/+json", false),
        ("application/json,text/plain", false),
        ("application/jsonx", false),
        ("text/json", false),
        ("application/x-www-form-urlencoded", false),
        ("multipart/form-data; boundary=application/json", false),
        ("", false),
        ("application/a b+json", false),
    ] {
        assert_eq!(is_json(value.as_bytes()), is, "{value}");
    }
    assert!(!is_json(b"application/json\xff"));
}

#[test]
fn bodies_are_tasks_or_are_refused() {
    let mut small = config();
    small.max_body_bytes = 100;
    small.max_depth = 3;
    let policy = compile(&small).unwrap();
    let ask = |body: Option<&[u8]>| {
        let asked = super::tests::ask(&policy, &post(), body, &host());
        asked.map(|_| ()).map_err(|refusal| kind(&refusal))
    };
    let refused = |status, name: &str| Err((status, name.to_owned()));
    assert_eq!(ask(Some(TASK.as_bytes())), Ok(()));
    assert_eq!(ask(None), refused(413, "body-too-large"));
    assert_eq!(ask(Some(&[b' '; 101])), refused(413, "body-too-large"));
    assert_eq!(ask(Some(b"")), refused(400, "not-json"));
    assert_eq!(ask(Some(b"{")), refused(400, "not-json"));
    assert_eq!(ask(Some(b"{}")), refused(422, "wrong-fields"));
    assert_eq!(
        ask(Some(br#"{"task":"a","payload":{"a":[[]]}}"#)),
        refused(400, "not-json")
    );
    assert_eq!(
        ask(Some(br#"{"task":"a","task":"a"}"#)),
        refused(400, "not-json")
    );
}

#[test]
fn types_are_for_those_who_may() {
    let mut config = config();
    let allowed = |types: &[&str], scopes: &[&str]| TaskTypes {
        types: types.iter().map(ToString::to_string).collect(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
    };
    config.task_types = vec![
        allowed(&["report", "status"], &[]),
        allowed(&["deploy"], &["ops", "write"]),
        allowed(&["*"], &["admin"]),
    ];
    let policy = compile(&config).unwrap();
    for (scope, task_type, passes) in [
        ("", "report", true),
        ("", "deploy", false),
        ("ops", "deploy", false),
        ("write", "deploy", false),
        ("write x ops", "deploy", true),
        ("opswrite", "deploy", false),
        ("admin", "deploy", true),
        ("admin", "anything", true),
        ("ops write", "anything", false),
        ("", "*", false),
    ] {
        let body = format!(r#"{{"task":"{task_type}"}}"#);
        let found = task(&policy, &body, &calling(scope, &[]));
        assert_eq!(found.is_ok(), passes, "{scope} {task_type}");
        if let Err(refusal) = found
            && task_type != "*"
        {
            assert_eq!(kind(&refusal), (403, "task-type-not-allowed".to_owned()));
        }
    }
    // Nobody is known.
    assert!(task(&policy, r#"{"task":"report"}"#, &host()).is_ok());
    assert_eq!(
        task(&policy, r#"{"task":"deploy"}"#, &host())
            .unwrap_err()
            .status,
        403
    );
    let broken = host();
    broken.leave(FOUND_CALLER, "{");
    assert_eq!(
        task(&policy, r#"{"task":"deploy"}"#, &broken)
            .unwrap_err()
            .status,
        403
    );
}

#[test]
fn timeouts_are_within_bounds() {
    let mut config = config();
    config.timeout = TimeoutBounds {
        min_s: 5,
        max_s: 299,
    };
    let policy = compile(&config).unwrap();
    for (timeout, passes) in [
        ("5", true),
        ("299", true),
        ("4", false),
        ("300", false),
        ("null", false),
    ] {
        let found = task(
            &policy,
            &format!(r#"{{"task":"a","timeout":{timeout}}}"#),
            &host(),
        );
        assert_eq!(found.is_ok(), passes, "{timeout}");
        if let Err(refusal) = found {
            assert_eq!(kind(&refusal), (422, "wrong-fields".to_owned()));
            assert_eq!(refusal.reason, "timeout");
        }
    }
}

/// One agent that is 60 s behind.
fn busy() -> Vec<u8> {
    let load = AgentLoad {
        consumers: 1,
        depth: 60,
        oldest_ms: 0,
        rate_per_s: Some(1.0),
    };
    let loads = Loads {
        agents: [("general-agent".to_owned(), load)].into(),
        general_agent: Some("general-agent".to_owned()),
        ..Loads::default()
    };
    serde_json::to_vec(&loads).unwrap()
}

fn answered(policy: &Policy, status: u16, body: Vec<u8>, host: &MemoryHost) {
    let [asked] = policy.tick(host).try_into().unwrap();
    policy.fetched(asked.id, Fetched::Answer { status, body }, host);
}

fn knowing(when_stale: WhenStale) -> Policy {
    let mut config = config();
    config.load = Some(Load {
        when_stale,
        ..load()
    });
    compile(&config).unwrap()
}

proptest! {
    /// What passes is a task for the orchestrator, with the priority that is allowed.
    #[test]
    fn what_passes_is_a_task(
        name in "[a-z]{1,4}",
        priority in prop_oneof![Just(String::new()), Just("null".to_owned()), (0..12_u8).prop_map(|n| n.to_string())],
        ceiling in 0..=10_u8,
        space in "[ \n]{0,3}",
        junk in prop::collection::vec(any::<u8>(), 0..64),
        methods in "[A-Z]{1,5}|POST",
    ) {
        let mut config = config();
        config.priority = Some(crate::config::Ceilings {
            ceilings: Vec::new(),
            otherwise: ceiling,
            above: AboveCeiling::Lower,
        });
        let policy = compile(&config).unwrap();
        let said = if priority.is_empty() { String::new() } else { format!(r#""priority":{space}{priority},"#) };
        let body = format!(r#"{space}{{{space}{said}"task":"{name}"}}"#);
        if let Ok((set, _)) = task(&policy, &body, &host()) {
            let length = set.as_ref().map(String::len);
            let sent = set.unwrap_or_else(|| body.clone());
            let read = TaskRequest::from_json(sent.as_bytes()).unwrap();
            assert!(read.priority <= ceiling);
            assert_eq!(read.task_type, name);
            // Only a body that says no priority grows.
            assert!(said.is_empty() || length.is_none_or(|length| length == body.len()));
        } else {
            assert_eq!(priority, "11");
        }
        let head = MemoryHead::new(&methods, "/").with("content-type", junk.clone()).with("content-length", junk.clone());
        let _ = ask(&policy, &head, Some(&junk), &host());
        let _ = ask(&policy, &post(), Some(&junk), &host());
        answered(&policy_knowing(), 200, junk, &host());
    }
}

fn policy_knowing() -> Policy {
    knowing(WhenStale::Refuse)
}
