//! Paths in the one form in which gateways match routes and services receive them, so that nobody gets
//! another verdict by another spelling of the same path.

/// The path of a request target, without its query: unreserved characters decoded, other escapes in upper
/// case, dot segments resolved, empty segments gone (RFC 3986, section 6.2.2). What is no such path stays
/// as it is; gateways refuse it.
pub fn plain(target: &[u8]) -> Vec<u8> {
    let end = target.iter().position(|b| *b == b'?');
    let path = target.get(..end.unwrap_or(target.len())).unwrap_or(target);
    normal(path).unwrap_or_else(|| path.to_vec())
}

fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let decoded = decoded(path.strip_prefix(b"/")?)?;
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut directory = true;
    for segment in decoded.split(|b| *b == b'/') {
        directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if directory || segments.is_empty() {
        out.push(b'/');
    }
    Some(out)
}

fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        rest = behind;
        let text = std::str::from_utf8(digits).ok()?;
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        match u8::from_str_radix(text, 16).ok().filter(|_| hex)? {
            plain @ (b'-' | b'.' | b'_' | b'~') => out.push(plain),
            plain if plain.is_ascii_alphanumeric() => out.push(plain),
            _ => {
                out.push(b'%');
                out.extend(digits.to_ascii_uppercase());
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_have_one_form() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=/../d", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/%61%2e%2E/b", "/a../b"),
            ("/x/%2e%2e/b", "/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%", "/a%"),
            ("/%+1", "/%+1"),
            ("/a/../%zz", "/a/../%zz"),
            ("*", "*"),
            ("", ""),
        ] {
            let found = super::plain(target.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), expected, "{target}");
        }
        assert_eq!(super::plain(b"/\xff/.?\xff"), b"/\xff/");
    }
}
