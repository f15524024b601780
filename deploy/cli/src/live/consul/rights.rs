//! Whether a token may read what is missing.
//!
//! Consul leaves out of its lists what a token may not read, and says nothing of it: what is there would look as if it
//! were not, and as if it had to be made.

use super::super::http::Api;
use super::super::resource::text;
use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most questions that Consul answers at once.
const MOST: usize = 64;

/// Asks for the right to read each of `wanted`: its kind in Consul's rules, and its name.
///
/// # Errors
/// With the first of them that the token lacks.
pub async fn to_read(api: &Api, wanted: BTreeSet<(&str, &str)>) -> anyhow::Result<()> {
    let wanted: Vec<(&str, &str)> = wanted.into_iter().collect();
    let path = ["v1", "internal", "acl", "authorize"];
    for some in wanted.chunks(MOST) {
        let asked = some.iter().map(
            |(resource, name)| json!({"Resource": resource, "Segment": name, "Access": "read"}),
        );
        let asked = Value::Array(asked.collect());
        let answer = api.send(Method::POST, &path, &[], Some(&asked)).await?;
        // With ACLs off everybody reads everything (401); before 1.8 nobody can be asked (404).
        if !answer.is_success() {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let refused = answer.as_array().into_iter().flatten();
        let mut refused = refused.filter(|one| one.get("Allow") == Some(&Value::Bool(false)));
        if let Some(one) = refused.next() {
            bail!(
                "Consul does not show {} {} to this token, so whether it is there is not known; give registry.token the right to read it",
                text(one, "Resource"),
                text(one, "Segment")
            );
        }
    }
    Ok(())
}
