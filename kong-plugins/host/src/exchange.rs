//! One request and its response, as filters see and change them.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::borrow::Cow;

/// One request and its response. Lent to a [`crate::Vm`] for the time of a call.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The request as it goes to the service.
    pub request: Head,
    /// The whole request body, in the body callback.
    pub request_body: Bytes,
    /// The response as it goes to the client.
    pub response: Head,
    /// The part of the response body that is on its way.
    pub response_body: Bytes,
    /// What filters may ask for by path.
    pub properties: Properties,
}

/// Headers with the pseudo headers of HTTP/2 (`:method`, `:path`, `:status`), which Proxy-Wasm has for
/// every version of HTTP.
#[derive(Debug, Default)]
pub struct Head {
    /// Names begin with `:`. A filter can change those that are here and add none.
    pub pseudo: Vec<(&'static str, Bytes)>,
    /// The headers; values are bytes and stay as they are.
    pub headers: HeaderMap,
}

impl Head {
    /// The pseudo header `name`.
    pub fn pseudo(&self, name: &str) -> Option<&Bytes> {
        self.pseudo.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Sets the pseudo header `name`.
    pub fn set_pseudo(&mut self, name: &'static str, value: impl Into<Bytes>) {
        let value = value.into();
        match self.pseudo.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => self.pseudo.push((name, value)),
        }
    }

    /// Number of headers, pseudo headers included.
    pub fn len(&self) -> usize {
        self.pseudo.len() + self.headers.len()
    }

    /// Whether there is no header at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values by path, the parts of the path joined by `.`.
///
/// A list: a request has a dozen, and each would be hashed once to be set and once to be read.
#[derive(Debug, Default, Clone)]
pub struct Properties(Vec<(Cow<'static, str>, Bytes)>);

/// The one part of the tree that filters may write: what one found and a later one needs.
pub(crate) const SHARED: &str = "kong.ctx.shared.";
/// Most values that one request's filters may leave there; a filter leaves a handful.
const MAX_PROPERTIES: usize = 256;

impl Properties {
    /// Sets the value at `path`.
    pub fn set(&mut self, path: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        let (path, value) = (path.into(), value.into());
        match self.0.iter_mut().find(|(at, _)| *at == path) {
            Some(entry) => entry.1 = value,
            None => self.0.push((path, value)),
        }
    }

    /// The value at `path`.
    pub fn get(&self, path: &str) -> Option<&Bytes> {
        self.0.iter().find(|(at, _)| at == path).map(|(_, v)| v)
    }

    /// Sets or removes a value for a filter; false where filters may not write, or there is no room.
    pub(crate) fn set_by_filter(&mut self, path: String, value: Option<Bytes>) -> bool {
        if !path.starts_with(SHARED) {
            return false;
        }
        match value {
            Some(value) if self.0.len() < MAX_PROPERTIES || self.get(&path).is_some() => {
                self.set(path, value);
                true
            }
            Some(_) => false,
            None => {
                self.0.retain(|(at, _)| *at != path);
                true
            }
        }
    }
}

/// The answer of a filter; nothing goes to the service.
#[derive(Debug, Clone)]
pub struct LocalResponse {
    /// Status, 200 or higher.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}
