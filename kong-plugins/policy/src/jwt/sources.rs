//! Where the token of a request stands: `Authorization: Bearer`, a cookie, a query parameter (RFC 6750,
//! section 2). A client must not use more than one of them, so two tokens are refused, equal or not.

use super::answer::Fault;
use crate::{ConfigError, RequestHead, config};

/// The token of a request, as it stands there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) text: Vec<u8>,
    /// It was in the address (RFC 6750, section 2.3).
    pub(super) in_query: bool,
}

/// Where tokens may stand.
#[derive(Debug)]
pub(super) struct Sources {
    cookie: Option<String>,
    query: Option<String>,
}

impl Sources {
    pub(super) fn compile(sources: &config::Sources, faults: &mut Vec<ConfigError>) -> Self {
        // The token of RFC 9110, section 5.6.2, which is what RFC 6265 makes a cookie's name of.
        let is_token = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        if sources
            .cookie
            .as_deref()
            .is_some_and(|name| !is_token(name))
        {
            faults.push(ConfigError::new(
                "sources.cookie",
                "a cookie's name: 1 to 64 letters, digits, - or _",
            ));
        }
        let is_plain = |name: &str| {
            is_token(name)
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        if sources.query.as_deref().is_some_and(|name| !is_plain(name)) {
            faults.push(ConfigError::new(
                "sources.query",
                "a parameter's name, as access_token: 1 to 64 letters, digits, - . _ or ~",
            ));
        }
        Self {
            cookie: sources.cookie.clone(),
            query: sources.query.clone(),
        }
    }

    /// The one token of the request; none when it has none.
    pub(super) fn find(&self, head: &dyn RequestHead) -> Result<Option<Bearer>, Fault> {
        let mut found = One(None);
        // Some gateways tell several as one (RFC 9110, section 5.3), so that is how all are read.
        let authorization = head.header("authorization")?.join(&b", "[..]);
        if let Some(text) = bearer(authorization)? {
            found.add(text, false)?;
        }
        if let Some(name) = &self.cookie {
            for value in head.header("cookie")? {
                for text in cookies(&value, name.as_bytes()) {
                    found.add(text.to_vec(), false)?;
                }
            }
        }
        if let Some(name) = &self.query {
            let path = head.path()?;
            let query = path.splitn(2, |b| *b == b'?').nth(1).unwrap_or_default();
            for (found_name, text) in form_urlencoded::parse(query) {
                if found_name == name.as_str() {
                    // What was no UTF-8 has become a sign that no token holds.
                    found.add(text.into_owned().into_bytes(), true)?;
                }
            }
        }
        Ok(found.0)
    }
}

struct One(Option<Bearer>);

impl One {
    fn add(&mut self, text: Vec<u8>, in_query: bool) -> Result<(), Fault> {
        if self.0.is_some() {
            return Err(Fault::SeveralTokens);
        }
        self.0 = Some(Bearer { text, in_query });
        Ok(())
    }
}

/// The token of an `Authorization` header; none when it is of another scheme.
fn bearer(mut value: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        let mut others = value.split(|b| *b == b',').skip(1).map(<[u8]>::trim_ascii);
        let token = |other: &[u8]| {
            let scheme = other.split(|b| *b == b' ').next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"bearer")
        };
        // A token behind other credentials: their headers were joined.
        return match others.any(token) {
            true => Err(Fault::SeveralTokens),
            false => Ok(None),
        };
    }
    let token = rest.trim_ascii_start();
    // A blank or comma is no part of any token: another one follows, or its header was joined to this.
    if token.iter().any(|b| matches!(b, b' ' | b'\t' | b',')) {
        return Err(Fault::SeveralTokens);
    }
    let start = value.len().saturating_sub(token.len());
    Ok(Some(value.split_off(start)))
}

/// The values of the cookie `name` in a `Cookie` header, without the quotes that may stand around them
/// (RFC 6265, section 4.1.1).
fn cookies<'a>(header: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    header.split(|b| *b == b';').filter_map(move |pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let (found, value) = (parts.next()?.trim_ascii(), parts.next()?.trim_ascii());
        let value = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value);
        (found == name).then_some(value)
    })
}
