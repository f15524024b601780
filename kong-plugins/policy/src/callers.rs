//! Conditions on who is calling.

use crate::decision::FOUND_CALLER;
use crate::{Caller, ConfigError, Host, scopes};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// Most scopes or claims of one condition.
const MOST: usize = 16;

/// Scopes that a caller must all have, and claims that it must have with these values. Empty: everybody,
/// callers that nobody knows among them.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    scopes: Vec<String>,
    claims: BTreeMap<String, String>,
}

impl Condition {
    pub(crate) fn compile(
        scopes: &[String],
        claims: &BTreeMap<String, String>,
        path: &str,
        faults: &mut Vec<ConfigError>,
    ) -> Self {
        if scopes.len() > MOST {
            faults.push(ConfigError::new(
                format!("{path}.scopes"),
                format!("at most {MOST}"),
            ));
        }
        scopes::check(scopes, &format!("{path}.scopes"), faults);
        if claims.len() > MOST || claims.keys().any(String::is_empty) {
            faults.push(ConfigError::new(
                format!("{path}.claims"),
                format!("at most {MOST}, each with a name"),
            ));
        }
        Self {
            scopes: scopes.to_vec(),
            claims: claims.clone(),
        }
    }

    /// Whether it is about everybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.claims.is_empty()
    }

    pub(crate) fn holds(&self, calling: &Calling<'_>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(caller) = calling.caller() else {
            return false;
        };
        scopes::grants(&caller.scope, &self.scopes)
            && self
                .claims
                .iter()
                .all(|(name, value)| caller.claims.get(name) == Some(value))
    }
}

/// The caller of one request, asked of the gateway when somebody wants to know, and once.
pub(crate) struct Calling<'a> {
    host: &'a dyn Host,
    text: OnceCell<Option<Vec<u8>>>,
    caller: OnceCell<Option<Caller>>,
}

impl<'a> Calling<'a> {
    pub(crate) fn of(host: &'a dyn Host) -> Self {
        Self {
            host,
            text: OnceCell::new(),
            caller: OnceCell::new(),
        }
    }

    /// Whether an earlier filter verified the caller; cheaper than who it is.
    pub(crate) fn is_known(&self) -> bool {
        self.text().is_some()
    }

    fn text(&self) -> Option<&[u8]> {
        let text = &self.text;
        text.get_or_init(|| self.host.found(FOUND_CALLER))
            .as_deref()
    }

    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller
            .get_or_init(|| Caller::read(self.text()?))
            .as_ref()
    }
}
