//! Limits that several gateways keep together, against a quota endpoint in a few lines.

use super::*;
use crate::config::{Exchange, WhenUnreachable};
use mesh_protocol::quota::{Standings, Usage};
use std::collections::BTreeMap;

const INTERVAL_MS: u64 = 1_000;
/// When a gateway has found its place among the others, in milliseconds after its start.
const SETTLED: u64 = 2_000;

/// The endpoint: debts by key, as the orchestrator keeps them.
#[derive(Default)]
struct Endpoint {
    full_at_ns: BTreeMap<String, u64>,
    gateways: std::collections::BTreeSet<String>,
}

impl Endpoint {
    fn answer(&mut self, body: &[u8], now_ns: u64) -> Vec<u8> {
        let usage: Usage = serde_json::from_slice(body).unwrap();
        self.gateways.insert(usage.gateway);
        let debts = usage.used.iter().map(|used| {
            let full_at = self.full_at_ns.entry(used.key.clone()).or_default();
            let ago_ns = used.first_ago_ns.min(3 * INTERVAL_MS * 1_000_000);
            *full_at = (*full_at).max(now_ns - ago_ns) + used.units * used.emission_ns;
            full_at.saturating_sub(now_ns)
        });
        let standings = Standings {
            debts_ns: debts.collect(),
            gateways: u32::try_from(self.gateways.len()).unwrap(),
        };
        serde_json::to_vec(&standings).unwrap()
    }
}

/// One gateway: a policy (as of one worker) and its shared data.
struct Gateway {
    policy: Policy,
    host: MemoryHost,
}

fn gateway(number: u128, limit: LimitConfig, when_unreachable: WhenUnreachable) -> Gateway {
    let mut config = config(vec![LimitConfig {
        shared: true,
        ..limit
    }]);
    config.exchange = Some(Exchange {
        authority: "127.0.0.1:8589".to_owned(),
        host: None,
        token: "secret".to_owned(),
        interval_ms: u32::try_from(INTERVAL_MS).unwrap(),
        when_unreachable,
    });
    let mut host = host();
    host.set_random(number);
    Gateway {
        policy: compile(&config).unwrap(),
        host,
    }
}

impl Gateway {
    /// Lets it hear of the others for as long as it takes to count with them: until [`SETTLED`].
    fn settle(&mut self, endpoint: &mut Endpoint) {
        for ms in (0..=SETTLED).step_by(1_000) {
            self.exchange(Some(endpoint), ms);
        }
    }

    fn at(&mut self, ms: u64) -> u64 {
        let now_ns = (NOW_MS + ms) * 1_000_000;
        self.host.set_now_ns(now_ns);
        now_ns
    }

    fn exchange(&mut self, endpoint: Option<&mut Endpoint>, ms: u64) {
        let now_ns = self.at(ms);
        let fetches = self.policy.tick(&self.host);
        assert_eq!(fetches.len(), 1);
        let answer = match endpoint {
            Some(endpoint) => Fetched::Answer {
                status: 200,
                body: endpoint.answer(&fetches[0].body, now_ns),
            },
            None => Fetched::Failed,
        };
        self.policy.fetched(fetches[0].id, answer, &self.host);
    }

    fn hammer(&mut self, ms: u64, times: usize) -> usize {
        self.at(ms);
        passed(&self.policy, &get(), &self.host, times)
    }
}

/// All gateways hammered for `seconds`, exchanging each second: how many passed.
fn run(gateways: &mut [Gateway], seconds: u64, mut endpoint: impl FnMut(u64) -> bool) -> usize {
    let mut server = Endpoint::default();
    let mut all = 0;
    for ms in (0..seconds * 1000).step_by(50) {
        for (number, gateway) in gateways.iter_mut().enumerate() {
            // Not all at the same moment.
            if ms % INTERVAL_MS == 50 * (number as u64) {
                let up = endpoint(ms);
                gateway.exchange(up.then_some(&mut server), ms);
            }
            all += gateway.hammer(ms, 40);
        }
    }
    all
}

#[test]
fn what_all_pass_stays_within_the_documented_bound() {
    for (quota, burst, count) in [
        (10, 10, 2),
        (10, 40, 2),
        (10, 40, 5),
        (100, 10, 3),
        (2, 60, 4),
    ] {
        let limit = LimitConfig {
            burst: Some(burst),
            ..limit("second", quota, 1)
        };
        let mut gateways: Vec<_> = (0..count)
            .map(|n| gateway(n, limit.clone(), WhenUnreachable::HoldLocally))
            .collect();
        let seconds = 20;
        let passed = run(&mut gateways, seconds, |_| true) as u64;
        let exact = burst + quota * seconds;
        let bound = exact + count as u64 * quota * INTERVAL_MS / 1000;
        assert!(
            passed <= bound,
            "{quota} {burst} {count}: {passed} of {bound}"
        );
        // What is shared is also used: a tenth may be lost to exchanges that come late.
        assert!(
            passed * 10 >= exact * 9,
            "{quota} {burst} {count}: {passed} of {exact}"
        );
    }
}

#[test]
fn one_gateway_alone_has_the_whole_burst_once_it_knows() {
    let limit = LimitConfig {
        burst: Some(30),
        ..limit("second", 5, 1)
    };
    let mut one = gateway(1, limit, WhenUnreachable::HoldLocally);
    one.settle(&mut Endpoint::default());
    assert_eq!(one.hammer(SETTLED, 60), 30);
}

