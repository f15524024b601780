//! A bearer token, from the header's bytes to its three parts.
//!
//! One text has one reading: base64url without padding, whitespace or stray last bits (RFC 7515,
//! section 2), so that a token has one hash.

use super::answer::Fault;
use super::claims::{Claims, Header};
use super::wanted::Wanted;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeSeed;
use std::marker::PhantomData;

/// Longest token that is looked at, in bytes; gateways bound the whole head to little more.
const MAX_LENGTH: usize = 8192;

/// The parts of a compact JWS (RFC 7515, section 7.1). Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) header: Header,
    claims: Vec<u8>,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
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
        let header = decode(header).ok_or(Fault::Malformed)?;
        let header = read(&header, PhantomData::<Header>)?;
        Ok(Self {
            header,
            claims: decode(claims).ok_or(Fault::Malformed)?,
            signed: text.get(..signed_length).ok_or(Fault::Malformed)?,
            signature: decode(signature).ok_or(Fault::Malformed)?,
        })
    }

    /// The claims, those that `wanted` names among them.
    pub(super) fn claims(&self, wanted: &Wanted) -> Result<Claims, Fault> {
        read(&self.claims, wanted)
    }
}

/// Unpadded base64url, read strictly.
pub(super) fn decode(part: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// JSON in UTF-8 throughout, also where it is skipped, and nothing after it.
fn read<'a, S: DeserializeSeed<'a>>(bytes: &'a [u8], seed: S) -> Result<S::Value, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed
        .deserialize(&mut reader)
        .map_err(|_| Fault::Malformed)?;
    reader.end().map_err(|_| Fault::Malformed)?;
    Ok(value)
}
