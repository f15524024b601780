//! Task bodies: what is read of them is what the orchestrator reads, and what is refused.

use super::*;
use mesh_protocol::task::TaskRequest;
use proptest::prelude::*;

fn whole(text: &str) -> Result<Task, Fault> {
    read(text.as_bytes(), MAX_DEPTH)
}

fn codes(text: &str) -> Vec<(String, String)> {
    match whole(text) {
        Err(Fault::Fields(faults)) => faults.into_iter().map(|f| (f.field, f.code)).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

fn not_json(body: &[u8]) -> String {
    match read(body, MAX_DEPTH) {
        Err(Fault::NotJson(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

/// `depth` arrays within each other, in the payload of a task that has two levels itself.
fn nested(depth: usize) -> String {
    let (open, close) = ("[".repeat(depth), "]".repeat(depth));
    format!(r#"{{"task":"a","payload":{{"x":{open}{close}}}}}"#)
}

#[test]
fn a_task_is_read_where_it_is_one() {
    for (text, task_type, priority, at, timeout_s) in [
        (r#"{"task":"a"}"#, "a", 5, None, 300),
        (
            r#"{"task_type":"a.B_c-1","priority":0,"timeout":1}"#,
            "a.B_c-1",
            0,
            Some("0"),
            1,
        ),
        (
            r#"{"priority": 10 ,"timeout":86400,"task_type":"x","task":7}"#,
            "x",
            10,
            Some("10"),
            86_400,
        ),
        (
            r#"{"task_type":null,"task":"y","payload":null,"priority":null,"timeout":null}"#,
            "y",
            5,
            Some("null"),
            300,
        ),
        (r#" {"task":"\u0061\u002e"} "#, "a.", 5, None, 300),
        (
            r#"{"task":"z","payload":{"priority":1,"a":[{}],"b":"\ud83d\ude00"},"other":[1e308,-0.0,true]}"#,
            "z",
            5,
            None,
            300,
        ),
    ] {
        let task = whole(text).unwrap();
        let written = task.priority_at.clone().map(|at| &text[at]);
        assert_eq!(
            (
                task.task_type.as_str(),
                task.priority,
                written,
                task.timeout_s
            ),
            (task_type, priority, at, timeout_s),
            "{text}"
        );
    }
}

#[test]
fn every_wrong_field_is_named() {
    let wrong = |text: &str| -> Vec<String> {
        let codes = codes(text).into_iter();
        codes
            .map(|(field, code)| format!("{field} {code}"))
            .collect()
    };
    for (text, expected) in [
        ("{}", &["task_type missing"][..]),
        (r#"{"task_type":null}"#, &["task_type missing"]),
        ("[]", &[" wrong_type"]),
        ("null", &[" wrong_type"]),
        ("7", &[" wrong_type"]),
        ("\"a\"", &[" wrong_type"]),
        (
            r#"{"task":3,"payload":[],"priority":11,"timeout":0}"#,
            &[
                "task wrong_type",
                "payload wrong_type",
                "priority out_of_range",
                "timeout out_of_range",
            ],
        ),
        (r#"{"task_type":[],"task":"a"}"#, &["task_type wrong_type"]),
        (r#"{"task":"a","priority":5.0}"#, &["priority out_of_range"]),
        (r#"{"task":"a","priority":5e0}"#, &["priority out_of_range"]),
        (r#"{"task":"a","priority":-0}"#, &["priority out_of_range"]),
        (r#"{"task":"a","priority":-1}"#, &["priority out_of_range"]),
        (r#"{"task":"a","priority":"5"}"#, &["priority wrong_type"]),
        (r#"{"task":"a","priority":{}}"#, &["priority wrong_type"]),
        (
            r#"{"task":"a","timeout":18446744073709551616}"#,
            &["timeout out_of_range"],
        ),
        (r#"{"task":"a","timeout":86401}"#, &["timeout out_of_range"]),
        (r#"{"task":"a","timeout":true}"#, &["timeout wrong_type"]),
        (r#"{"task":"a","payload":""}"#, &["payload wrong_type"]),
        (r#"{"task":""}"#, &["task invalid"]),
        (r#"{"task":"a b"}"#, &["task invalid"]),
        (r#"{"task":"a\u0000"}"#, &["task invalid"]),
        (r#"{"task":"ä"}"#, &["task invalid"]),
    ] {
        assert_eq!(wrong(text), expected, "{text}");
    }
    let long = "x".repeat(129);
    assert_eq!(codes(&format!(r#"{{"task":"{long}"}}"#))[0].1, "invalid");
}

#[test]
fn what_is_no_json_is_said_in_words() {
    for (body, words) in [
        (&b""[..], "ends too early"),
        (b"   ", "ends too early"),
        (br#"{"task":"#, "ends too early"),
        (br#"{"task":"a","payload":{"x":[1,"#, "ends too early"),
        (br#"{"task":"a"} x"#, "not JSON"),
        (br#"{"task":"a",}"#, "not JSON"),
        (br#"{'task':'a'}"#, "not JSON"),
        (br#"{"task":"a","payload":{"x":1e400}}"#, "out of range"),
        (br#"{"task":"a","priority":1e400}"#, "out of range"),
        (br#"{"task":"a","payload":{"x":01}}"#, "not JSON"),
        (br#"{"task":"a","payload":{"x":NaN}}"#, "not JSON"),
        (br#"{"task":"a","payload":{"x":"\ud800"}}"#, "not JSON"),
        (b"{\"task\":\"a\",\"payload\":{\"x\":\"\xff\"}}", "not JSON"),
        (b"{\"task\":\"a\",\"\xff\":1}", "not JSON"),
        (b"\xef\xbb\xbf{\"task\":\"a\"}", "not JSON"),
        (b"{\"task\":\"a\nb\"}", "not JSON"),
        (br#"{"task":"a","task":"b"}"#, "twice"),
        (br#"{"task":"a","priority":1,"\u0070riority":10}"#, "twice"),
        (br#"{"task":"a","payload":{"x":1,"y":2,"x":1}}"#, "twice"),
        (br#"{"task":"a","payload":[{"x":{"b":0,"b":0}}]}"#, "twice"),
        (br#"{"task":"a","other":{"":1,"":1}}"#, "twice"),
        (
            br#"{"$serde_json::private::RawValue":"{\"task\":\"b\"}"}"#,
            "reserved",
        ),
        (
            br#"{"task":"a","payload":{"$serde_json::private::RawValue":"[]"}}"#,
            "reserved",
        ),
    ] {
        let detail = not_json(body);
        assert!(
            detail.contains(words),
            "{}: {detail}",
            String::from_utf8_lossy(body)
        );
        // Nothing of the body is repeated.
        assert!(!detail.contains("priv"), "{detail}");
    }
    // The same name in different objects is none twice.
    assert!(whole(r#"{"task":"a","payload":{"task":{"task":1},"b":[{"c":1},{"c":1}]}}"#).is_ok());
}

#[test]
fn nesting_is_bounded() {
    for depth in [126, 127, 10_000, 200_000] {
        assert!(not_json(nested(depth).as_bytes()).contains("too deep"));
        assert!(not_json("[".repeat(depth + 2).as_bytes()).contains("too deep"));
    }
    // As the orchestrator.
    assert!(whole(&nested(125)).is_ok());
    assert!(TaskRequest::from_json(nested(125).as_bytes()).is_ok());
    assert!(TaskRequest::from_json(nested(126).as_bytes()).is_err());
    assert!(read(nested(8).as_bytes(), 10).is_ok());
    assert!(
        matches!(read(nested(9).as_bytes(), 10), Err(Fault::NotJson(detail)) if detail.contains("too deep"))
    );
    let deep = format!(r#"{{"task":"a","priority":{}"#, "[".repeat(10_000));
    assert!(read(deep.as_bytes(), 10).is_err());
    assert!(read(br#"{"task":"a"}"#, 1).is_ok());
    assert!(read(br#"{"task":"a","payload":{}}"#, 1).is_err());
    assert!(read(br#"{"task":"a","priority":[]}"#, 1).is_err());
}

/// What it takes and what the orchestrator takes is the same task, or none; where it is stricter, it says so.
fn agrees(body: &[u8]) {
    let ours = read(body, MAX_DEPTH);
    let theirs = TaskRequest::from_json(body);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.task_type, theirs.task_type);
            assert_eq!(ours.priority, theirs.priority);
            assert_eq!(ours.timeout_s, theirs.timeout);
        }
        (Ok(_), Err(_)) => panic!("{}", String::from_utf8_lossy(body)),
        (Err(Fault::NotJson(detail)), Ok(_)) => {
            assert!(
                detail.contains("twice") || detail.contains("reserved"),
                "{}: {detail}",
                String::from_utf8_lossy(body)
            );
        }
        (Err(Fault::Fields(_)), Ok(_)) => panic!("{}", String::from_utf8_lossy(body)),
        (Err(_), Err(_)) => {}
    }
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("{}".to_owned()),
        any::<u64>().prop_map(|n| n.to_string()),
        (0..20_u8).prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        "-?[0-9]{1,3}(\\.[0-9])?(e[0-9]{1,3})?".prop_map(|text| text),
        "\"([a-z._-]|\\\\u[0-9a-f]{4}|\\\\n){0,6}\"".prop_map(|text| text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|items| {
                let items: Vec<String> = items
                    .into_iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                format!("{{{}}}", items.join(" , "))
            }),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "task_type",
        "task",
        "payload",
        "priority",
        "timeout",
        "t\\u0061sk",
        "x",
        "$serde_json::private::RawValue",
    ]);
    prop::collection::vec((name, value()), 0..6).prop_map(|fields| {
        let mut fields: Vec<String> = fields
            .into_iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        fields.insert(fields.len() / 2, "\"task\":\"a\"".to_owned());
        format!("{{{}}}", fields.join(",")).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn tasks_are_read_as_the_orchestrator_reads_them(body in body()) {
        agrees(&body);
    }

    #[test]
    fn damaged_tasks_too(
        mut body in body(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        for (at, byte, cut) in changes {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            if cut {
                body.truncate(at);
            } else {
                body[at] = byte;
            }
        }
        agrees(&body);
    }

    #[test]
    fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..200), depth in any::<u8>()) {
        let _ = read(&body, depth);
        agrees(&body);
    }
}
