//! No spelling of a header or of a path passes what it must not.

use super::*;
use proptest::prelude::*;

/// A name that some server reads as `name`.
fn alias(name: &'static str) -> impl Strategy<Value = String> {
    let signs = prop::sample::select(&b"-_.!~'*+|^`#$%&"[..]);
    prop::collection::vec((signs, any::<bool>()), name.len()).prop_map(move |choices| {
        let spelled = name
            .bytes()
            .zip(choices)
            .map(|(byte, (sign, upper))| match byte {
                b'-' => char::from(sign),
                byte if upper => char::from(byte.to_ascii_uppercase()),
                byte => char::from(byte),
            });
        spelled.collect()
    })
}

proptest! {
    #[test]
    fn no_alias_survives(
        aliases in prop::collection::vec(prop_oneof![alias(HEADER), alias(HEADER_AGENT), alias("x-user-id")], 1..8),
        others in prop::collection::vec("[a-z][a-z0-9_.-]{0,20}", 0..8),
        asserted in any::<bool>(),
    ) {
        let bench = Bench::new(open(), json!({"identity_headers": {"x-user-id": "sub"}}));
        let mut map = HeaderMap::new();
        for name in aliases.iter().chain(&others) {
            let name: HeaderName = name.parse().unwrap();
            if name != HEADER {
                map.append(name, HeaderValue::from_static("root"));
            }
        }
        let token = sign(&claims("alice"));
        if asserted {
            map.append(HEADER, HeaderValue::from_str(&token).unwrap());
        }
        bench.ask("gateway", "GET /", &mut map).unwrap();
        let canonical = |name: &HeaderName| name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        for (name, value) in &map {
            prop_assert!(mesh_protocol::assertion::reserved_alias(name.as_str().as_bytes()).is_none());
            if canonical(name) == "x-user-id" {
                prop_assert!(asserted && name == "x-user-id" && value == "alice");
            }
        }
        prop_assert_eq!(map.get_all("x-user-id").iter().count(), usize::from(asserted));
        for name in &others {
            let name: HeaderName = name.parse().unwrap();
            let guarded = ["x-user-id", HEADER, HEADER_AGENT].contains(&&*canonical(&name));
            prop_assert!(guarded || map.contains_key(&name));
        }
    }

    #[test]
    fn no_path_passes_a_denial(path in "/?([a-z.%;\\\\/]{1,3}|admin|%61|%2[eEfF]|[.]{1,2}|/){0,8}") {
        let bench = Bench::new(
            json!([{"from": "any"}, {"from": "any", "action": "deny", "paths": ["/admin"]}]),
            json!({}),
        );
        if bench.refused("gateway", &format!("GET {path}"), &[]).is_empty() {
            // What passes is read alike by all, and none of them reads /admin.
            let read = path::plain(&path).unwrap();
            prop_assert!(read != "/admin" && !read.starts_with("/admin/"), "{}", path);
        }
    }
}
