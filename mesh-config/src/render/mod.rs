//! What each part reads, made of the checked mesh: pure functions, each into the type that its reader
//! parses.
//!
//! With [`Secrets::none`] every secret is shown as a reference (`{file: …}`), which no reader accepts
//! as a key, so such a file can be looked at and compared and can never run by mistake.

pub mod compose;
pub mod consul;
mod files;
mod filters;
mod fronted;
mod grafana;
mod kong;
pub mod kubernetes;
mod orchestrator;
mod prometheus;
pub mod rabbitmq;
mod record;
mod sidecar;
mod targets;

pub use consul::consul;
pub use files::{Rendered, Written, write_all};
pub use grafana::grafana;
pub use kong::{FILTERS_PATH, SERVICE, environment, kong};
pub use orchestrator::orchestrator;
pub use prometheus::prometheus;
pub use rabbitmq::rabbitmq;
pub use record::{Replaced, replace_all};
pub use sidecar::{
    GATEWAY_OUTBOUND, gateway_sidecar, may_call, orchestrator_sidecar, sidecar, sidecars,
};
pub use targets::{TARGETS, Target, target};

use crate::secret::{Secrets, Source};
use targets::yaml;

/// Why a mesh cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A secret has a value, and it is of no use.
    #[error("{path}: {problem}")]
    Secret {
        /// The field.
        path: String,
        /// What is wrong; without the value.
        problem: String,
    },
    /// A filter does not take what mesh.yaml says of it, with the values of its secrets.
    #[error("gateway.filters.{filter}: {problem}")]
    Filter {
        /// The filter.
        filter: &'static str,
        /// What is wrong; without values.
        problem: String,
    },
    /// An agent that nothing is named for to hold it.
    #[error("{0}")]
    Container(String),
    /// A value cannot be written in the reader's form.
    #[error("{part} cannot be written: {detail}")]
    Write {
        /// Whose file it is.
        part: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// A URL for a configuration type that takes nothing but URLs: a reference becomes a host that cannot
/// exist (RFC 2606), a password in the open is left out.
fn url_of(secrets: &Secrets, source: &Source, scheme: &str) -> String {
    if let Some(value) = secrets.value(source) {
        return value.to_owned();
    }
    match source {
        Source::Inline(text) => match url::Url::parse(text) {
            Ok(mut url) if url.password().is_some() => {
                if url.set_password(Some("hidden")).is_err() {
                    return format!("{scheme}://see-mesh-yaml.invalid");
                }
                url.into()
            }
            _ => text.clone(),
        },
        Source::Env(name) => {
            let name = name.to_ascii_lowercase().replace('_', "-");
            format!("{scheme}://see-environment.{name}.invalid")
        }
        Source::File(_) => format!("{scheme}://see-secret-file.invalid"),
    }
}
