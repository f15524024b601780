//! Configurations that cannot be used.

use super::*;

#[test]
fn faults_are_named_by_path() {
    let faults = |agents: &str, rules: &str, more: &str| -> Vec<String> {
        let faults = compile(&config(agents, rules, more)).unwrap_err();
        faults.into_iter().map(|fault| fault.path).collect()
    };
    let one = r#"[{"id":"a"}]"#;
    let to_a = r#"[{"to":{"agent":"a"}}]"#;
    assert!(compile(&config(one, to_a, "")).is_ok());
    assert_eq!(faults("[]", to_a, ""), ["agents", "rules[0].to.agent"]);
    assert_eq!(faults(one, "[]", ""), ["rules"]);
    for (agents, expected) in [
        (r#"[{"id":"a"},{"id":"B"}]"#, "agents[1].id"),
        (r#"[{"id":"a"},{"id":"a"}]"#, "agents[1].id"),
        (r#"[{"id":"a"},{"id":"b-c"},{"id":"b_c"}]"#, "agents[2].id"),
        (
            r#"[{"id":"a"},{"id":"b","aliases":["a"]}]"#,
            "agents[1].aliases[0]",
        ),
        (r#"[{"id":"a","aliases":["x/y"]}]"#, "agents[0].aliases[0]"),
        (
            r#"[{"id":"a","capabilities":["c",""]}]"#,
            "agents[0].capabilities[1]",
        ),
    ] {
        assert_eq!(faults(agents, to_a, ""), [expected], "{agents}");
    }
    for (rule, expected) in [
        (r#"{"to":{"agent":"b"}}"#, "rules[0].to.agent"),
        (
            r#"{"to":{"weighted":{"agents":{}}}}"#,
            "rules[0].to.weighted.agents",
        ),
        (
            r#"{"to":{"weighted":{"agents":{"a":0}}}}"#,
            "rules[0].to.weighted.agents",
        ),
        (
            r#"{"to":{"weighted":{"agents":{"b":1}}}}"#,
            "rules[0].to.weighted.agents.b",
        ),
        (
            r#"{"to":{"weighted":{"agents":{"a":1},"sticky":{"header":"X"}}}}"#,
            "rules[0].to.weighted.sticky.header",
        ),
        (
            r#"{"to":{"named":{"prefix":"/agents"}}}"#,
            "rules[0].to.named.prefix",
        ),
        (
            r#"{"to":{"named":{"prefix":""}}}"#,
            "rules[0].to.named.prefix",
        ),
        (
            r#"{"to":{"named":{"header":"x-mesh-agent"}}}"#,
            "rules[0].to.named.header",
        ),
        (
            r#"{"to":{"capability":{"header":"a b"}}}"#,
            "rules[0].to.capability.header",
        ),
        (
            r#"{"match":{"path":{"exact":"x"}},"to":{"agent":"a"}}"#,
            "rules[0].match.path",
        ),
        (
            r#"{"match":{"path":{"exact":"/a/../b"}},"to":{"agent":"a"}}"#,
            "rules[0].match.path",
        ),
        (
            r#"{"match":{"path":{"prefix":"/a?b"}},"to":{"agent":"a"}}"#,
            "rules[0].match.path",
        ),
        (
            r#"{"match":{"headers":[{"name":"X"}]},"to":{"agent":"a"}}"#,
            "rules[0].match.headers[0].name",
        ),
        (
            r#"{"match":{"task_types":["a b"]},"to":{"agent":"a"}}"#,
            "rules[0].match.task_types[0]",
        ),
        (
            r#"{"match":{"scopes":["a b"]},"to":{"agent":"a"}}"#,
            "rules[0].match.scopes[0]",
        ),
        (
            r#"{"match":{"claims":{"":"a"}},"to":{"agent":"a"}}"#,
            "rules[0].match.claims",
        ),
    ] {
        assert_eq!(faults(one, &format!("[{rule}]"), ""), [expected], "{rule}");
    }
    let twice = r#"[{"to":{"weighted":{"agents":{"a-b":1,"a_b":1}}}}]"#;
    assert_eq!(
        faults(r#"[{"id":"a-b"}]"#, twice, ""),
        ["rules[0].to.weighted.agents.a_b"]
    );
    assert_eq!(
        faults(one, to_a, r#","load":{"authority":"mesh:1"}"#),
        ["load.authority"]
    );
}

#[test]
fn configurations_are_read_strictly() {
    let load = crate::filter::load::<Policy>;
    assert!(load(br#"{"agents":[{"id":"a"}],"rules":[{"to":{"agent":"a"}}]}"#).is_ok());
    for json in [
        r#"{"agents":[{"id":"a"}],"rules":[{"to":{"agent":"a","named":{"prefix":"/"}}}]}"#,
        r#"{"agents":[{"id":"a"}],"rules":[{"to":{}}]}"#,
        r#"{"agents":[{"id":"a"}],"rules":[{"to":{"nobody":"a"}}]}"#,
        r#"{"agents":[{"id":"a"}],"rules":[{"match":{"host":"x"},"to":{"agent":"a"}}]}"#,
        r#"{"agents":[{"id":"a"}]}"#,
        "[]",
        "",
    ] {
        assert!(load(json.as_bytes()).is_err(), "{json}");
    }
}
