//! All headers of a request, as Envoy hands them over in one call.
//!
//! Asked for one by one, Envoy tells the first value of a header that came several times, and nothing of
//! names that nobody asks for.

/// Names and values, in their order.
pub(crate) struct Headers(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// Reads header pairs in the ABI's form: count, sizes, then each text with a closing zero. None where
    /// they are not whole.
    pub(crate) fn read(map: &[u8]) -> Option<Self> {
        let (count, rest) = map.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
        let mut sizes = sizes.chunks_exact(4);
        let mut text = || {
            let size = sizes.next()?.try_into().ok()?;
            let size = usize::try_from(u32::from_le_bytes(size)).ok()?;
            let (text, rest) = texts.split_at_checked(size)?;
            texts = rest.get(1..)?;
            Some(text.to_vec())
        };
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((text()?, text()?));
        }
        Some(Self(headers))
    }

    /// The values of `name`, which is in lower case, as Envoy's own names are.
    pub(crate) fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let own = self.0.iter().filter(|(own, _)| own == name.as_bytes());
        own.map(|(_, value)| value.clone()).collect()
    }

    /// Names with characters beyond letters, digits, `-` and `_`.
    pub(crate) fn odd_names(&self) -> Vec<Vec<u8>> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let names = self.0.iter().map(|(name, _)| name);
        names
            .filter(|name| !name.starts_with(b":") && !name.iter().all(plain))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &[u8] =
        b"\x03\0\0\0\x01\0\0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0a\0b\0c.d\0\0a\0ef\0";

    #[test]
    fn whole_maps_are_read() {
        let headers = Headers::read(MAP).unwrap();
        assert_eq!(headers.values("a"), [&b"b"[..], b"ef"]);
        assert_eq!(headers.values("c.d"), [b""]);
        assert_eq!(headers.values("x"), [b""; 0]);
        assert_eq!(headers.odd_names(), [b"c.d"]);
    }

    #[test]
    fn what_is_not_whole_is_none() {
        for end in 0..MAP.len() {
            assert!(Headers::read(&MAP[..end]).is_none(), "{end}");
        }
        assert!(Headers::read(&[255; 64]).is_none());
    }
}
