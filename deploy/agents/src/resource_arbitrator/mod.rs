//! resource-arbitrator: hands out this machine's processor, memory and GPUs for a while.
//!
//! It keeps the books; it does not enforce them. Whoever holds a lease shows its fencing token to
//! what it uses, which can then refuse a holder that was overtaken. Leases live in this process: after
//! a restart there are none, and new tokens are higher than any before.
//!
//! Only the answer to a grant shows the token, and no id tells it: a lease is renewed and released by
//! whom it was granted to. Tokens grow, so one holder can guess another's: that keeps out mistakes,
//! not malice.

mod ledger;

use crate::machine::{Capacity, Roots};
use crate::process::{self, Refusal, Step};
use axum::Router;
use ledger::{Amounts, Ledger, LedgerError};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a lease lasts when nothing is said, in seconds.
const DEFAULT_TTL_S: u64 = 60;
/// Longest lease, in seconds: a day.
const MAX_TTL_S: u64 = 86_400;
/// Longest name of a holder, in bytes.
const MAX_HOLDER: usize = 128;

/// The agent, reading the machine at `roots`.
pub fn router(roots: Roots) -> Router {
    let ledger = Mutex::new(Ledger::new(now_ms()));
    process::router(
        "resource-arbitrator",
        process::blocking(move |step| {
            // The ledger changes in single steps, each of which leaves it whole.
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            carry_out(&mut ledger, &Capacity::read(&roots), &step, now_ms())
        }),
    )
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Report {
    capacity: Amounts,
    leased: Amounts,
    available: Amounts,
    units: Value,
}

fn carry_out(
    ledger: &mut Ledger,
    capacity: &Capacity,
    step: &Step,
    now: u64,
) -> Result<Value, Refusal> {
    let capacity = Amounts {
        cpu_millicores: capacity.cpu_millicores,
        memory_bytes: capacity.memory_bytes,
        gpus: capacity.gpus,
    };
    ledger.expire(now);
    let payload = &step.payload;
    let operation = match payload.get("operation") {
        None | Some(Value::Null) => "report",
        Some(Value::String(name)) => name,
        Some(_) => return Err(Refusal::input("operation", "operation must be a string")),
    };
    match operation {
        "report" => {
            let mut report = json!(overview(ledger, capacity));
            report["leases"] = json!(ledger.leases().collect::<Vec<_>>());
            report["summary"] = json!(summary(ledger, capacity));
            Ok(report)
        }
        "capacity" => Ok(json!(overview(ledger, capacity))),
        "list" => Ok(json!({"leases": ledger.leases().collect::<Vec<_>>()})),
        "grant" => {
            let holder = text(payload, "holder")?;
            let wanted = amounts(payload)?;
            let lease = ledger
                .grant(holder, wanted, ttl(payload)?, capacity, now)
                .map_err(|error| refuse(error, ledger, capacity))?;
            let token = lease.token;
            let mut answer = json!({"granted": true, "lease": lease});
            answer["lease"]["token"] = json!(token);
            Ok(answer)
        }
        "renew" => {
            let lease = ledger
                .renew(
                    text(payload, "lease_id")?,
                    token(payload)?,
                    ttl(payload)?,
                    now,
                )
                .map_err(|error| refuse(error, ledger, capacity))?;
            Ok(json!({"renewed": true, "lease": lease}))
        }
        "release" => {
            let lease = ledger
                .release(text(payload, "lease_id")?, token(payload)?)
                .map_err(|error| refuse(error, ledger, capacity))?;
            Ok(json!({"released": true, "lease": lease}))
        }
        other => Err(Refusal::input(
            "operation",
            format!(
                "no operation {other:?}; there are capacity, grant, renew, release, list, report"
            ),
        )),
    }
}

fn overview(ledger: &Ledger, capacity: Amounts) -> Report {
    let leased = ledger.leased();
    Report {
        capacity,
        leased,
        available: capacity.less(leased),
        units: json!({"cpu_millicores": "thousandths of a core", "memory_bytes": "bytes", "gpus": "devices"}),
    }
}

fn summary(ledger: &Ledger, capacity: Amounts) -> String {
    let free = capacity.less(ledger.leased());
    format!(
        "{} lease(s); {} of {} millicores, {} of {} MiB and {} of {} GPU(s) can be granted now",
        ledger.leases().count(),
        free.cpu_millicores,
        capacity.cpu_millicores,
        free.memory_bytes / (1024 * 1024),
        capacity.memory_bytes / (1024 * 1024),
        free.gpus,
        capacity.gpus
    )
}

fn refuse(error: LedgerError, ledger: &Ledger, capacity: Amounts) -> Refusal {
    let code = match &error {
        LedgerError::OverCommit { .. } => "over_commit",
        LedgerError::NoLease => "no_lease",
        LedgerError::WrongToken => "wrong_token",
        LedgerError::Full => "too_many_leases",
    };
    Refusal::conflict(code, error.to_string(), json!(overview(ledger, capacity)))
}

fn text<'a>(payload: &'a Map<String, Value>, field: &str) -> Result<&'a str, Refusal> {
    match payload.get(field) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_HOLDER => Ok(text),
        Some(_) => Err(Refusal::input(
            field,
            format!("{field} must be a string of 1 to {MAX_HOLDER} bytes"),
        )),
        None => Err(Refusal::input(field, format!("{field} is required"))),
    }
}

