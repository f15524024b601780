//! What every filter is: a configuration that compiles into a policy that decides.

use crate::{Decision, Fetch, Fetched, Host, RequestHead};
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
///
/// A request meets [`Filter::decide`], then [`Filter::decide_body`] if the filter looks at bodies and
/// there is one, then [`Filter::response_headers`], and [`Filter::end`] however it ended. A request that
/// another filter refused may meet the last two alone.
pub trait Filter: Sized + 'static {
    /// File name of its module, with `_`: Kong loses every metric to a name with `-`.
    const NAME: &'static str;
    /// Its configuration as Kong delivers it, in JSON.
    type Config: DeserializeOwned;
    /// What it keeps of one request, from its head to its end.
    type Request: Default + 'static;

    /// Checks and prepares `config`.
    ///
    /// # Errors
    /// Every fault that was found.
    fn compile(config: &Self::Config) -> Result<Self, Vec<ConfigError>>;

    /// Revision of the mesh.yaml that `config` was rendered from; empty when unknown. A gateway keeps old
    /// configurations ticking, so a filter's tick stops when a configuration of another revision came.
    fn revision(_config: &Self::Config) -> &str {
        ""
    }

    /// How often it wants [`Filter::tick`], in milliseconds; none for never. Asked once.
    fn tick_ms(&self) -> Option<u32> {
        None
    }

    /// Looks around, outside of any request: what is to be asked of other services now. Every worker of
    /// a gateway ticks for itself.
    fn tick(&self, _host: &dyn Host) -> Vec<Fetch> {
        Vec::new()
    }

    /// What became of the call `id` that [`Filter::tick`] asked for.
    fn fetched(&self, _id: u32, _fetched: Fetched, _host: &dyn Host) {}

    /// Decides on one request by its head.
    fn decide(
        &self,
        request: &mut Self::Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Decision;

    /// Whether it decides on the body of this request, too.
    fn wants_body(&self, _request: &Self::Request) -> bool {
        false
    }

    /// Decides on the whole body; none where it is too large for the gateway to show it.
    fn decide_body(
        &self,
        _request: &mut Self::Request,
        _body: Option<&[u8]>,
        _host: &dyn Host,
    ) -> Decision {
        Decision::Pass(crate::Pass::because("unread"))
    }

    /// Headers that it adds to the response, whoever that is from.
    fn response_headers(&self, _request: &Self::Request) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The request is over, passed or not.
    fn end(&self, _request: &mut Self::Request, _host: &dyn Host) {}
}

/// Compiles a configuration from its JSON text; returns its revision beside it.
///
/// # Errors
/// Every fault that was found; of a text that is no such configuration, the first.
pub fn load<F: Filter>(json: &[u8]) -> Result<(F, String), Vec<ConfigError>> {
    // As text, as tokens are read: a second JSON reader, for bytes, would make a module 25 kB larger.
    let json = std::str::from_utf8(json)
        .map_err(|_| vec![ConfigError::new("config", "no text in UTF-8")])?;
    // Else a list would be read as the fields in their order, an empty one as all that can be left out.
    if json.trim_ascii_start().starts_with('[') {
        return Err(vec![ConfigError::new(
            "config",
            "no JSON object, but a list",
        )]);
    }
    let config = serde_json::from_str(json).map_err(|fault| vec![unreadable(&fault)])?;
    let revision = F::revision(&config).to_owned();
    Ok((F::compile(&config)?, revision))
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
