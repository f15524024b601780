//! Who may call this service, and who may have tasks sent to it.

use super::{Faults, Inbound, ServiceName};
use mesh_protocol::assertion::{Assertions, PublicKey};
pub use mesh_protocol::callers::Callers;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who may call this service. What no intention allows is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The intentions that lead here. One that denies wins over those that allow; their order does not matter.
    pub intentions: Vec<Intention>,
    /// What proves who the originator is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assertions: Option<Assertions>,
    /// JSON lines, one for each refusal; standard error when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<PathBuf>,
}

/// One way that is open, or closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intention {
    /// The services that it speaks of.
    pub from: From,
    /// Whether they may.
    #[serde(default)]
    pub action: Action,
    /// Methods; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Prefixes of the path, by whole segments; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Whom the assertion must name; without this, anyone or no one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<Callers>,
}

/// The services that an intention speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Every service of the trust domain.
    Any,
    /// These.
    Services(Vec<ServiceName>),
}

/// Whether an intention opens a way or closes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It opens it.
    #[default]
    Allow,
    /// It closes it.
    Deny,
}

/// Whether a request must carry an assertion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AssertionRule {
    /// It may; one that is there must be good.
    #[default]
    Optional,
    /// It must, when it comes from one of these services, but for paths under these prefixes.
    Required {
        /// The services; all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<ServiceName>,
        /// Prefixes of the path, by whole segments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<String>,
    },
}

impl Policy {
    pub(super) fn check(&self, inbound: Option<&Inbound>, faults: &mut Faults) {
        for (i, intention) in self.intentions.iter().enumerate() {
            let at = format!("policy.intentions[{i}]");
            if let From::Services(services) = &intention.from
                && services.is_empty()
            {
                faults.push(format!("{at}.from names no service"));
            }
            for method in &intention.methods {
                if method.parse::<http::Method>().is_err() || *method != method.to_uppercase() {
                    faults.push(format!("{at}.methods: `{method}` is no method"));
                }
            }
            for path in &intention.paths {
                prefix(&format!("{at}.paths"), path, faults);
            }
            if intention.callers.is_some() && self.assertions.is_none() {
                faults.push(format!(
                    "{at}.callers cannot be known without policy.assertions"
                ));
            }
        }
        if let Some(assertions) = &self.assertions {
            if assertions.keys.is_empty() {
                faults.push("policy.assertions.keys is empty");
            }
            for key in &assertions.keys {
                if PublicKey::from_base64(key.kid.clone(), &key.x).is_err() {
                    let hint = if key.x.contains(' ') {
                        "; render the file with --secrets"
                    } else {
                        ""
                    };
                    faults.push(format!(
                        "policy.assertions.keys: `{}` is no Ed25519 public key in unpadded base64url{hint}",
                        key.kid
                    ));
                }
            }
        }
        let Some(inbound) = inbound else { return };
        if let AssertionRule::Required { except, .. } = &inbound.assertion {
            if self.assertions.is_none() {
                faults.push("inbound.assertion is required and there is no policy.assertions");
            }
            for path in except {
                prefix("inbound.assertion.required.except", path, faults);
            }
        }
        if self.assertions.is_none() {
            let by_certificate = |claim: &String| matches!(claim.as_str(), "peer" | "peer_service");
            if !inbound.identity_headers.values().all(by_certificate) {
                faults.push("inbound.identity_headers cannot be made without policy.assertions");
            }
            if inbound.forward_assertion {
                faults
                    .push("inbound.forward_assertion: none is verified without policy.assertions");
            }
        }
    }
}

/// A prefix that a request's path can be compared with: no path with `//`, dots or escapes ever is.
fn prefix(at: &str, path: &str, faults: &mut Faults) {
    let odd = path.contains("//")
        || path.contains(['%', '?', '#', '\\', ';'])
        || path.split('/').any(|part| matches!(part, "." | ".."));
    if !path.starts_with('/') || odd {
        faults.push(format!(
            "{at}: `{path}` must begin with / and hold neither //, dot segments nor escapes"
        ));
    }
}
