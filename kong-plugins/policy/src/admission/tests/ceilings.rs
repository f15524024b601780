//! Priorities above what their caller may ask for.

use super::*;

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
