//! The order of routes, and what each condition takes.

use super::*;

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
fn what_is_not_supported_is_named() {
    let mut https = route("https", &["/"], &[], &[]);
    https.protocols = vec![Protocol::Https];
    for (route, word) in [
        (route("r", &["~/a.*"], &[], &[]), "~/a.*"),
        (route("r", &["a"], &[], &[]), "path a"),
        (route("r", &["/a//b"], &[], &[]), "/a//b"),
        (route("r", &["/"], &["get"], &[]), "get"),
        (route("r", &["/"], &[], &["a*b"]), "a*b"),
        (route("r", &[], &[], &[]), "no paths"),
        (https, "https"),
    ] {
        let mut problems = Vec::new();
        Conditions::read(&route, &mut problems);
        assert!(problems.iter().any(|p| p.contains(word)), "{problems:?}");
    }
}
