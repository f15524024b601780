//! `/resources`: how much there is of what steps share, who has it, and leases for agents outside of runs.
//!
//! A lease belongs to the caller who got it; for anybody else it is not there. Callers from elsewhere need the scope
//! [`SCOPE`], since what they hold no step can have.

use super::failure::Failure;
use super::submit::json;
use super::{Api, Caller, body};
use crate::resources::{
    Amounts, ArbiterError, Claim, Desk, Got, Holder, Key, OnDrop, Stand, Standing, Want, excess,
    read_amount,
};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mesh_protocol::problem::FieldError;
use mesh_protocol::task::{DEFAULT_PRIORITY, MAX_PRIORITY};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Lets a caller from elsewhere take leases.
pub const SCOPE: &str = "resources:lease";
/// Largest body, in bytes: names and numbers.
const MAX_BODY: usize = 16 * 1024;
/// Longest lease without a renewal, in seconds: an hour of what nobody else has.
const MAX_TTL_S: u64 = 3600;
/// Longest wait for one, in seconds: as long as proxies leave a request open.
const MAX_WAIT_S: u64 = 60;
/// What ids of leases begin with.
const PREFIX: &str = "lease_";

#[derive(Serialize)]
struct Shown {
    resources: BTreeMap<String, ShownStand>,
    /// How many wait.
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_wait_ms: Option<u64>,
    /// Those that the caller may see.
    holders: Vec<ShownHolder>,
}

#[derive(Serialize)]
struct ShownStand {
    capacity: u64,
    in_use: u64,
    waiting: u64,
}

#[derive(Serialize)]
struct ShownHolder {
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    resources: Amounts,
    priority: u8,
    expires_in_ms: u64,
}

/// How things stand.
pub async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    let standing = match &api.executor.context().desk {
        None => Standing::default(),
        Some(desk) => desk.arbiter().look().await.map_err(unavailable)?,
    };
    let own = holder(&caller);
    let stands = standing.resources.into_iter().map(|(name, stand)| {
        let Stand {
            capacity,
            in_use,
            waiting,
        } = stand;
        let shown = ShownStand {
            capacity,
            in_use,
            waiting,
        };
        (name, shown)
    });
    let shown = Shown {
        resources: stands.collect(),
        waiting: standing.waiting,
        oldest_wait_ms: standing.oldest_wait.map(millis),
        holders: standing
            .holders
            .into_iter()
            // Whose a step is, is not known here.
            .filter(|h| caller.reads_all() || h.holder == own)
            .map(shown_holder)
            .collect(),
    };
    Ok(json(StatusCode::OK, &shown))
}

fn shown_holder(holder: Holder) -> ShownHolder {
    let of_a_step = holder.holder.is_empty();
    let (task, step) = match holder.id.split_once('/') {
        Some((task, step)) if of_a_step => (Some(task.to_owned()), Some(step.to_owned())),
        _ => (None, None),
    };
    ShownHolder {
        lease_id: task.is_none().then_some(holder.id),
        task_id: task,
        step_id: step,
        resources: holder.needs,
        priority: holder.priority,
        expires_in_ms: millis(holder.left),
    }
}

#[derive(Serialize)]
struct Lease<'a> {
    lease_id: &'a str,
    /// The fencing token: what is shared can refuse a holder that was overtaken.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a Amounts>,
    ttl_s: u64,
}

/// Takes a lease, waiting at most `wait_s` for it.
pub async fn take(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let desk = permitted(&api, &caller)?;
    let wanted = read(request).await?;
    let asked = Asked::of(&wanted, desk.capacity()).map_err(Failure::fields)?;
    let id = format!("{PREFIX}{}", uuid::Uuid::now_v7().simple());
    let want = Want {
        key: key(&caller, &id),
        needs: asked.needs.clone(),
        priority: asked.priority,
        ttl: Some(Duration::from_secs(asked.ttl_s)),
        running: false,
    };
    // A client that goes away takes nothing with it.
    let (stake, got) = desk.ask(want, OnDrop::GiveBack);
    // Not to wait is still to ask.
    let patience = Duration::from_secs(asked.wait_s).max(Duration::from_millis(500));
    let got = tokio::select! {
        got = tokio::time::timeout(patience, got) => got.ok(),
        () = api.stopping.cancelled() => None,
    };
    match got {
        Some(Got::Granted { token }) => {
            // From now on it is the caller who renews.
            stake.leave();
            let lease = Lease {
                lease_id: &id,
                token: Some(token),
                resources: Some(&asked.needs),
                ttl_s: asked.ttl_s,
            };
            Ok(json(StatusCode::CREATED, &lease))
        }
        Some(Got::TooMuch | Got::Superseded) => Err(Failure::fields(vec![FieldError::new(
            "resources",
            "out_of_range",
            "there is not so much",
        )])),
        None => Err(Failure::resources_in_use()),
    }
}

