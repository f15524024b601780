//! What a client asks of the arbiter, read from the body of its request.

use crate::resources::{Amounts, excess, read_amount};
use mesh_protocol::problem::FieldError;
use mesh_protocol::task::{DEFAULT_PRIORITY, MAX_PRIORITY};
use serde_json::{Map, Value};

/// Longest lease without a renewal, in seconds: an hour of what nobody else has.
const MAX_TTL_S: u64 = 3600;
/// Longest wait for one, in seconds: as long as proxies leave a request open.
const MAX_WAIT_S: u64 = 60;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub needs: Amounts,
    /// From 0 to [`MAX_PRIORITY`].
    pub priority: u8,
    /// Length of a lease.
    pub ttl_s: u64,
    /// How long to wait for it.
    pub wait_s: u64,
}

impl Asked {
    /// # Errors
    /// Every fault of the body, by its field.
    pub fn of(fields: &Map<String, Value>, capacity: &Amounts) -> Result<Self, Vec<FieldError>> {
        let mut faults = Vec::new();
        let mut needs = Amounts::new();
        match fields.get("resources") {
            Some(Value::Object(named)) if !named.is_empty() => {
                for (name, value) in named {
                    match read_amount(value).filter(|amount| *amount > 0) {
                        Some(amount) => {
                            needs.insert(name.clone(), amount);
                        }
                        None => {
                            let shown: String = name.chars().take(64).collect();
                            let detail = "give a whole number from 1, or a size such as \"2GiB\"";
                            let field = format!("resources.{shown}");
                            faults.push(FieldError::new(field, "invalid", detail));
                            break;
                        }
                    }
                }
            }
            _ => {
                let detail = "resources is required, for example {\"gpu\": 1}";
                faults.push(FieldError::new("resources", "missing", detail));
            }
        }
        if let Some((name, there)) = excess(&needs, capacity) {
            let field = format!("resources.{}", name.chars().take(64).collect::<String>());
            faults.push(match there {
                Some(there) => {
                    FieldError::new(field, "out_of_range", format!("there is {there} at most"))
                }
                None => {
                    let known: Vec<&str> = capacity.keys().map(String::as_str).collect();
                    let detail = format!("not declared; known are {}", known.join(", "));
                    FieldError::new(field, "unknown", detail)
                }
            });
        }
        let priority = number(
            fields,
            "priority",
            0..=u64::from(MAX_PRIORITY),
            Some(DEFAULT_PRIORITY.into()),
            &mut faults,
        );
        let ttl_s = number(fields, "ttl_s", 1..=MAX_TTL_S, None, &mut faults);
        let wait_s = number(fields, "wait_s", 0..=MAX_WAIT_S, Some(0), &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            needs,
            priority: u8::try_from(priority).unwrap_or(DEFAULT_PRIORITY),
            ttl_s,
            wait_s,
        })
    }
}

/// How long a lease is to go on, in seconds.
///
/// # Errors
/// That `ttl_s` is missing or none.
pub(super) fn ttl(fields: &Map<String, Value>) -> Result<u64, Vec<FieldError>> {
    let mut faults = Vec::new();
    let ttl_s = number(fields, "ttl_s", 1..=MAX_TTL_S, None, &mut faults);
    if faults.is_empty() {
        Ok(ttl_s)
    } else {
        Err(faults)
    }
}

fn number(
    fields: &Map<String, Value>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
    usual: Option<u64>,
    faults: &mut Vec<FieldError>,
) -> u64 {
    let (low, high) = (range.start(), range.end());
    let wanted = format!("{name} must be a whole number from {low} to {high}");
    let code = match (fields.get(name), usual) {
        (None, Some(usual)) => return usual,
        (None, None) => "missing",
        (Some(value), _) => match value.as_u64() {
            Some(n) if range.contains(&n) => return n,
            _ => "out_of_range",
        },
    };
    faults.push(FieldError::new(name, code, wanted));
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value) -> Result<Asked, Vec<String>> {
        let capacity = Amounts::from([("gpu".to_owned(), 1), ("memory".to_owned(), 1 << 34)]);
        Asked::of(value.as_object().unwrap(), &capacity).map_err(|faults| {
            faults
                .into_iter()
                .map(|f| format!("{} {}", f.field, f.code))
                .collect()
        })
    }

    #[test]
    fn requests_and_their_faults() {
        let asked = of(&json!({"resources": {"gpu": 1, "memory": "2GiB"}, "ttl_s": 30})).unwrap();
        assert_eq!(asked.needs["memory"], 2 << 30);
        assert_eq!((asked.priority, asked.ttl_s, asked.wait_s), (5, 30, 0));
        for (value, faults) in [
            (json!({}), vec!["resources missing", "ttl_s missing"]),
            (
                json!({"resources": {}, "ttl_s": 1}),
                vec!["resources missing"],
            ),
            (
                json!({"resources": {"gpu": 2}, "ttl_s": 1}),
                vec!["resources.gpu out_of_range"],
            ),
            (
                json!({"resources": {"gpu": 0}, "ttl_s": 1}),
                vec!["resources.gpu invalid"],
            ),
            (
                json!({"resources": {"tpu": 1}, "ttl_s": 1}),
                vec!["resources.tpu unknown"],
            ),
            (
                json!({"resources": {"gpu": 1}, "ttl_s": 0, "wait_s": 61, "priority": 11}),
                vec![
                    "priority out_of_range",
                    "ttl_s out_of_range",
                    "wait_s out_of_range",
                ],
            ),
        ] {
            assert_eq!(
                of(&value),
                Err(faults.into_iter().map(str::to_owned).collect()),
                "{value}"
            );
        }
    }
}
