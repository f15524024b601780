//! How much of what: names and whole numbers, bytes of memory and counts alike.

use serde_json::Value;
use std::collections::BTreeMap;

/// How much of each resource.
pub type Amounts = BTreeMap<String, u64>;

/// Most of one resource: ten terabytes. Scripts of Redis write whole numbers up to fourteen digits.
pub const MAX_AMOUNT: u64 = 10_000_000_000_000;
/// Most resources of a mesh: every lease looks at the queue of each that it names.
pub const MAX_NAMES: usize = 64;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;

/// Whether `name` can be a resource: `gpu`, `model:tinyllama`.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(legal)
}

/// A whole number, or one with the unit of a size: `2`, `16GiB`.
pub fn parse_amount(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let amount = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (amount <= MAX_AMOUNT).then_some(amount)
}

/// An amount in JSON: a whole number, a text like one, or whether one is taken.
pub fn read_amount(value: &Value) -> Option<u64> {
    match value {
        Value::Bool(taken) => Some(u64::from(*taken)),
        Value::String(text) => parse_amount(text),
        _ => value.as_u64().filter(|n| *n <= MAX_AMOUNT),
    }
}

/// The first of `needs` of which there is not so much, and how much there is; none of it where it is not declared.
pub fn excess<'a>(needs: &'a Amounts, capacity: &Amounts) -> Option<(&'a str, Option<u64>)> {
    needs.iter().find_map(|(name, amount)| {
        let there = capacity.get(name).copied();
        there
            .is_none_or(|there| there < *amount)
            .then_some((name.as_str(), there))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_whole_numbers_with_or_without_a_unit() {
        for (text, amount) in [
            ("0", Some(0)),
            ("2", Some(2)),
            ("16GiB", Some(16 << 30)),
            (" 1 MiB", Some(1 << 20)),
            ("10000000000000", Some(MAX_AMOUNT)),
            ("10000000000001", None),
            ("99999999999TiB", None),
            ("1.5", None),
            ("-1", None),
            ("GiB", None),
            ("1GB", None),
            ("", None),
        ] {
            assert_eq!(parse_amount(text), amount, "{text:?}");
        }
        for (value, amount) in [
            (json!(true), Some(1)),
            (json!(3), Some(3)),
            (json!("3"), Some(3)),
            (json!(1.5), None),
            (json!(-1), None),
            (json!(null), None),
            (json!([1]), None),
        ] {
            assert_eq!(read_amount(&value), amount, "{value}");
        }
    }

    #[test]
    fn names_and_what_there_is_not() {
        assert!(is_name("gpu") && is_name("model:tinyllama-1.1b"));
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        let amounts = |of: &[(&str, u64)]| -> Amounts {
            of.iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        let capacity = amounts(&[("cpu", 4), ("gpu", 1)]);
        assert_eq!(excess(&amounts(&[("cpu", 4), ("gpu", 1)]), &capacity), None);
        let more = amounts(&[("cpu", 5)]);
        assert_eq!(excess(&more, &capacity), Some(("cpu", Some(4))));
        let other = amounts(&[("tpu", 1)]);
        assert_eq!(excess(&other, &capacity), Some(("tpu", None)));
    }
}
