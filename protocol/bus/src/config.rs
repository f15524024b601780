//! Which backend, and where it is.

use crate::{Bus, BusError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Which backend, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase", deny_unknown_fields)]
pub enum BusConfig {
    /// In this process; for one-process meshes and tests. Empty after a restart.
    Memory,
    /// RabbitMQ 3.10 or newer.
    Rabbitmq {
        /// `amqp://` or `amqps://`.
        url: BrokerUrl,
    },
}

impl BusConfig {
    /// The backend's name, as traces have it (OpenTelemetry's `messaging.system`).
    pub fn system(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rabbitmq { .. } => "rabbitmq",
        }
    }
}

/// An `amqp://` or `amqps://` URL; `Debug` and `Display` leave out the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BrokerUrl(url::Url);

impl BrokerUrl {
    /// The URL with its credentials, for the client library alone.
    pub(crate) fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The URL with `***` for its password, to be shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // Fails for URLs without a host alone, and such a one is none of these.
            let _ = shown.set_password(Some("***"));
        }
        Self(shown)
    }
}

impl TryFrom<String> for BrokerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "amqp" | "amqps") && url.has_host() => Ok(Self(url)),
            _ => Err("not a broker URL, such as amqp://user:password@host:5672/vhost".to_owned()),
        }
    }
}

impl From<BrokerUrl> for String {
    fn from(url: BrokerUrl) -> String {
        url.0.into()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.masked().0, f)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The backend that `config` names. A broker that is not there yet is waited for in the background.
///
/// The memory backend is a new, empty broker each time; parts of one process that are to meet share
/// clones of one [`MemoryBus`](crate::memory::MemoryBus) instead.
///
/// # Errors
/// [`BusError::Refused`] when the configuration cannot work at all.
pub async fn connect(config: &BusConfig) -> Result<Arc<dyn Bus>, BusError> {
    match config {
        BusConfig::Memory => Ok(Arc::new(crate::memory::MemoryBus::new())),
        BusConfig::Rabbitmq { url } => {
            Ok(Arc::new(crate::rabbitmq::RabbitBus::connect(url).await?))
        }
    }
}
