//! Where spans go.

use serde::{Deserialize, Serialize};

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Base URL of an OTLP receiver, such as `http://127.0.0.1:4317`; nothing is exported without one.
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` in the environment overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Share of traces that begin here and are recorded, 0 to 1; those that come in say so themselves.
    pub sample: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Grpc,
            sample: 1.0,
        }
    }
}

/// The two transports of OTLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OTLP/gRPC, usually port 4317.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf, usually port 4318; `/v1/traces` is added.
    Http,
}

impl Config {
    /// Checks what the shape does not.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err("sample must be 0 to 1".to_owned());
        }
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let good = url::Url::parse(endpoint).is_ok_and(|u| {
            matches!(u.scheme(), "http" | "https")
                && u.has_host()
                && u.username().is_empty()
                && u.password().is_none()
        });
        if good {
            Ok(())
        } else {
            Err(
                "endpoint must be an http:// or https:// URL without credentials, such as http://127.0.0.1:4317"
                    .to_owned(),
            )
        }
    }
}
