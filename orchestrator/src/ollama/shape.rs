//! What a payload looks like without its values, and whether a plan speaks of the values.

use mesh_protocol::plan::Plan;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Values of at most so many words are looked for word by word: nearly every word of the language stands in a
/// long one.
const SHORT: usize = 20;
/// So many words of a long value in a row are no chance.
const RUN: usize = 3;

/// Writes keys and types of `payload` into `hash`, in an order of its own.
pub fn hash(payload: &Map<String, Value>, hash: &mut Sha256) {
    let mut keys: Vec<(&String, &Value)> = payload.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    hash.update(b"{");
    for (key, value) in keys {
        text(key, hash);
        shape(value, hash);
    }
    hash.update(b"}");
}

/// A text so that no two sequences of texts look alike.
pub fn text(text: &str, hash: &mut Sha256) {
    hash.update(text.len().to_be_bytes());
    hash.update(text);
}

fn shape(value: &Value, into: &mut Sha256) {
    match value {
        Value::Null => into.update(b"0"),
        Value::Bool(_) => into.update(b"b"),
        Value::Number(_) => into.update(b"n"),
        Value::String(_) => into.update(b"s"),
        Value::Object(map) => hash(map, into),
        Value::Array(items) => {
            // Which shapes there are, not how many: a table with one row more is the same kind of table.
            let shapes: std::collections::BTreeSet<[u8; 32]> = items
                .iter()
                .map(|item| {
                    let mut one = Sha256::new();
                    shape(item, &mut one);
                    one.finalize().into()
                })
                .collect();
            into.update(b"[");
            for one in shapes {
                into.update(one);
            }
            into.update(b"]");
        }
    }
}

/// Whether `plan` repeats a value of `payload`, so that it is good for this payload alone. Rather yes than no.
pub fn speaks_of(plan: &Plan, payload: &Map<String, Value>) -> bool {
    if plan
        .execution_plan
        .iter()
        .any(|step| step.payload.is_some())
    {
        return true;
    }
    let steps = plan.execution_plan.iter().flat_map(|step| {
        [
            Some(step.id.as_str()),
            Some(step.action.as_str()),
            step.role.as_deref(),
        ]
    });
    let amounts = plan.execution_plan.iter().map(|step| {
        let amounts = step.resources.values();
        amounts.map(u64::to_string).collect()
    });
    let texts: Vec<Vec<String>> = steps
        .flatten()
        .chain(plan.risks.iter().map(String::as_str))
        .chain([plan.resources.cpu.as_str(), plan.resources.memory.as_str()])
        .map(words)
        .chain(amounts)
        .collect();
    let mut said = HashSet::new();
    for text in &texts {
        said.extend(text.iter().map(String::as_str));
    }
    let mut runs = HashSet::new();
    for text in &texts {
        runs.extend(text.windows(RUN));
    }
    payload
        .values()
        .any(|value| is_repeated(value, &said, &runs))
}

fn is_repeated(value: &Value, said: &HashSet<&str>, runs: &HashSet<&[String]>) -> bool {
    match value {
        // Two of them are no values that could be told apart from the plan's own words.
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => words(&number.to_string())
            .iter()
            .any(|word| said.contains(word.as_str())),
        Value::String(text) => {
            let all = words(text);
            if all.len() <= SHORT {
                return all
                    .iter()
                    .any(|word| is_telling(word) && said.contains(word.as_str()));
            }
            all.windows(RUN).any(|run| runs.contains(run)) || names(text, said)
        }
        Value::Array(items) => items.iter().any(|item| is_repeated(item, said, runs)),
        Value::Object(map) => map.values().any(|item| is_repeated(item, said, runs)),
    }
}

/// Whether a plan says a word of a long text that looks like a name: with a digit in it, or a capital letter
/// that no sentence begins with.
fn names(text: &str, said: &HashSet<&str>) -> bool {
    let mut begins = true;
    for raw in text.split_whitespace() {
        let capital = raw.chars().any(char::is_uppercase) && !begins;
        if capital || raw.chars().any(|c| c.is_ascii_digit()) {
            let mut words = words(raw).into_iter();
            if words.any(|word| said.contains(word.as_str())) {
                return true;
            }
        }
        begins = raw.ends_with(['.', '!', '?', ':']);
    }
    false
}

