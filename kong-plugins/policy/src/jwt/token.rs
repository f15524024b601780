//! A bearer token, from the header's bytes to its three parts.
//!
//! One text has one reading: base64url without padding, whitespace or stray last bits (RFC 7515,
//! section 2), so that a token has one hash.

use super::answer::Fault;
use super::claims::Header;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;

/// Longest token that is looked at, in bytes; gateways bound the whole head to little more.
const MAX_LENGTH: usize = 8192;

/// The parts of a compact JWS (RFC 7515, section 7.1). Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) header: Header,
    pub(super) claims: Vec<u8>,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

/// The token of an `Authorization` header; none when it is of another scheme.
pub(super) fn bearer(value: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = rest.trim_ascii_start();
    // A blank or comma is no part of any token: another one follows, or its header was joined to this.
    if token.iter().any(|b| matches!(b, b' ' | b'\t' | b',')) {
        return Err(Fault::SeveralTokens);
    }
    Ok(Some(token))
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        if text.len() > MAX_LENGTH {
            return Err(Fault::Malformed);
        }
        let mut parts = text.split(|b| *b == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed);
        };
        let signed_length = text.len().saturating_sub(signature.len() + 1);
        let header: Header = read(&decode(header).ok_or(Fault::Malformed)?)?;
        Ok(Self {
            header,
            claims: decode(claims).ok_or(Fault::Malformed)?,
            signed: text.get(..signed_length).ok_or(Fault::Malformed)?,
            signature: decode(signature).ok_or(Fault::Malformed)?,
        })
    }
}

/// Unpadded base64url, read strictly.
pub(super) fn decode(part: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// JSON in UTF-8 throughout, also where it is skipped.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed)?;
    serde_json::from_str(text).map_err(|_| Fault::Malformed)
}
