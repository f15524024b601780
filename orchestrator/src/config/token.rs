//! The secret by which gateways' filters show that they are of this mesh.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// Shortest token, in bytes: of base64url, 32 hold 24 bytes of chance.
const SHORTEST: usize = 32;
/// Longest token, in bytes.
const LONGEST: usize = 512;

/// A bearer token (RFC 6750); `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InternalToken(String);

impl InternalToken {
    /// What stands in its place in a file that is looked at and never run: such a text is read as no token.
    pub fn shown_as(reference: impl Into<String>) -> Self {
        Self(reference.into())
    }

    /// Whether `offered` is this token. Takes as long whichever byte differs.
    pub fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl TryFrom<String> for InternalToken {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        let known = text.trim_end_matches('=').bytes().all(allowed);
        if known && (SHORTEST..=LONGEST).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(format!(
                "internal_token is no token: {SHORTEST} to {LONGEST} of a-z A-Z 0-9 - . _ ~ + /, such as \
                 mesh-config derives"
            ))
        }
    }
}

impl From<InternalToken> for String {
    fn from(token: InternalToken) -> String {
        token.0
    }
}

impl std::fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "abcdefghijklmnopqrstuvwxyz-_0123456789";

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        assert!(InternalToken::try_from(GOOD.to_owned()).is_ok());
        assert!(InternalToken::try_from(format!("{GOOD}==")).is_ok());
        for bad in [
            String::new(),
            "short".to_owned(),
            format!("{GOOD} {GOOD}"),
            format!("{{file: {GOOD}}}"),
            GOOD.repeat(20),
        ] {
            let error = InternalToken::try_from(bad.clone()).unwrap_err();
            assert!(bad.is_empty() || !error.contains(&bad), "{error}");
        }
    }

    #[test]
    fn it_knows_itself_and_does_not_show() {
        let token = InternalToken::try_from(GOOD.to_owned()).unwrap();
        assert!(token.is(GOOD.as_bytes()));
        for other in [
            "",
            "a",
            &GOOD[1..],
            &format!("{GOOD}x"),
            &GOOD.to_uppercase(),
        ] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{token:?}"), "***");
    }
}
