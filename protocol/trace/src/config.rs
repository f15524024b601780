//! Where spans go.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Base URL of an OTLP receiver, such as `http://127.0.0.1:4317`; nothing is exported without one.
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` in the environment overrides it, and `OTEL_EXPORTER_OTLP_HEADERS` adds
    /// what the receiver wants to know its senders by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What is spoken there. `OTEL_EXPORTER_OTLP_PROTOCOL` in the environment overrides it.
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

impl FromStr for Protocol {
    type Err = String;

    /// Reads the words of OpenTelemetry's `OTEL_EXPORTER_OTLP_PROTOCOL`, and `http`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" | "http" => Ok(Self::Http),
            _ => Err("neither grpc nor http/protobuf".to_owned()),
        }
    }
}

impl Config {
    /// Applies what the environment says; it wins over the file. An empty variable counts as unset.
    ///
    /// # Errors
    /// The variable that cannot be used, in words.
    pub fn apply(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
        let get = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        if let Some(endpoint) = get(ENDPOINT) {
            self.endpoint = Some(endpoint);
        }
        if let Some(protocol) = get(PROTOCOL) {
            self.protocol = protocol.parse().map_err(|e| format!("{PROTOCOL}: {e}"))?;
        }
        Ok(())
    }

    /// Whether this is what stands where nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

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
                && u.query().is_none()
                && u.fragment().is_none()
        });
        if good {
            Ok(())
        } else {
            Err(
                "endpoint must be an http:// or https:// URL without credentials or query, such as http://127.0.0.1:4317"
                    .to_owned(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins() {
        let mut config = Config::default();
        config.apply(&|_| Some(" ".to_owned())).unwrap();
        assert!(config.is_default());
        let environment = |name: &str| match name {
            ENDPOINT => Some("http://127.0.0.1:4318".to_owned()),
            _ => Some("http/protobuf".to_owned()),
        };
        config.apply(&environment).unwrap();
        assert_eq!(config.endpoint.as_deref(), Some("http://127.0.0.1:4318"));
        assert_eq!(config.protocol, Protocol::Http);
        let why = config.apply(&|_| Some("carrier pigeon".to_owned()));
        assert!(why.unwrap_err().contains(PROTOCOL));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |endpoint: &str, sample: f64| Config {
            endpoint: Some(endpoint.to_owned()),
            sample,
            ..Config::default()
        };
        assert_eq!(with("https://collector.example:4317", 0.5).check(), Ok(()));
        for (endpoint, sample) in [
            ("127.0.0.1:4317", 1.0),
            ("unix:/socket", 1.0),
            ("http://u:p@127.0.0.1", 1.0),
            ("http://127.0.0.1?key=k", 1.0),
            ("http://127.0.0.1", 1.1),
            ("http://127.0.0.1", f64::NAN),
        ] {
            assert!(
                with(endpoint, sample).check().is_err(),
                "{endpoint} {sample}"
            );
        }
    }
}
