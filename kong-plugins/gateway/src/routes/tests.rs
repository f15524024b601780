//! The order of routes, and what each condition takes.

use super::*;
use mesh_declarative::Route;

fn table(routes: &[Route]) -> Table {
    let mut table = Table::default();
    for route in routes {
        let mut problems = Vec::new();
        let conditions = Conditions::read(route, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        table.add(
            conditions,
            Destination {
                route: route.name.as_str().into(),
                service: 0,
                strip_path: true,
                preserve_host: false,
                refused: Refused::default(),
                plugins: None,
                chain: Vec::new().into(),
            },
        );
    }
    table.sort();
    table
}

fn route(name: &str, paths: &[&str], methods: &[&str], hosts: &[&str]) -> Route {
    let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
    Route {
        name: name.to_owned(),
        paths: own(paths),
        methods: own(methods),
        hosts: own(hosts),
        ..Route::default()
    }
}

fn found(table: &Table, method: &str, host: &str, path: &str) -> String {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    table
        .find(&method, host, path, &HeaderMap::new())
        .map(|m| format!("{} {}", m.destination.route, m.prefix))
        .unwrap_or_default()
}

#[test]
fn the_longer_path_goes_first() {
    let table = table(&[
        route("root", &["/"], &[], &[]),
        route("task", &["/task"], &[], &[]),
        route("both", &["/task/special", "/b"], &[], &[]),
    ]);
    assert_eq!(
        found(&table, "GET", "", "/task/special/1"),
        "both /task/special"
    );
    assert_eq!(found(&table, "GET", "", "/task/1"), "task /task");
    assert_eq!(found(&table, "GET", "", "/tasks"), "task /task");
    assert_eq!(found(&table, "GET", "", "/b"), "both /b");
    assert_eq!(found(&table, "GET", "", "/"), "root /");
    assert_eq!(found(&table, "GET", "", "/Task"), "root /");
}

#[test]
fn more_conditions_go_before_a_longer_path() {
    let table = table(&[
        route("long", &["/api/v1/long"], &[], &[]),
        route("method", &["/api"], &["POST"], &[]),
    ]);
    assert_eq!(found(&table, "POST", "", "/api/v1/long"), "method /api");
    assert_eq!(
        found(&table, "GET", "", "/api/v1/long"),
        "long /api/v1/long"
    );
    assert_eq!(found(&table, "GET", "", "/api"), "");
}

#[test]
fn hosts_are_plain_or_wild_at_one_end() {
    let table = table(&[
        route("wild", &["/"], &[], &["*.example.com", "api.*"]),
        route("plain", &["/"], &[], &["a.example.com"]),
    ]);
    assert_eq!(found(&table, "GET", "a.example.com", "/"), "plain /");
    assert_eq!(found(&table, "GET", "b.c.example.com", "/"), "wild /");
    assert_eq!(found(&table, "GET", "api.test", "/"), "wild /");
    assert_eq!(found(&table, "GET", ".example.com", "/"), "");
    assert_eq!(found(&table, "GET", "example.com", "/"), "");
}

#[test]
fn a_header_needs_one_of_its_values() {
    let mut with = route("with", &["/"], &[], &[]);
    with.headers
        .insert("X-Version".into(), vec!["v1".into(), "v2".into()]);
    let table = table(&[with]);
    let mut headers = HeaderMap::new();
    headers.insert("x-version", "V2".parse().unwrap());
    assert!(table.find(&Method::GET, "", "/", &headers).is_some());
    headers.insert("x-version", "v3".parse().unwrap());
    assert!(table.find(&Method::GET, "", "/", &headers).is_none());
}

#[test]
fn a_header_may_be_a_regular_expression() {
    let mut with = route("with", &["/"], &[], &[]);
    with.headers
        .insert("X-Version".into(), vec!["~*^V[12]$".into(), "beta".into()]);
    let table = table(&[with]);
    for (value, taken) in [
        (&b"v2"[..], true),
        (b"V1", true),
        (b"v3", false),
        (b"Beta", true),
        (b"v1x", false),
        (b"\xff", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.append("x-version", http::HeaderValue::from_static("other"));
        headers.append("x-version", http::HeaderValue::from_bytes(value).unwrap());
        let found = table.find(&Method::GET, "", "/", &headers);
        assert_eq!(found.is_some(), taken, "{value:?}");
    }
}

/// Routes that all take one request, in the order in which Kong tries them.
#[test]
fn the_order_is_that_of_kong() {
    let header = |mut route: Route, names: &[&str]| {
        for name in names {
            route.headers.insert((*name).into(), vec!["1".into()]);
        }
        route
    };
    let regex = |name: &str, path: &str, priority: i32| Route {
        regex_priority: priority,
        ..route(name, &[path], &[], &[])
    };
    let hosts: &[&str] = &["a.test"];
    let ordered = [
        header(route("4 kinds", &["/"], &["GET"], hosts), &["x-a"]),
        header(
            route("3, plain, 2 headers", &["/"], &[], hosts),
            &["x-a", "x-b"],
        ),
        header(route("3, plain, regex", &["~/a"], &[], hosts), &["x-a"]),
        header(route("3, plain, long", &["/a/b"], &[], hosts), &["x-a"]),
        header(route("3, plain, short", &["/a"], &[], hosts), &["x-a"]),
        header(
            route("3, no host, 2 headers", &["/"], &["GET"], &[]),
            &["x-a", "x-b"],
        ),
        header(
            route("3, wild", &["/a/b"], &[], &["a.test", "*.test"]),
            &["x-a"],
        ),
        route("2, host", &["/"], &[], hosts),
        route("2, wild, regex", &["~/a"], &[], &["a.*"]),
        route("2, method, path", &["/a"], &["GET"], &[]),
        route("1, host", &[], &[], hosts),
        header(route("1, 2 headers", &[], &[], &[]), &["x-a", "x-b"]),
        header(route("1, header", &[], &[], &[]), &["x-a"]),
        regex("1, regex, 10", "~/a", 10),
        regex("1, regex, 9", "~/a/b", 9),
        regex("1, regex, first", "~/a", 0),
        regex("1, regex, second", "~/a/b$", 0),
        route("1, long", &["/a/b"], &[], &[]),
        route("1, short", &["/a"], &[], &[]),
        route("1, method", &[], &["GET"], &[]),
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-a", http::HeaderValue::from_static("1"));
    headers.insert("x-b", http::HeaderValue::from_static("1"));
    for first in 0..ordered.len() {
        // Written in the reverse order, but for the two that only the file tells apart.
        let mut routes: Vec<Route> = ordered[first..].to_vec();
        routes.reverse();
        let place = |routes: &[Route], name| routes.iter().position(|r| r.name == name);
        let pair = (
            place(&routes, "1, regex, first"),
            place(&routes, "1, regex, second"),
        );
        if let (Some(a), Some(b)) = pair {
            routes.swap(a, b);
        }
        let table = table(&routes);
        let found = table.find(&Method::GET, "a.test", "/a/b", &headers);
        let name = found.map(|m| m.destination.route.to_string());
        assert_eq!(name.as_deref(), Some(&*ordered[first].name));
    }
}

#[test]
fn a_regular_expression_takes_what_it_matches_from_the_beginning() {
    let table = table(&[
        route("id", &["~/t/(?<id>[a-z]+)$"], &[], &[]),
        route("either", &["~/x|/y"], &[], &[]),
        route("prefix", &["~/v\\d+"], &[], &[]),
    ]);
    for (path, expected) in [
        ("/t/abc", "id /t/abc"),
        ("/t/abc/d", ""),
        ("/a/t/abc", ""),
        ("/y/z", "either /y"),
        ("/a/y", ""),
        ("/v12/x", "prefix /v12"),
    ] {
        assert_eq!(found(&table, "GET", "", path), expected, "{path}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    use mesh_declarative::Protocol;
    let with_header = |value: &str| {
        let mut route = route("r", &["/"], &[], &[]);
        route.headers.insert("x-a".into(), vec![value.into()]);
        route
    };
    let mut none = route("r", &["/"], &[], &[]);
    none.protocols = Vec::new();
    let mut grpcs = route("r", &["/"], &[], &[]);
    grpcs.protocols = vec![Protocol::Grpcs];
    let mut negative = route("r", &["~/a"], &[], &[]);
    negative.regex_priority = -1;
    for (route, word) in [
        (route("r", &["~/a("], &[], &[]), "~/a("),
        (route("r", &["~a"], &[], &[]), "~/"),
        (route("r", &["~/(?=a)"], &[], &[]), "look-around"),
        (route("r", &["~/(a{1000}){1000}"], &[], &[]), "size"),
        (with_header("~*("), "x-a"),
        (with_header("~*\\D"), "lower case"),
        (negative, "regex_priority"),
        (none, "takes none"),
        (grpcs, "grpcs"),
        (route("r", &["a"], &[], &[]), "path a"),
        (route("r", &["/a//b"], &[], &[]), "/a//b"),
        (route("r", &["/"], &["get"], &[]), "get"),
        (route("r", &["/"], &[], &["a*b"]), "a*b"),
        (route("r", &[], &[], &[]), "no paths"),
    ] {
        let mut problems = Vec::new();
        Conditions::read(&route, &mut problems);
        assert!(problems.iter().any(|p| p.contains(word)), "{problems:?}");
    }
}
