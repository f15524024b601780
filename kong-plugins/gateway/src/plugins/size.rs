//! request-size-limiting: how long a body may be.
//!
//! A body whose length is not stated is taken into memory first, as in Kong: the service sees nothing of
//! one that is too long.

use super::{Asked, Decision, error, stated_length};
use crate::body::Body;
use http::header::TRANSFER_ENCODING;
use http::{Response, StatusCode, Version};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default = "payload")]
    allowed_payload_size: u64,
    #[serde(default)]
    size_unit: Unit,
    #[serde(default)]
    require_content_length: bool,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    #[default]
    Megabytes,
    Kilobytes,
    Bytes,
}

fn payload() -> u64 {
    128
}

/// The plugin, checked.
#[derive(Debug)]
pub(super) struct SizeLimiting {
    bytes: u64,
    require_length: bool,
}

impl SizeLimiting {
    #[expect(clippy::unnecessary_wraps, reason = "made like the others")]
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let unit = match config.size_unit {
            Unit::Megabytes => 1024 * 1024,
            Unit::Kilobytes => 1024,
            Unit::Bytes => 1,
        };
        Ok(Self {
            bytes: config.allowed_payload_size.saturating_mul(unit),
            require_length: config.require_content_length,
        })
    }

    pub(super) fn check(&self, parts: &http::request::Parts, asked: &Asked<'_>) -> Decision {
        if let Some(length) = stated_length(&parts.headers) {
            return if length > self.bytes {
                Decision::Answer(Box::new(Self::refusal(asked.expects)))
            } else {
                Decision::Pass
            };
        }
        // The header of one hop has gone by now; a body without a length on HTTP/1.1 is chunked.
        let chunked = parts.headers.contains_key(TRANSFER_ENCODING)
            || (!asked.empty && parts.version <= Version::HTTP_11);
        if self.require_length && !chunked {
            return Decision::Answer(Box::new(error(
                StatusCode::LENGTH_REQUIRED,
                "A valid Content-Length header is required",
            )));
        }
        if asked.empty {
            return Decision::Pass;
        }
        Decision::Measure(usize::try_from(self.bytes).unwrap_or(usize::MAX))
    }

    /// The answer to a body that is too long.
    pub(super) fn refusal(expects: bool) -> Response<Body> {
        let status = if expects {
            StatusCode::EXPECTATION_FAILED
        } else {
            StatusCode::PAYLOAD_TOO_LARGE
        };
        error(status, "Request size limit exceeded")
    }
}