fn count(payload: &Map<String, Value>, field: &str) -> Result<Option<u64>, Refusal> {
    match payload.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            Refusal::input(field, format!("{field} must be a whole number, 0 or more"))
        }),
    }
}

fn token(payload: &Map<String, Value>) -> Result<u64, Refusal> {
    count(payload, "token")?
        .ok_or_else(|| Refusal::input("token", "token is required, as given with the lease"))
}

fn ttl(payload: &Map<String, Value>) -> Result<Duration, Refusal> {
    match count(payload, "ttl_s")?.unwrap_or(DEFAULT_TTL_S) {
        seconds @ 1..=MAX_TTL_S => Ok(Duration::from_secs(seconds)),
        _ => Err(Refusal::input(
            "ttl_s",
            format!("ttl_s must be 1 to {MAX_TTL_S} seconds"),
        )),
    }
}

fn amounts(payload: &Map<String, Value>) -> Result<Amounts, Refusal> {
    let wanted = Amounts {
        cpu_millicores: count(payload, "cpu_millicores")?.unwrap_or(0),
        memory_bytes: count(payload, "memory_bytes")?.unwrap_or(0),
        gpus: count(payload, "gpus")?.unwrap_or(0),
    };
    if wanted == Amounts::default() {
        return Err(Refusal::input(
            "cpu_millicores",
            "a lease is of something: give cpu_millicores, memory_bytes or gpus",
        ));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity {
        cpu_millicores: 2000,
        memory_bytes: 1000,
        gpus: 0,
    };

    fn ask(ledger: &mut Ledger, now: u64, payload: Value) -> Result<Value, Refusal> {
        let step = Step {
            payload: payload.as_object().unwrap().clone(),
            ..Step::default()
        };
        carry_out(ledger, &CAPACITY, &step, now)
    }

    #[test]
    fn a_lease_lives_and_ends() {
        let mut ledger = Ledger::new(1000);
        let grant = json!({"operation":"grant","holder":"a","cpu_millicores":1500,"ttl_s":10});
        let first = ask(&mut ledger, 0, grant.clone()).unwrap();
        let lease = first["lease"].clone();
        let (id, token) = (lease["id"].clone(), lease["token"].clone());

        let refused = ask(&mut ledger, 0, grant.clone()).unwrap_err();
        assert!(
            refused.detail().contains("1500 of cpu_millicores"),
            "{refused:?}"
        );
        assert!(refused.detail().contains("500 of 2000"), "{refused:?}");

        let renew = json!({"operation":"renew","lease_id":id,"token":token,"ttl_s":20});
        let renewed = ask(&mut ledger, 9_000, renew.clone()).unwrap();
        assert_eq!(renewed["lease"]["expires_at_ms"], 29_000);

        // Past its end nothing is left of it, and a new one has a higher token.
        let second = ask(&mut ledger, 29_000, grant).unwrap();
        assert!(second["lease"]["token"].as_u64() > token.as_u64());
        assert!(ask(&mut ledger, 29_000, renew).is_err());
        let release = json!({"operation":"release","lease_id":second["lease"]["id"],"token":1});
        assert!(ask(&mut ledger, 29_000, release.clone()).is_err());
        let mut release = release;
        release["token"] = second["lease"]["token"].clone();
        ask(&mut ledger, 29_000, release).unwrap();
        let listed = ask(&mut ledger, 29_000, json!({"operation":"list"})).unwrap();
        assert_eq!(listed["leases"], json!([]));
    }

    #[test]
    fn a_token_is_shown_to_whom_it_is_granted_only() {
        let mut ledger = Ledger::new(41_999_999);
        let grant = json!({"operation":"grant","holder":"a","cpu_millicores":100});
        let mut granted = Vec::new();
        for _ in 0..3 {
            let lease = ask(&mut ledger, 0, grant.clone()).unwrap()["lease"].clone();
            let token = lease["token"].as_u64().unwrap();
            assert!(!lease["id"].as_str().unwrap().contains(&token.to_string()));
            granted.push((lease["id"].clone(), token));
        }
        assert!(granted.is_sorted_by_key(|(_, token)| *token));
        let (id, token) = granted[0].clone();
        let hold = |operation| json!({"operation":operation,"lease_id":id,"token":token});
        for payload in [
            json!({"operation":"list"}),
            json!({"operation":"report"}),
            hold("renew"),
            hold("release"),
        ] {
            let answer = ask(&mut ledger, 0, payload.clone()).unwrap().to_string();
            assert!(answer.contains("\"holder\""), "{payload}");
            assert!(!answer.contains("token"), "{payload}: {answer}");
        }
        // In the order of the grants.
        let listed = ask(&mut ledger, 0, json!({"operation":"list"})).unwrap();
        let ids: Vec<_> = listed["leases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| &l["id"])
            .collect();
        assert_eq!(ids, [&granted[1].0, &granted[2].0]);
    }

    #[test]
    fn a_rule_step_gets_the_report() {
        let mut ledger = Ledger::new(0);
        ask(
            &mut ledger,
            0,
            json!({"operation":"grant","holder":"a","memory_bytes":400}),
        )
        .unwrap();
        let report = ask(&mut ledger, 0, json!({"focus":"memory"})).unwrap();
        assert_eq!(report["capacity"]["memory_bytes"], 1000);
        assert_eq!(report["available"]["memory_bytes"], 600);
        assert_eq!(report["leases"][0]["holder"], "a");
        assert!(
            report["summary"]
                .as_str()
                .unwrap()
                .starts_with("1 lease(s)")
        );
    }

    #[test]
    fn wrong_input_names_its_field() {
        let mut ledger = Ledger::new(0);
        for (payload, field) in [
            (json!({"operation":"steal"}), "steal"),
            (json!({"operation":3}), "operation"),
            (json!({"operation":"grant","cpu_millicores":1}), "holder"),
            (
                json!({"operation":"grant","holder":"a"}),
                "lease is of something",
            ),
            (json!({"operation":"grant","holder":"a","gpus":-1}), "gpus"),
            (json!({"operation":"grant","holder":"a","gpus":1.5}), "gpus"),
            (
                json!({"operation":"grant","holder":"a","gpus":1,"ttl_s":0}),
                "ttl_s",
            ),
            (json!({"operation":"release","lease_id":"x"}), "token"),
        ] {
            let refusal = ask(&mut ledger, 0, payload).unwrap_err();
            assert!(refusal.detail().contains(field), "{refusal:?}");
        }
        let huge = json!({"operation":"grant","holder":"a","memory_bytes":u64::MAX});
        assert!(
            ask(&mut ledger, 0, huge)
                .unwrap_err()
                .detail()
                .contains("of 1000")
        );
    }
}
