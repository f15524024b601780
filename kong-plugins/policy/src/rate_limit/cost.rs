//! What a request costs: one unit, or what a header or the task's type says.

use super::{Stop, keys};
use crate::config::Cost;
use crate::{ConfigError, Refusal, RequestHead};
use mesh_protocol::problem::Problem;
use serde::Deserialize;
use std::borrow::Cow;

/// What the head of a request says about its cost.
pub(super) enum Priced {
    Units(u64),
    /// The body decides.
    ByBody,
}

/// Checks a cost.
pub(super) fn check(cost: &Cost, path: &str, faults: &mut Vec<ConfigError>) {
    match cost {
        Cost::Header { name, max } => {
            if !keys::is_header_name(name) || *max == 0 {
                faults.push(ConfigError::new(
                    format!("{path}.header"),
                    "needs a header's name in lower case and a max of 1 or more",
                ));
            }
        }
        Cost::TaskType { units, .. } => {
            if units.is_empty() || units.keys().any(String::is_empty) {
                faults.push(ConfigError::new(
                    format!("{path}.task_type.units"),
                    "needs a task type or more, each with its units (0 is free)",
                ));
            }
        }
    }
}

/// The cost as far as the head tells it.
pub(super) fn by_head(cost: Option<&Cost>, head: &dyn RequestHead) -> Result<Priced, Stop> {
    match cost {
        None => Ok(Priced::Units(1)),
        Some(Cost::TaskType { .. }) if head.method()? == b"POST" => Ok(Priced::ByBody),
        Some(Cost::TaskType { .. }) => Ok(Priced::Units(1)),
        Some(Cost::Header { name, max }) => {
            let values = head.header(name)?;
            let Some(value) = values.first() else {
                return Ok(Priced::Units(1));
            };
            std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .filter(|cost| values.len() == 1 && (1..=*max).contains(cost))
                .map(Priced::Units)
                .ok_or_else(|| Stop::Refused(wrong(name, *max)))
        }
    }
}

/// The cost of a task: what it says it is, if that can be read.
pub(super) fn by_body(cost: Option<&Cost>, body: &[u8]) -> u64 {
    let Some(Cost::TaskType { units, other }) = cost else {
        return 1;
    };
    match task_type(body) {
        Some(kind) => units.get(kind.as_ref()).copied().unwrap_or(*other),
        // Nobody saves units by a body that only others can read.
        None => units.values().copied().max().unwrap_or(1).max(*other),
    }
}

/// The members that name a task's type; the older one counts where the newer is not. Not `task_body`: what
/// is no good task otherwise is priced by its type all the same, and refused by somebody else.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    task_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    task: Option<Cow<'a, str>>,
}

fn task_type(body: &[u8]) -> Option<Cow<'_, str>> {
    let named: Named<'_> = serde_json::from_slice(body).ok()?;
    named.task_type.or(named.task)
}

fn wrong(name: &str, max: u64) -> Refusal {
    let detail = format!("the header {name} must be one whole number from 1 to {max}");
    let problem =
        Problem::new(400, "wrong-cost", "the request's cost cannot be read").with_detail(detail);
    Refusal::new("wrong_cost", &problem)
}
