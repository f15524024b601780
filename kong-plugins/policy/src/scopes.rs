//! Scopes, as tokens carry them and configurations ask for them (RFC 6749, section 3.3).

use crate::ConfigError;

/// Longest `scope`, in bytes. With `sub` it decides how long an assertion may become.
const MAX_LENGTH: usize = 1024;

/// `text` as scopes with one space between them; none where it holds what scopes are not made of.
pub(crate) fn read(text: &str) -> Option<String> {
    if text.len() > MAX_LENGTH || !text.bytes().all(|b| b == b' ' || is_legal(b)) {
        return None;
    }
    let names: Vec<&str> = text.split(' ').filter(|name| !name.is_empty()).collect();
    Some(names.join(" "))
}

/// Whether `scope` holds all of `required`.
pub(crate) fn grants(scope: &str, required: &[String]) -> bool {
    required
        .iter()
        .all(|needed| scope.split(' ').any(|held| held == needed))
}

/// Checks scopes of a configuration, the list at `path`.
pub(crate) fn check(scopes: &[String], path: &str, faults: &mut Vec<ConfigError>) {
    for (number, scope) in scopes.iter().enumerate() {
        if scope.is_empty() || !scope.bytes().all(is_legal) {
            faults.push(ConfigError::new(
                format!("{path}[{number}]"),
                "one scope each: printable ASCII without space, '\"' and '\\'",
            ));
        }
    }
}

fn is_legal(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')
}
