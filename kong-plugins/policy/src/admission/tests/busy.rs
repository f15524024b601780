//! What the filter learns of the agents, and what becomes of tasks then.

use super::*;

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