#[test]
fn before_it_knows_a_gateway_passes_what_one_interval_refills() {
    let limit = LimitConfig {
        burst: Some(30),
        ..limit("second", 5, 1)
    };
    let mut one = gateway(1, limit, WhenUnreachable::HoldLocally);
    assert_eq!(one.hammer(0, 60), 5);
}

#[test]
fn out_of_reach_each_holds_the_limit_alone_and_comes_back() {
    let limit = limit("second", 10, 1);
    let mut gateways: Vec<_> = (0..2)
        .map(|n| gateway(n, limit.clone(), WhenUnreachable::HoldLocally))
        .collect();
    let up = |ms| !(10_000..20_000).contains(&ms);
    let passed = run(&mut gateways, 40, up) as u64;
    // Ten seconds of two gateways on their own, the rest together.
    let bound = 10 + 10 * 40 + 10 * 10 + 2 * 10 + 2 * 10;
    assert!(passed <= bound, "{passed} of {bound}");
    assert!(passed >= 10 * 40, "{passed}");
}

#[test]
fn out_of_reach_requests_may_be_refused() {
    let mut one = gateway(1, limit("second", 10, 1), WhenUnreachable::Refuse);
    let mut endpoint = Endpoint::default();
    one.exchange(Some(&mut endpoint), 0);
    assert_eq!(one.hammer(0, 1), 1);
    for second in 1..=3 {
        one.exchange(None, second * 1000);
    }
    assert_eq!(one.hammer(3_000, 1), 1, "three intervals of patience");
    one.at(3_001);
    let refusal = ask(&one.policy, &get(), &one.host).1.unwrap();
    assert_eq!((refusal.status, refusal.reason), (503, "quota_unreachable"));
    one.exchange(Some(&mut endpoint), 4_000);
    assert_eq!(one.hammer(4_000, 1), 1);
}

#[test]
fn a_request_dearer_than_a_share_passes_when_there_is_room() {
    let limit = LimitConfig {
        burst: Some(8),
        cost: Some(Cost::Header {
            name: "x-cost".to_owned(),
            max: 8,
        }),
        ..limit("units", 8, 8)
    };
    let mut gateways: Vec<_> = (0..4)
        .map(|n| gateway(n, limit.clone(), WhenUnreachable::HoldLocally))
        .collect();
    let mut endpoint = Endpoint::default();
    for gateway in &mut gateways {
        gateway.settle(&mut endpoint);
    }
    let one = &mut gateways[3];
    let dear = get().with("x-cost", "6");
    assert_eq!(passed(&one.policy, &dear, &one.host, 2), 1);
}

#[test]
fn usage_that_could_not_be_told_is_told_with_the_next() {
    let mut one = gateway(1, limit("hour", 100, 3600), WhenUnreachable::HoldLocally);
    let mut endpoint = Endpoint::default();
    one.settle(&mut endpoint);
    assert_eq!(one.hammer(2_000, 7), 7);
    one.exchange(None, 3_000);
    one.exchange(Some(&mut endpoint), 4_000);
    let debt = endpoint.full_at_ns.values().next().unwrap() - (NOW_MS + 4_000) * 1_000_000;
    assert_eq!(
        debt,
        (7 * 36 - 2) * 1_000_000_000,
        "they passed two seconds ago"
    );
    // Nothing passed since: it only asks.
    one.exchange(Some(&mut endpoint), 5_000);
    let now = endpoint.full_at_ns.values().next().unwrap() - (NOW_MS + 4_000) * 1_000_000;
    assert_eq!(now, debt);
}

#[test]
fn answers_that_make_no_sense_change_nothing() {
    let mut one = gateway(1, limit("second", 10, 1), WhenUnreachable::HoldLocally);
    one.at(0);
    for body in [
        &b""[..],
        b"{}",
        br#"{"gateways":1,"debts_ns":[1,2]}"#,
        b"[1]",
    ] {
        let fetch = one.policy.tick(&one.host).remove(0);
        let body = body.to_vec();
        one.policy
            .fetched(fetch.id, Fetched::Answer { status: 200, body }, &one.host);
    }
    one.policy.fetched(77, Fetched::Failed, &one.host);
    assert_eq!(one.hammer(0, 20), 10);
}

#[test]
fn faults_of_the_exchange_are_named() {
    let mut faulty = config(vec![LimitConfig {
        shared: true,
        ..limit("a", 1, 1)
    }]);
    let paths = |config: &RateLimit| -> Vec<String> {
        compile(config)
            .unwrap_err()
            .into_iter()
            .map(|f| f.path)
            .collect()
    };
    assert_eq!(paths(&faulty), ["exchange"]);
    faulty.exchange = Some(Exchange {
        authority: "orchestrator:8589".to_owned(),
        host: Some(String::new()),
        token: "a b".to_owned(),
        interval_ms: 5,
        when_unreachable: WhenUnreachable::Refuse,
    });
    let expected = ["authority", "token", "host", "interval_ms"];
    assert_eq!(
        paths(&faulty),
        expected.map(|field| format!("exchange.{field}"))
    );
    assert!(!format!("{faulty:?}").contains("a b"));
}
