//! `/resources`: how much there is of what steps share, who has it, and leases for agents outside of runs.
//!
//! A lease belongs to the caller who got it; for anybody else it is not there. Callers from elsewhere need the scope
//! [`SCOPE`], since what they hold no step can have.

mod asked;

use super::failure::Failure;
use super::submit::json;
use super::{Api, Caller, body};
use crate::resources::{
    Amounts, ArbiterError, Claim, Desk, Got, Holder, Key, OnDrop, Stand, Standing, Want,
};
use asked::{Asked, ttl};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mesh_protocol::problem::FieldError;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Lets a caller from elsewhere take leases.
pub const SCOPE: &str = "resources:lease";
/// Largest body, in bytes: names and numbers.
const MAX_BODY: usize = 16 * 1024;
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
    let ttl_s = ttl(&wanted).map_err(Failure::fields)?;
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
