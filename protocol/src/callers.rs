//! Whom an assertion must name for a way to be open.
//!
//! Here, since two parts have to read it alike: the sidecar that refuses a step, and the orchestrator that had better
//! not plan one that is going to be refused.

use crate::assertion::Claims;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whom an assertion must name. Each list that is not empty must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Callers {
    /// Issuers of the caller's own token, any of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// Subjects, any of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Scopes, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Claims that the gateway hands on, all of them with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl Callers {
    /// Whether `claims` name one of them.
    pub fn hold_of(&self, claims: &Claims) -> bool {
        let among = |list: &[String], text: &String| list.is_empty() || list.contains(text);
        let granted = |scope: &String| claims.scope.split(' ').any(|held| held == scope);
        among(&self.issuers, &claims.origin)
            && among(&self.subjects, &claims.sub)
            && self.scopes.iter().all(granted)
            && self
                .claims
                .iter()
                .all(|(name, value)| claims.claims.get(name) == Some(value))
    }
}
