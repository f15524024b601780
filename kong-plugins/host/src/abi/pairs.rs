//! Header maps as they cross the boundary: a count, the lengths, then names and values, each with a
//! zero after it.

/// Most pairs that are read; more than any request has.
const MAX_PAIRS: usize = 4096;

/// Writes pairs.
pub(crate) fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let size: usize = pairs.iter().map(|(n, v)| n.len() + v.len() + 10).sum();
    let mut out = Vec::with_capacity(size + 4);
    out.extend(u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in pairs {
        out.extend(length(name));
        out.extend(length(value));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// Reads pairs; None for what is cut off or too long.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let number = |at: usize| {
        let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let count = number(0)?;
    if count > MAX_PAIRS {
        return None;
    }
    let mut at = 4 + count * 8;
    let mut take = |length: usize| {
        let end = at.checked_add(length)?;
        let part = bytes.get(at..end)?;
        at = end.checked_add(1)?;
        Some(part)
    };
    (0..count)
        .map(|i| {
            let (name, value) = (number(4 + i * 8)?, number(8 + i * 8)?);
            Some((take(name)?, take(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pairs: Vec<(&[u8], &[u8])> = vec![(b"a", b"\xff\x00b"), (b"", b""), (b"c", b"d")];
        assert_eq!(decode(&encode(&pairs)).unwrap(), pairs);
        assert_eq!(decode(&[]).unwrap(), Vec::new());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = encode(&[(b"name", b"value")]);
        // The last zero is the one byte that may be missing.
        for end in 1..whole.len() - 1 {
            assert!(decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(decode(&[0xff; 64]).is_none());
        assert!(decode(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}