/// Keeps a lease for `ttl_s` from now.
pub async fn renew(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let desk = permitted(&api, &caller)?;
    let wanted = read(request).await?;
    let mut faults = Vec::new();
    let ttl_s = number(&wanted, "ttl_s", 1..=MAX_TTL_S, None, &mut faults);
    if !faults.is_empty() {
        return Err(Failure::fields(faults));
    }
    let claims = [Claim {
        key: key(&caller, &checked(&id)?),
        held: true,
    }];
    let renewed = desk.arbiter().renew(&claims, Duration::from_secs(ttl_s));
    let renewed = renewed.await.map_err(unavailable)?;
    if !renewed.gone.is_empty() || !renewed.superseded.is_empty() {
        return Err(no_lease());
    }
    let lease = Lease {
        lease_id: &id,
        token: None,
        resources: None,
        ttl_s,
    };
    Ok(json(StatusCode::OK, &lease))
}

/// Returns a lease.
pub async fn give_back(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let desk = permitted(&api, &caller)?;
    let key = key(&caller, &checked(&id)?);
    let given = desk.arbiter().give_back(&key);
    if given.await.map_err(unavailable)? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(no_lease())
    }
}

fn permitted<'a>(api: &'a Api, caller: &Caller) -> Result<&'a Arc<Desk>, Failure> {
    if !caller.has_scope(SCOPE) {
        return Err(Failure::scope_missing(SCOPE));
    }
    let desk = api.executor.context().desk.as_ref();
    desk.ok_or_else(|| Failure::not_found("this mesh declares no resources"))
}

/// Who a lease belongs to. Never empty: that is a step's.
fn holder(caller: &Caller) -> String {
    match caller.owner() {
        None => "local".to_owned(),
        // The length keeps (a, b:c) apart from (a:b, c).
        Some(o) => format!("caller:{}:{}:{}", o.origin.len(), o.origin, o.sub),
    }
}

fn key(caller: &Caller, id: &str) -> Key {
    Key {
        id: id.to_owned(),
        holder: holder(caller),
        generation: 1,
    }
}

/// An id of a lease that was given out here; anything else is none.
fn checked(id: &str) -> Result<String, Failure> {
    let legal = |b: u8| b.is_ascii_hexdigit();
    match id.strip_prefix(PREFIX) {
        Some(rest) if rest.len() == 32 && rest.bytes().all(legal) => Ok(id.to_owned()),
        _ => Err(no_lease()),
    }
}

fn no_lease() -> Failure {
    Failure::not_found("there is no such lease, or it has expired")
}

#[allow(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unavailable(error: ArbiterError) -> Failure {
    tracing::warn!(%error, "the arbiter was asked in vain");
    Failure::unavailable("resources cannot be looked after at the moment")
}

async fn read(request: Request) -> Result<Map<String, Value>, Failure> {
    let (parts, request_body) = request.into_parts();
    let bytes = body::read(&parts.headers, request_body, MAX_BODY).await?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|e| Failure::not_json(e.to_string()))?;
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            Ok(fields)
        }
        _ => Err(Failure::fields(vec![FieldError::new(
            "",
            "wrong_type",
            "the body must be a JSON object",
        )])),
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq)]
struct Asked {
    needs: Amounts,
    priority: u8,
    ttl_s: u64,
    wait_s: u64,
}

impl Asked {
    fn of(fields: &Map<String, Value>, capacity: &Amounts) -> Result<Self, Vec<FieldError>> {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

    #[test]
    fn ids_of_others_are_none() {
        let id = format!("{PREFIX}{}", uuid::Uuid::now_v7().simple());
        assert!(checked(&id).is_ok());
        for bad in [
            "",
            "task_1/step",
            "lease_",
            &format!("{id}0"),
            &id.replace('l', "L"),
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
