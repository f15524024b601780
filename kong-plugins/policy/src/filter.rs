//! What every filter is: a configuration that compiles into a policy that decides.

use crate::{Decision, RequestHead};
use mesh_protocol::Timestamp;
use serde::de::DeserializeOwned;

/// One fault of a configuration. Its text never repeats a value, since the value may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// The faulty field, as `issuers[0].keys[1].secret`; `config` for the whole.
    pub path: String,
    /// The fault and the mend.
    pub message: String,
}

impl ConfigError {
    /// A fault of the field at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// A filter: compiled once, asked per request.
pub trait Filter: Sized + 'static {
    /// File name of its module, with `_`: Kong loses every metric to a name with `-`.
    const NAME: &'static str;
    /// Its configuration as Kong delivers it, in JSON.
    type Config: DeserializeOwned;

    /// Checks and prepares `config`.
    ///
    /// # Errors
    /// Every fault that was found.
    fn compile(config: &Self::Config) -> Result<Self, Vec<ConfigError>>;

    /// Decides on one request at `now`.
    fn decide(&self, head: &dyn RequestHead, now: Timestamp) -> Decision;
}

/// Compiles a configuration from its JSON text.
///
/// # Errors
/// Every fault that was found; of a text that is no such configuration, the first.
pub fn load<F: Filter>(json: &[u8]) -> Result<F, Vec<ConfigError>> {
    let config = serde_json::from_slice(json).map_err(|fault| vec![unreadable(&fault)])?;
    F::compile(&config)
}

fn unreadable(fault: &serde_json::Error) -> ConfigError {
    // serde quotes the value it found, except where a field's name is the fault.
    let text = fault.to_string();
    let what = if ["missing field", "unknown field", "duplicate field"]
        .iter()
        .any(|known| text.starts_with(known))
    {
        text
    } else if fault.is_data() {
        format!(
            "a value has the wrong type at line {} column {}",
            fault.line(),
            fault.column()
        )
    } else {
        format!(
            "no JSON object, see line {} column {}",
            fault.line(),
            fault.column()
        )
    };
    ConfigError::new("config", what)
}
