//! Configurations of the filters, and kong.yml.
//!
//! An input is tried as the configuration of each filter, as a patch of a good one (RFC 7396), so that the
//! fuzzer gets beyond the required fields, and as a kong.yml.

use crate::refusal::passed;
use mesh_declarative::Config;
use mesh_gateway::fuzzing::Routes;
use mesh_policy::filter::load;
use mesh_policy::host::MemoryHost;
use mesh_policy::request::MemoryHead;
use mesh_policy::{Filter, Timestamp, admission, jwt, rate_limit, routing};
use serde_json::Value;
use serde_json::map::Entry;

/// Fields whose values are secrets.
const SECRETS: [&str; 6] = ["secret", "signing_key", "table_key", "token", "k", "d"];
/// Shortest secret that is looked for: shorter ones stand in other words.
const SHORTEST: usize = 16;

/// A configuration is refused with reasons that hold no secret, or makes a filter that decides; a kong.yml
/// that was read can be written and read again, and run or refused by name.
pub fn config(data: &[u8]) -> bool {
    let taken = [
        of_filter::<jwt::Policy>(data, include_str!("config/jwt_auth.json")),
        of_filter::<rate_limit::Policy>(data, include_str!("config/rate_limit.json")),
        of_filter::<admission::Policy>(data, include_str!("config/task_admission.json")),
        of_filter::<routing::Policy>(data, include_str!("route/agent_router.json")),
        std::str::from_utf8(data).is_ok_and(of_kong),
    ];
    taken.contains(&true)
}

fn of_filter<F: Filter>(data: &[u8], good: &str) -> bool {
    let mut taken = loaded::<F>(data);
    let mut config: Value = serde_json::from_str(good).expect("the configuration is good");
    // What the reader of values makes another value of is not a patch.
    if let Ok(patch @ Value::Object(_)) = serde_json::from_slice(data) {
        merge(&mut config, patch);
        taken |= loaded::<F>(config.to_string().as_bytes());
    }
    taken
}

fn loaded<F: Filter>(json: &[u8]) -> bool {
    let (policy, _) = match load::<F>(json) {
        Ok(loaded) => loaded,
        Err(faults) => {
            assert!(!faults.is_empty());
            let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
            if let Ok(config) = serde_json::from_slice(json) {
                let (mut secrets, mut names) = (Vec::new(), Vec::new());
                collect(&config, &mut secrets, &mut names);
                for secret in secrets
                    .iter()
                    .filter(|s| !names.iter().any(|n| n.contains(**s)))
                {
                    assert!(!told.iter().any(|text| text.contains(*secret)), "{told:?}");
                }
            }
            return false;
        }
    };
    let host = MemoryHost::at(Timestamp::from_millis(1_800_000_000_000));
    policy.tick(&host);
    for head in [
        MemoryHead::new("GET", "/?a=b"),
        MemoryHead::new("POST", "/task")
            .with("content-type", "application/json")
            .with("authorization", "Bearer a.b.c"),
    ] {
        let mut request = F::Request::default();
        let pass = passed(policy.decide(&mut request, &head, &host));
        if pass.is_some() && policy.wants_body(&request) {
            let body = br#"{"task":"qa","priority":9}"#;
            passed(policy.decide_body(&mut request, Some(body), &host));
        }
        policy.response_headers(&request);
        policy.end(&mut request, &host);
    }
    true
}

/// Changes `target` as `patch` says.
fn merge(target: &mut Value, patch: Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, &patch) else {
        *target = patch;
        return;
    };
    for (name, value) in patch {
        match target.entry(name) {
            Entry::Occupied(entry) if value.is_null() => {
                entry.remove();
            }
            Entry::Occupied(mut entry) => merge(entry.get_mut(), value.clone()),
            Entry::Vacant(entry) => {
                entry.insert(value.clone());
            }
        }
    }
}

/// The secrets in a configuration, and all other texts of it.
fn collect<'a>(value: &'a Value, secrets: &mut Vec<&'a str>, others: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                others.push(name);
                match value {
                    Value::String(text) if SECRETS.contains(&name.as_str()) => {
                        if text.len() >= SHORTEST {
                            secrets.push(text);
                        }
                    }
                    value => collect(value, secrets, others),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| collect(value, secrets, others)),
        Value::String(text) => others.push(text),
        _ => {}
    }
}

fn of_kong(text: &str) -> bool {
    let Ok(config) = Config::from_yaml(text) else {
        return false;
    };
    let written = config.to_yaml().expect("what was read can be written");
    let again = Config::from_yaml(&written).expect("what was written can be read");
    assert_eq!(again, config, "{written}");
    Routes::read(&config).is_ok()
}
