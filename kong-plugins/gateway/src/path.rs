//! Paths: brought to one form before they are compared, and joined as Kong joins them.

/// Brings a path to the form in which routes are matched and which services receive: unreserved
/// characters decoded, other escapes in upper case, dot segments resolved, empty segments gone.
///
/// None for what is no absolute path: another beginning, a broken escape, an escaped zero.
pub(crate) fn normalise(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = true;
    for segment in decoded.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if directory || segments.is_empty() {
        out.push('/');
    }
    Some(out)
}

fn decode_unreserved(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('%') {
        out.push_str(plain);
        let digits = escape.get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match byte {
            0 => return None,
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = escape.get(2..)?;
    }
    out.push_str(rest);
    Some(out)
}

/// The path that the service receives: `base` is the service's own path, `prefix` the part of `path`
/// that the route matched, which goes when `strip` says so.
pub(crate) fn join(base: &str, path: &str, prefix: &str, strip: bool) -> String {
    let (base, open) = match base.strip_suffix('/') {
        Some(base) => (base, true),
        None => (base, false),
    };
    let rest = match path.strip_prefix(prefix) {
        Some(rest) if strip => rest,
        _ => path,
    };
    let slash = if rest.is_empty() {
        // Nothing is left: the service's own path, with the slash that the client wrote.
        if base.is_empty() || (path.ends_with('/') && (open || path.len() > 1)) {
            "/"
        } else {
            ""
        }
    } else if rest.starts_with('/') {
        ""
    } else {
        "/"
    };
    if !strip && rest == "/" && !base.is_empty() && !open {
        return base.to_owned();
    }
    format!("{base}{slash}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/b/", Some("/a/b/")),
            ("//a///b", Some("/a/b")),
            ("/a/./b/../c", Some("/a/c")),
            ("/a/..", Some("/")),
            ("/a/b/..", Some("/a/")),
            ("/../../a", Some("/a")),
            ("/%61%2e%2E/b", Some("/a../b")),
            ("/x/%2e%2e/b", Some("/b")),
            ("/a%2fb", Some("/a%2Fb")),
            ("/a%c3%a9", Some("/a%C3%A9")),
            ("/a%00", None),
            ("/a%", None),
            ("/a%4", None),
            ("/a%zz", None),
            ("/a%+1", None),
            ("/%é", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(normalise(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_services_path_is_joined_as_kong_joins_it() {
        // base, path, prefix, with stripping, without
        for (base, path, prefix, stripped, kept) in [
            (
                "",
                "/ai/orchestrate",
                "/ai/orchestrate",
                "/",
                "/ai/orchestrate",
            ),
            (
                "",
                "/ai/orchestrate/",
                "/ai/orchestrate",
                "/",
                "/ai/orchestrate/",
            ),
            (
                "",
                "/ai/orchestrate/x",
                "/ai/orchestrate",
                "/x",
                "/ai/orchestrate/x",
            ),
            (
                "",
                "/ai/orchestratex",
                "/ai/orchestrate",
                "/x",
                "/ai/orchestratex",
            ),
            ("", "/", "/", "/", "/"),
            ("", "/a", "/", "/a", "/a"),
            ("/base", "/r", "/r", "/base", "/base/r"),
            ("/base", "/r/", "/r", "/base/", "/base/r/"),
            ("/base", "/r/", "/r/", "/base/", "/base/r/"),
            ("/base", "/rx", "/r", "/base/x", "/base/rx"),
            ("/base", "/", "/", "/base", "/base"),
            ("/base/", "/", "/", "/base/", "/base/"),
            ("/base/", "/r/x", "/r", "/base/x", "/base/r/x"),
            ("/base/", "/r/x", "/r/", "/base/x", "/base/r/x"),
        ] {
            assert_eq!(join(base, path, prefix, true), stripped, "{base} {path}");
            assert_eq!(join(base, path, prefix, false), kept, "{base} {path}");
        }
    }
}
