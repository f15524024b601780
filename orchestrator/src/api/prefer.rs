//! The `Prefer` header (RFC 7240), as far as it is honoured here: `respond-async` and `wait`.

use http::HeaderMap;
use std::time::Duration;

/// What the client prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preferences {
    /// 202 and a Location rather than the result.
    pub respond_async: bool,
    /// How long to wait for the result.
    pub wait: Option<Duration>,
}

impl Preferences {
    /// Reads every `Prefer` header; what is not understood is passed over, as the RFC says. Of a
    /// preference that is given twice, the first counts.
    pub fn from_headers(headers: &HeaderMap, longest_wait: Duration) -> Self {
        let mut preferences = Self::default();
        let parts = headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for part in parts {
            // Parameters after ';' belong to no preference that is known here.
            let preference = part.split(';').next().unwrap_or_default();
            let (name, value) = match preference.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (preference.trim(), None),
            };
            if name.eq_ignore_ascii_case("respond-async") {
                preferences.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait")
                && preferences.wait.is_none()
                && let Some(seconds) = value.and_then(|v| v.parse::<u32>().ok())
            {
                preferences.wait = Some(Duration::from_secs(seconds.into()).min(longest_wait));
            }
        }
        preferences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Preferences {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        Preferences::from_headers(&headers, Duration::from_secs(60))
    }

    #[test]
    fn both_forms_and_their_limits() {
        assert!(read(&["respond-async"]).respond_async);
        assert!(read(&["return=minimal, Respond-Async; x=1"]).respond_async);
        assert_eq!(read(&["wait=5"]).wait, Some(Duration::from_secs(5)));
        assert_eq!(
            read(&["wait=\"7\"", "wait=9"]).wait,
            Some(Duration::from_secs(7))
        );
        assert_eq!(read(&["wait=100000"]).wait, Some(Duration::from_secs(60)));
        for odd in ["wait", "wait=-1", "wait=x", "", ",;=", "wait=99999999999"] {
            assert_eq!(read(&[odd]), Preferences::default(), "{odd}");
        }
    }
}
