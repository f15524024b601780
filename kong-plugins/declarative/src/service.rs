//! Services: where requests go.

use crate::{DeclarativeError, Plugin, Route, yes};
use serde::{Deserialize, Serialize};

/// Kong's default for the three timeouts, in milliseconds.
const TIMEOUT_MS: u32 = 60_000;
/// Kong's default for retries.
const RETRIES: u32 = 5;

/// One upstream service. Says where it is by `url`, or by `host` with `protocol`, `port` and `path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// `http://host[:port][/path]`, a short form of the four fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `http`, `https` or `grpc` (HTTP/2 without TLS); `http` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Host name, address, or the name of an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port; 80 or 443 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Prefix of every path that goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often another try is made when no connection comes about.
    #[serde(default = "retries", skip_serializing_if = "is_retries")]
    pub retries: u32,
    /// Longest wait for a connection, in milliseconds.
    #[serde(default = "timeout", skip_serializing_if = "is_timeout")]
    pub connect_timeout: u32,
    /// Longest wait between two writes, in milliseconds.
    #[serde(default = "timeout", skip_serializing_if = "is_timeout")]
    pub write_timeout: u32,
    /// Longest wait between two reads, in milliseconds.
    #[serde(default = "timeout", skip_serializing_if = "is_timeout")]
    pub read_timeout: u32,
    /// Whether the certificate of a service of https is verified; as Kong is set up when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_verify: Option<bool>,
    /// Most authorities between that certificate and a trusted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_verify_depth: Option<u8>,
    /// A disabled service has no routes.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Routes that lead here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Plugins of this service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
}

/// Where a service is, whichever way it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Whether HTTP/2 is spoken, without asking first: protocol `grpc`.
    pub h2: bool,
    /// Host name, address (IPv6 in brackets), or the name of an upstream.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Prefix of every path, beginning with `/`; empty when there is none.
    pub path: String,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: None,
            protocol: None,
            host: None,
            port: None,
            path: None,
            retries: RETRIES,
            connect_timeout: TIMEOUT_MS,
            write_timeout: TIMEOUT_MS,
            read_timeout: TIMEOUT_MS,
            tls_verify: None,
            tls_verify_depth: None,
            enabled: true,
            tags: Vec::new(),
            routes: Vec::new(),
            plugins: Vec::new(),
        }
    }
}

impl Service {
    /// Where this service is.
    ///
    /// # Errors
    /// [`DeclarativeError::Service`] when it says nowhere, in two ways, or by another protocol.
    pub fn target(&self) -> Result<Target, DeclarativeError> {
        let wrong = |problem: String| DeclarativeError::Service {
            service: self.name.clone(),
            problem,
        };
        let (scheme, host, port, path) = if let Some(url) = &self.url {
            let parts = [self.protocol.is_some(), self.host.is_some()];
            if parts.contains(&true) || self.port.is_some() || self.path.is_some() {
                let text = "url and one of protocol, host, port, path are given";
                return Err(wrong(text.to_owned()));
            }
            let uri: http::Uri = url
                .parse()
                .map_err(|_| wrong(format!("`{url}` is no url")))?;
            let scheme = uri.scheme_str().unwrap_or_default().to_owned();
            let host = uri.host().unwrap_or_default().to_owned();
            if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
                return Err(wrong("a url has no query and no user here".to_owned()));
            }
            (scheme, host, uri.port_u16(), uri.path().to_owned())
        } else {
            (
                self.protocol.clone().unwrap_or_else(|| "http".to_owned()),
                self.host.clone().unwrap_or_default(),
                self.port,
                self.path.clone().unwrap_or_default(),
            )
        };
        let (tls, h2) = match scheme.as_str() {
            "http" => (false, false),
            "https" => (true, false),
            "grpc" => (false, true),
            other => return Err(wrong(format!("protocol `{other}` is not supported"))),
        };
        if host.is_empty() {
            return Err(wrong("neither url nor host says where it is".to_owned()));
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err(wrong(format!("path `{path}` does not begin with /")));
        }
        Ok(Target {
            tls,
            h2,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            path: if path == "/" { String::new() } else { path },
        })
    }
}

fn retries() -> u32 {
    RETRIES
}

fn is_retries(value: &u32) -> bool {
    *value == RETRIES
}

fn timeout() -> u32 {
    TIMEOUT_MS
}

fn is_timeout(value: &u32) -> bool {
    *value == TIMEOUT_MS
}
