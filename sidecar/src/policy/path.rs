//! Paths in the one form that every program reads alike.
//!
//! A rule that speaks of `/admin` must not be passed by `/x/../admin`, `/%61dmin` or `/admin;x`, and it cannot know
//! which of these the program behind it takes for the same. So escapes of letters are decoded before a rule
//! compares, and a path whose reading depends on the reader is no path that rules can be held against.

use std::borrow::Cow;

/// `path` with its escapes decoded; `None` when readers differ on what it means: not absolute, an empty or a dot
/// segment, `\`, `;`, a control character, an escape of one of these or of `/ . ? # %`, or no UTF-8.
pub(super) fn plain(path: &str) -> Option<Cow<'_, str>> {
    if path.bytes().any(steers) || !path.starts_with('/') {
        return None;
    }
    if !path.contains('%') {
        return segments_are_plain(path).then_some(Cow::Borrowed(path));
    }
    let decoded = decoded(path.as_bytes())?;
    segments_are_plain(&decoded).then_some(Cow::Owned(decoded))
}

/// Whether some reader gives a byte of a path a meaning beyond its own.
fn steers(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b'\\' | b';' | b'?' | b'#')
}

fn decoded(path: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        rest = behind;
        let [high, low] = digits.map(|d| char::from(d).to_digit(16));
        let byte = u8::try_from(high? << 4 | low?).ok()?;
        if steers(byte) || matches!(byte, b'/' | b'.' | b'%') {
            return None;
        }
        out.push(byte);
    }
    String::from_utf8(out).ok()
}

/// Whether no segment is a dot segment or empty; a `/` at the end is not a segment of its own.
fn segments_are_plain(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    let inner = path.strip_suffix('/').unwrap_or(path);
    path.is_empty() || inner.split('/').all(|s| !matches!(s, "" | "." | ".."))
}

/// A prefix of paths, by whole segments: `/a` holds `/a`, `/a/` and `/a/b`, not `/ab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix(Box<str>);

impl Prefix {
    pub(super) fn new(path: &str) -> Self {
        Self(path.trim_end_matches('/').into())
    }

    /// Whether `path`, which is plain, is in it.
    pub(super) fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_read_alike() {
        for (path, read) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/pkg.Service/Method", "/pkg.Service/Method"),
            ("/a...b/.well-known", "/a...b/.well-known"),
            ("/%61dmin", "/admin"),
            ("/a%20b/%C3%bc", "/a b/ü"),
            ("/a=b,c:d@e!f'(g)*+$&~", "/a=b,c:d@e!f'(g)*+$&~"),
        ] {
            assert_eq!(plain(path).as_deref(), Some(read), "{path}");
        }
    }

    #[test]
    fn paths_with_two_readings_are_none() {
        for path in [
            "",
            "*",
            "a",
            "a/b",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a%2fb",
            "/a%2Fb",
            "/%2e%2e/b",
            "/a/.%2e/b",
            "/a%5cb",
            "/a\\b",
            "/a;b",
            "/a%3bb",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/a\u{7f}",
            "/a\tb",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/%c0%af",
            "/%ff",
            "/a%252e",
            "/a?b",
            "/a#b",
            "/a%3fb",
            "/a%23b",
        ] {
            assert_eq!(plain(path), None, "{path:?}");
        }
    }

    #[test]
    fn prefixes_are_whole_segments() {
        let holds = |prefix: &str, path: &str| Prefix::new(prefix).holds(path);
        for path in ["/a", "/a/", "/a/b"] {
            assert!(
                holds("/a", path) && holds("/a/", path) && holds("/", path),
                "{path}"
            );
        }
        for path in ["/", "/ab", "/b/a", "/A"] {
            assert!(!holds("/a", path), "{path}");
        }
        assert!(holds("/", "/"));
    }
}
