//! Paths: brought to one form before they are compared (the form that kong.yml itself is held to), and
//! joined as Kong joins them.

pub(crate) use mesh_declarative::normalise;

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
