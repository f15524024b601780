//! The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header): a client that does not know
//! whether its task arrived sends it again, and gets the same task.

use super::failure::Failure;
use http::{HeaderMap, HeaderName};
use mesh_protocol::message::HEADER_IDEMPOTENCY_KEY;

/// On an answer that tells of an earlier task. No standard names it; this name is in wide use.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest key; a UUID has 36.
const MAX: usize = 255;

/// The key, if there is one. The draft's form is a quoted string; most clients leave the quotes out.
///
/// # Errors
/// Two keys, an empty one, one that is too long, or characters outside printable ASCII.
pub fn from_headers(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut values = headers.get_all(HEADER_IDEMPOTENCY_KEY).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Failure::key_malformed("there are two keys")),
    };
    let key = value
        .to_str()
        .map_err(|_| Failure::key_malformed("it may hold printable ASCII only"))?;
    let key = key
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap_or(key);
    match key.len() {
        0 => Err(Failure::key_malformed("it is empty")),
        1..=MAX => Ok(Some(key)),
        _ => Err(Failure::key_malformed(format!(
            "it may have {MAX} characters"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append("idempotency-key", value);
        }
        from_headers(&headers)
            .map(|key| key.map(str::to_owned))
            .map_err(drop)
    }

    #[test]
    fn quoted_and_bare_keys_are_the_same() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["a b"]), Ok(Some("a b".to_owned())));
        assert_eq!(read(&["\"a b\""]), Ok(Some("a b".to_owned())));
        assert!(read(&[&"k".repeat(MAX)]).is_ok());
        for bad in [
            &[""][..],
            &["\"\""],
            &["ü"],
            &[&"k".repeat(MAX + 1)],
            &["a", "a"],
        ] {
            assert_eq!(read(bad), Err(()), "{bad:?}");
        }
    }
}
