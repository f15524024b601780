//! Configurations that cannot be used.

use super::*;

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