/// Words that stand in every text tell nothing.
fn is_telling(word: &str) -> bool {
    const EVERYWHERE: [&str; 24] = [
        "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "of",
        "on", "or", "that", "the", "this", "to", "was", "with", "s", "its",
    ];
    !EVERYWHERE.contains(&word)
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(payload: &Value) -> [u8; 32] {
        let mut into = Sha256::new();
        hash(payload.as_object().unwrap(), &mut into);
        into.finalize().into()
    }

    #[test]
    fn values_do_not_count_and_keys_and_types_do() {
        let a = json!({"text": "x", "n": 1, "rows": [{"a": 1}, {"a": 2}]});
        for same in [
            json!({"n": 2.5, "text": "another", "rows": [{"a": 9}]}),
            json!({"rows": [{"a": 9}, {"a": 9}, {"a": 0}], "text": "", "n": 0}),
        ] {
            assert_eq!(of(&a), of(&same), "{same}");
        }
        for other in [
            json!({"text": "x", "n": "1", "rows": [{"a": 1}]}),
            json!({"text": "x", "n": 1, "rows": [{"b": 1}]}),
            json!({"text": "x", "n": 1, "rows": []}),
            json!({"text": "x", "n": 1, "rows": [{"a": 1}, 1]}),
            json!({"text": "x", "n": null, "rows": [{"a": 1}]}),
            json!({"text": "x", "n": 1}),
            json!({"tex": "x", "tn": 1, "rows": [{"a": 1}]}),
            json!({}),
        ] {
            assert_ne!(of(&a), of(&other), "{other}");
        }
        assert_ne!(of(&json!({"ab": {"c": 1}})), of(&json!({"a": {"bc": 1}})));
    }

    fn plan(action: &str, more: Value) -> Plan {
        let mut step = json!({"id": "s", "agent": "a", "action": action});
        step.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "source": "ollama", "agents_required": ["a"], "execution_plan": [step],
        }))
        .unwrap()
    }

    fn repeats(action: &str, payload: &Value) -> bool {
        speaks_of(&plan(action, json!({})), payload.as_object().unwrap())
    }

    #[test]
    fn a_plan_that_repeats_a_value_is_found_out() {
        let long = "The quick brown fox jumps over the lazy dog and then it runs on through the \
                    woods until Alice in room 4711 calls it back to the house of her aunt.";
        for (action, payload) in [
            ("translate Hello", json!({"text": "hello"})),
            ("read report.csv", json!({"in": {"file": "report.csv"}})),
            ("look at acme", json!({"names": ["Umbrella", "ACME"]})),
            ("take the top 5", json!({"top": 5})),
            ("round to 2.5", json!({"n": 2.5})),
            ("who is quick brown fox", json!({"text": long})),
            ("ask alice", json!({"text": long})),
            ("go to 4711", json!({"text": long})),
            ("delete it", json!({"command": "delete"})),
        ] {
            assert!(repeats(action, &payload), "{action}");
        }
        for (action, payload) in [
            ("translate the text", json!({"text": "hello"})),
            ("count words of the text", json!({"text": long})),
            (
                "take the first ones",
                json!({"top": 5, "strict": true, "none": null}),
            ),
            ("say true", json!({"flag": true})),
            ("the text is read", json!({"text": "the"})),
        ] {
            assert!(!repeats(action, &payload), "{action}");
        }
        let payload = json!({"text": "hello"});
        let payload = payload.as_object().unwrap();
        for more in [
            json!({"payload": {"text": "x"}}),
            json!({"payload": {}}),
            json!({"role": "speaker of hello"}),
            json!({"id": "hello"}),
        ] {
            assert!(speaks_of(&plan("x", more), payload));
        }
        let three = plan("x", json!({"resources": {"gpu": 3}}));
        let payload_of = |cards: u8| json!({"cards": cards}).as_object().unwrap().clone();
        assert!(speaks_of(&three, &payload_of(3)) && !speaks_of(&three, &payload_of(2)));
        let mut risky = plan("x", json!({}));
        risky.risks.push("hello may be empty".to_owned());
        assert!(speaks_of(&risky, payload));
    }
}
