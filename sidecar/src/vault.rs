//! Secrets of Vault's KV engine, version 2 (<https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>): read once,
//! for whoever renders configurations.
//!
//! Here because here is the one client of Vault; a running sidecar never asks for such secrets.

use crate::api::{Api, ApiError, Settings};
use crate::config::Secret;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit of a request.
const LIMIT: Duration = Duration::from_secs(10);

/// Which Vault, with which right.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its base URL.
    pub url: String,
    /// Its token.
    pub token: Secret,
    /// PEM of the authorities that its certificate is checked against; the system's when absent.
    pub ca_file: Option<PathBuf>,
}

/// A field of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `MOUNT/data/PATH`.
    pub path: String,
    /// The field.
    pub field: String,
}

/// What `GET /v1/MOUNT/data/PATH` answers.
#[derive(Deserialize)]
struct Answered {
    data: Version,
}

#[derive(Deserialize)]
struct Version {
    /// Nothing, of a version that was deleted.
    data: Option<BTreeMap<String, Value>>,
}

/// The segments of `MOUNT/data/PATH`, where it is one: nothing in it may lead to another of Vault's paths.
pub fn path(text: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = text.split('/').collect();
    let whole = |s: &&str| !matches!(*s, "" | "." | "..") && !s.contains(['?', '#', '\\']);
    let data = segments.iter().position(|s| *s == "data")?;
    let inner = data > 0 && data + 1 < segments.len();
    (inner && segments.iter().all(whole)).then_some(segments)
}

/// The value of every field that is wanted, or why there is none, in their order. A secret is asked for once.
///
/// # Errors
/// What is wrong with `access`, in words and without the token.
pub async fn read(
    access: &Access,
    wanted: &[Wanted],
) -> Result<Vec<Result<String, String>>, String> {
    let api = Api::new(&Settings {
        who: "vault",
        url: &access.url,
        ca_file: access.ca_file.as_deref(),
        header: "x-vault-token",
        token: Some(&access.token),
        token_file: None,
    })?;
    let mut known: BTreeMap<&str, Result<BTreeMap<String, Value>, String>> = BTreeMap::new();
    for one in wanted {
        if !known.contains_key(one.path.as_str()) {
            let secret = secret(&api, &one.path).await;
            known.insert(&one.path, secret);
        }
    }
    let field = |one: &Wanted| match known.get(one.path.as_str()) {
        Some(Ok(secret)) => match secret.get(&one.field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(format!(
                "field {} of {} in vault is no text",
                one.field, one.path
            )),
            None => Err(format!("{} in vault has no field {}", one.path, one.field)),
        },
        Some(Err(why)) => Err(why.clone()),
        None => Err(format!("{} was not asked for", one.path)),
    };
    Ok(wanted.iter().map(field).collect())
}

async fn secret(api: &Api, at: &str) -> Result<BTreeMap<String, Value>, String> {
    let segments = path(at).ok_or_else(|| format!("{at} is no path of a secret"))?;
    let whole: Vec<&str> = ["v1"].into_iter().chain(segments).collect();
    let ask = async {
        let answer = api.get(&whole, &[], LIMIT).await?;
        // One that is not there, and one whose version was deleted, which has metadata in place of data.
        if answer.status.as_u16() == 404 {
            let why = format!("vault has no secret at {at}, or this token may not see it");
            return Err(ApiError::Refused(why));
        }
        let answered: Answered = answer.success()?.read()?;
        let gone = || ApiError::Refused(format!("the secret at {at} in vault was deleted"));
        answered.data.data.ok_or_else(gone)
    };
    ask.await.map_err(|error: ApiError| match error {
        ApiError::Refused(why) if why.contains("403") => {
            format!("{why}; the token needs `read` on {at}")
        }
        other => other.to_string(),
    })
}
