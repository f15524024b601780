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

fn ceilings(above: AboveCeiling) -> Policy {
    let mut config = config();
    config.priority = Some(crate::config::Ceilings {
        ceilings: vec![
            Ceiling {
                max: 3,
                scopes: Vec::new(),
                claims: [("tier".to_owned(), "free".to_owned())].into(),
            },
            Ceiling {
                max: 10,
                scopes: vec!["urgent".to_owned()],
                claims: Default::default(),
            },
        ],
        otherwise: 7,
        above,
    });
    compile(&config).unwrap()
}

#[test]
fn priorities_are_lowered() {
    let policy = ceilings(AboveCeiling::Lower);
    for (scope, tier, body, expected) in [
        ("", "paid", r#"{"task":"a","priority":7}"#, None),
        ("", "paid", r#"{"task":"a"}"#, None),
        (
            "",
            "paid",
            r#"{"task":"a","priority":10}"#,
            Some(r#"{"task":"a","priority": 7}"#),
        ),
        ("urgent", "paid", r#"{"task":"a","priority":10}"#, None),
        // The first that is about the caller counts.
        (
            "urgent",
            "free",
            r#"{"task":"a","priority":9}"#,
            Some(r#"{"task":"a","priority":3}"#),
        ),
        ("", "free", r#"{"task":"a","priority":3}"#, None),
        (
            "",
            "free",
            r#"{"task":"a"}"#,
            Some(r#"{"priority":3,"task":"a"}"#),
        ),
        (
            "",
            "free",
            r#"{"priority":null,"task":"a"}"#,
            Some(r#"{"priority":   3,"task":"a"}"#),
        ),
    ] {
        let host = calling(scope, &[("tier", tier)]);
        let (set, reason) = task(&policy, body, &host).unwrap();
        assert_eq!(set.as_deref(), expected, "{scope} {tier} {body}");
        assert_eq!(
            reason,
            if expected.is_some() {
                "lowered"
            } else {
                "admitted"
            }
        );
    }
}

#[test]
fn or_tasks_above_them_are_refused() {
    let policy = ceilings(AboveCeiling::Refuse);
    let free = calling("", &[("tier", "free")]);
    assert!(task(&policy, r#"{"task":"a","priority":3}"#, &free).is_ok());
    for body in [r#"{"task":"a","priority":4}"#, r#"{"task":"a"}"#] {
        let refusal = task(&policy, body, &free).unwrap_err();
        assert_eq!(kind(&refusal), (403, "priority-not-allowed".to_owned()));
    }
    assert!(task(&policy, r#"{"task":"a"}"#, &host()).is_ok());
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

#[test]
fn it_asks_the_orchestrator() {
    let mut config = config();
    assert_eq!(compile(&config).unwrap().tick_ms(), None);
    assert_eq!(compile(&config).unwrap().tick(&host()), []);
    config.load = Some(Load {
        host: "orchestrator".to_owned(),
        token: "s3cret".to_owned(),
        ..load()
    });
    let policy = compile(&config).unwrap();
    assert_eq!(policy.tick_ms(), Some(2_000));
    let [asked] = policy.tick(&host()).try_into().unwrap();
    assert_eq!((asked.method, asked.path.as_str()), ("GET", load::PATH));
    assert_eq!(asked.authority, "127.0.0.1:8589");
    assert!(
        asked
            .headers
            .contains(&("authorization", "Bearer s3cret".to_owned()))
    );
    assert!(asked.headers.contains(&("host", "orchestrator".to_owned())));
    assert!(!format!("{policy:?} {config:?}").contains("s3cret"));
}

#[test]
fn what_could_not_begin_in_time_is_refused() {
    let policy = knowing(WhenStale::Pass);
    let host = host();
    answered(&policy, 200, busy(), &host);
    let ask = |priority: u8, timeout: u32| {
        let body = format!(r#"{{"task":"a","priority":{priority},"timeout":{timeout}}}"#);
        task(&policy, &body, &host)
    };
    assert_eq!(ask(10, 60).unwrap().1, "admitted");
    let refusal = ask(10, 50).unwrap_err();
    assert_eq!(
        kind(&refusal),
        (503, "temporary-reduced-capacity".to_owned())
    );
    assert_eq!(retry_after(&refusal), Some("10"));
    assert_eq!(refusal.reason, "no_capacity");
    assert!(ask(5, 110).is_ok());
    assert_eq!(retry_after(&ask(4, 110).unwrap_err()), Some("10"));
}

#[test]
fn a_lowered_priority_is_the_one_that_counts() {
    let mut config = config();
    config.load = Some(load());
    config.priority = Some(crate::config::Ceilings {
        ceilings: Vec::new(),
        otherwise: 4,
        above: AboveCeiling::Lower,
    });
    let policy = compile(&config).unwrap();
    let host = host();
    answered(&policy, 200, busy(), &host);
    let body = r#"{"task":"a","priority":10,"timeout":110}"#;
    assert_eq!(task(&policy, body, &host).unwrap_err().status, 503);
    let body = r#"{"task":"a","priority":10,"timeout":132}"#;
    let expected = Some(r#"{"task":"a","priority": 4,"timeout":132}"#.to_owned());
    assert_eq!(task(&policy, body, &host), Ok((expected, "lowered")));
}

#[test]
fn stale_knowledge_passes_or_refuses() {
    let hopeless = r#"{"task":"a","timeout":1}"#;
    for (when_stale, stale) in [
        (WhenStale::Pass, Ok("stale_passed")),
        (WhenStale::Refuse, Err("stale_refused")),
    ] {
        let policy = knowing(when_stale);
        let mut host = host();
        let ask = |host: &MemoryHost| {
            let found = task(&policy, hopeless, host);
            found.map(|(_, reason)| reason).map_err(|refusal| {
                assert_eq!(refusal.status, 503);
                assert!(retry_after(&refusal).is_some());
                refusal.reason
            })
        };
        assert_eq!(ask(&host), stale, "nothing is known yet");
        for (status, body) in [(500, busy()), (200, b"{".to_vec()), (204, Vec::new())] {
            answered(&policy, status, body, &host);
            assert_eq!(ask(&host), stale, "that was no answer");
        }
        policy.fetched(
            2,
            Fetched::Answer {
                status: 200,
                body: busy(),
            },
            &host,
        );
        assert_eq!(ask(&host), stale, "nobody asked");
        answered(&policy, 200, busy(), &host);
        assert_eq!(ask(&host), Err("no_capacity"));
        host.set_now_ns((NOW_MS + 10_000) * 1_000_000);
        policy.fetched(1, Fetched::Failed, &host);
        assert_eq!(ask(&host), Err("no_capacity"), "five intervals");
        host.set_now_ns((NOW_MS + 10_001) * 1_000_000);
        assert_eq!(ask(&host), stale);
        answered(&policy, 200, busy(), &host);
        assert_eq!(ask(&host), Err("no_capacity"));
    }
}

#[test]
fn faults_are_named_by_path() {
    let faults = |change: &dyn Fn(&mut TaskAdmission)| -> Vec<String> {
        let mut config = config();
        change(&mut config);
        let faults = compile(&config).unwrap_err();
        faults.into_iter().map(|fault| fault.path).collect()
    };
    let rule = |types: &[&str], scopes: &[&str]| TaskTypes {
        types: types.iter().map(ToString::to_string).collect(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
    };
    let ceiling = |max: u8, scope: &str| Ceiling {
        max,
        scopes: vec![scope.to_owned()],
        claims: Default::default(),
    };
    let ceilings = |ceilings: Vec<Ceiling>, otherwise: u8| {
        Some(crate::config::Ceilings {
            ceilings,
            otherwise,
            above: AboveCeiling::Lower,
        })
    };
    assert_eq!(faults(&|c| c.max_body_bytes = 0), ["max_body_bytes"]);
    assert_eq!(
        faults(&|c| c.max_body_bytes = MAX_BODY + 1),
        ["max_body_bytes"]
    );
    assert_eq!(faults(&|c| c.max_depth = 0), ["max_depth"]);
    assert_eq!(faults(&|c| c.max_depth = 128), ["max_depth"]);
    assert_eq!(faults(&|c| c.timeout.min_s = 0), ["timeout.min_s"]);
    assert_eq!(faults(&|c| c.timeout.max_s = 86_401), ["timeout.max_s"]);
    assert_eq!(
        faults(&|c| c.timeout = TimeoutBounds { min_s: 2, max_s: 1 }),
        ["timeout.max_s"]
    );
    assert_eq!(
        faults(&|c| c.task_types = vec![rule(&["a"], &[]); 65]),
        ["task_types"]
    );
    assert_eq!(
        faults(&|c| c.task_types = vec![rule(&[], &[])]),
        ["task_types[0].types"]
    );
    assert_eq!(
        faults(&|c| c.task_types = vec![rule(&["a", "a b", "a"], &["x y", ""])]),
        [
            "task_types[0].types[1]",
            "task_types[0].types[2]",
            "task_types[0].scopes[0]",
            "task_types[0].scopes[1]"
        ]
    );
    assert_eq!(
        faults(&|c| c.priority = ceilings(vec![], 11)),
        ["priority.otherwise"]
    );
    assert_eq!(
        faults(&|c| c.priority = ceilings(vec![ceiling(11, "a")], 1)),
        ["priority.ceilings[0].max"]
    );
    assert_eq!(
        faults(&|c| c.priority = ceilings(
            vec![Ceiling {
                scopes: vec![],
                ..ceiling(1, "")
            }],
            1
        )),
        ["priority.ceilings[0]"]
    );
    assert_eq!(
        faults(&|c| c.priority = ceilings(vec![ceiling(1, "a"); 65], 1)),
        ["priority.ceilings"]
    );
    assert_eq!(
        faults(&|c| {
            c.load = Some(Load {
                authority: "localhost:1".to_owned(),
                host: "a b".to_owned(),
                token: "x\r\ny".to_owned(),
                interval_ms: 0,
                stale_after: 0,
                when_stale: WhenStale::Pass,
            });
        }),
        [
            "load.authority",
            "load.host",
            "load.token",
            "load.interval_ms",
            "load.stale_after"
        ]
    );
}

#[test]
fn configurations_are_read_strictly() {
    let load = crate::filter::load::<Policy>;
    assert!(load(b"{}").is_ok());
    for (json, path) in [
        (r#"{"max_deepth":3}"#, "config"),
        (r#"{"load":{}}"#, "config"),
        (
            r#"{"load":{"authority":"127.0.0.1:1","token":7}}"#,
            "config",
        ),
        (r#"{"priority":{"above":"raise"}}"#, "config"),
        (r#"[]"#, "config"),
        ("", "config"),
    ] {
        let faults = load(json.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(faults[0].path, path, "{json}");
    }
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
