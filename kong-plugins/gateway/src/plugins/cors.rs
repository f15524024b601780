//! cors: which pages of other origins may ask.

use super::Additions;
use crate::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

const METHODS: [&str; 9] = [
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];
const ASK_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// Most memory of a compiled expression, in bytes.
const COMPILED_BYTES: usize = 256 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    exposed_headers: Vec<String>,
    methods: Option<Vec<String>>,
    max_age: Option<u64>,
    #[serde(default)]
    credentials: bool,
    #[serde(default)]
    private_network: bool,
    #[serde(default)]
    preflight_continue: bool,
    #[serde(default = "yes")]
    allow_origin_absent: bool,
}

fn yes() -> bool {
    true
}

/// The plugin, checked.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    methods: HeaderValue,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    allow_origin_absent: bool,
}

#[derive(Debug)]
enum Origins {
    All,
    /// The one, which is named whoever asks.
    One(HeaderValue),
    Some(Vec<Origin>),
}

#[derive(Debug)]
enum Origin {
    All,
    /// In its normal form.
    Plain(String),
    /// Compared with the host alone when it holds no colon.
    Pattern {
        pattern: Regex,
        host: bool,
    },
}

impl Cors {
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let list = |field: &str, words: &[String]| -> Result<Option<HeaderValue>, String> {
            if words.is_empty() {
                return Ok(None);
            }
            let value = HeaderValue::from_str(&words.join(","));
            value
                .map(Some)
                .map_err(|_| format!("config.{field}: a word that no header can hold"))
        };
        let methods = config
            .methods
            .unwrap_or_else(|| METHODS.map(str::to_owned).to_vec());
        if let Some(other) = methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
            return Err(format!("config.methods: {other} is none of Kong's"));
        }
        Ok(Self {
            origins: Origins::read(&config.origins)?,
            headers: list("headers", &config.headers)?,
            exposed: list("exposed_headers", &config.exposed_headers)?,
            methods: list("methods", &methods)?.unwrap_or(HeaderValue::from_static("")),
            max_age: config.max_age.map(HeaderValue::from),
            credentials: config.credentials,
            private_network: config.private_network,
            preflight_continue: config.preflight_continue,
            allow_origin_absent: config.allow_origin_absent,
        })
    }

    /// The answer to a preflight; None to any other request.
    pub(super) fn preflight(
        &self,
        parts: &http::request::Parts,
        additions: &mut Additions,
    ) -> Option<Response<Body>> {
        let asked = &parts.headers;
        let origin = asked.get(ORIGIN).filter(|o| !o.is_empty())?;
        if parts.method != Method::OPTIONS || !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        additions.no_cors = true;
        if self.preflight_continue {
            return None;
        }
        let mut response = Response::new(Body::full(""));
        let headers = response.headers_mut();
        self.allow(headers, Some(origin));
        let words = self.headers.as_ref();
        if let Some(words) = words.or_else(|| asked.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, words.clone());
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        if self.private_network && asked.get(ASK_PRIVATE).is_some_and(|v| v == "true") {
            headers.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
        }
        Some(response)
    }

    /// Adds to any other answer what a browser asks for.
    pub(super) fn respond(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        let origin = origin.filter(|o| !o.is_empty());
        if origin.is_none() && !self.allow_origin_absent {
            return;
        }
        self.allow(headers, origin);
        if let Some(exposed) = &self.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn allow(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        let all = self.origins.allow(headers, origin);
        if !self.credentials {
            return;
        }
        if !all {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        } else if let Some(origin) = origin {
            // `*` does not go with credentials: the origin itself is named.
            vary(headers);
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

fn vary(headers: &mut HeaderMap) {
    // A full map has no room for it, and is bounded far below that.
    let _ = headers.try_append(VARY, HeaderValue::from_static("Origin"));
}

impl Origins {
    fn read(origins: &[String]) -> Result<Self, String> {
        let plain = |text: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b".:/-".contains(&b);
            !text.is_empty() && text.bytes().all(legal)
        };
        match origins {
            [] => return Ok(Self::All),
            [one] if one == "*" => return Ok(Self::All),
            [one] if plain(one) => {
                return HeaderValue::from_str(one)
                    .map(Self::One)
                    .map_err(|_| "config.origins: no origin".to_owned());
            }
            _ => {}
        }
        let read = |text: &String| -> Result<Origin, String> {
            if text == "*" {
                return Ok(Origin::All);
            }
            if plain(text) {
                return Ok(Origin::Plain(normal(text).0));
            }
            // Anchored at both ends, as Kong does it.
            let inner = text.strip_prefix('^').unwrap_or(text);
            let inner = inner.strip_suffix('$').unwrap_or(inner);
            let pattern = RegexBuilder::new(&format!("^(?:{inner})$"))
                .size_limit(COMPILED_BYTES)
                .build()
                .map_err(|_| {
                    format!("config.origins: {text} is no regular expression that runs here")
                })?;
            Ok(Origin::Pattern {
                pattern,
                host: !text.contains(':'),
            })
        };
        Ok(Self::Some(
            origins.iter().map(read).collect::<Result<_, _>>()?,
        ))
    }

    /// Writes the origin that may read the answer; true when all may.
    fn allow(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) -> bool {
        let some = match self {
            Self::All => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                return true;
            }
            Self::One(one) => {
                vary(headers);
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, one.clone());
                return false;
            }
            Self::Some(some) => some,
        };
        vary(headers);
        if let Some(text) = origin.and_then(|o| o.to_str().ok()) {
            let (domain, host) = normal(text);
            for origin in some {
                let found = match origin {
                    Origin::All => {
                        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                        return true;
                    }
                    Origin::Plain(plain) => *plain == domain,
                    Origin::Pattern {
                        pattern,
                        host: true,
                    } => pattern.is_match(&host),
                    Origin::Pattern { pattern, .. } => pattern.is_match(&domain),
                };
                if found && let Ok(value) = HeaderValue::from_str(&domain) {
                    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
                    return false;
                }
            }
        }
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        false
    }
}

/// An origin without the port that its scheme has anyway, and its host.
fn normal(text: &str) -> (String, String) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return (text.to_owned(), text.to_owned());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port.filter(|p| !matches!((scheme, *p), ("http", "80") | ("https", "443")));
    let domain = match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    (domain, host.to_owned())
}
