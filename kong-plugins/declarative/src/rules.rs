//! What Kong 3.9 takes as a name and as the path of a route.
//!
//! Beside the types, since whoever writes a kong.yml must refuse what its readers refuse, and the local
//! gateway brings the paths of requests to the very form that the paths of routes have.

/// Why a text cannot be the path of a route here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with `~`: a regular expression, and no prefix.
    #[error("is a regular expression, where a prefix is wanted")]
    Expression,
    /// It does not begin with `/`.
    #[error("does not begin with /")]
    Relative,
    /// A character that the path of no request holds (RFC 3986, section 3.3).
    #[error("holds {0:?}, which no path of a request holds")]
    Character(char),
    /// A `%` without two hexadecimal digits, or an escaped zero.
    #[error("holds a broken escape")]
    Escape,
    /// Requests are compared in their normal form, so it would never match; this is that form.
    #[error("is not in its normal form")]
    NotNormal(String),
}

/// Checks a path of a route that is a prefix; one with a leading `~` is none.
///
/// # Errors
/// [`PathError`].
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.starts_with('~') {
        return Err(PathError::Expression);
    }
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~/%:@!$&'()*+,;=".contains(c);
    if let Some(other) = path.chars().find(|c| !legal(*c)) {
        return Err(PathError::Character(other));
    }
    match normalise(path) {
        Some(normal) if normal == path => Ok(()),
        Some(normal) => Err(PathError::NotNormal(normal)),
        None => Err(PathError::Escape),
    }
}

/// Whether `name` can name a route, a service or a chain.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
    !name.is_empty() && name.bytes().all(legal)
}

/// Brings a path to the form in which routes are matched and which services receive: unreserved
/// characters decoded, other escapes in upper case, dot segments resolved, empty segments gone.
///
/// None for what is no absolute path: another beginning, a broken escape, an escaped zero.
pub fn normalise(path: &str) -> Option<String> {
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
    fn a_route_has_a_name_and_a_normal_path() {
        for path in ["/", "/a", "/a/", "/a%2Fb", "/a:b@c!$&'()*+,;=~"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        let normal = |path: &str| PathError::NotNormal(path.to_owned());
        for (path, error) in [
            ("a", PathError::Relative),
            ("", PathError::Relative),
            ("~/x$", PathError::Expression),
            ("/a?b", PathError::Character('?')),
            ("/a#b", PathError::Character('#')),
            ("/a b", PathError::Character(' ')),
            ("/é", PathError::Character('é')),
            ("/a%", PathError::Escape),
            ("/a%00", PathError::Escape),
            ("/%41", normal("/A")),
            ("/%c3", normal("/%C3")),
            ("//x", normal("/x")),
            ("/x/../y", normal("/y")),
        ] {
            assert_eq!(check_path(path), Err(error), "{path}");
        }
        for (name, legal) in [
            ("a.B_1~-", true),
            ("", false),
            ("a b", false),
            ("a\n", false),
            ("é", false),
        ] {
            assert_eq!(is_name(name), legal, "{name}");
        }
    }
}
