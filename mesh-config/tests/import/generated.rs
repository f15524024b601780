//! Any kong.yml that can be written comes back without a difference.

use crate::kong_of;
use crate::same::assert_same;
use mesh_declarative::{
    Active, Config, Healthchecks, Healthy, Passive, PathHandling, Plugin, Protocol, Route, Service,
    Unhealthy, Upstream, UpstreamTarget,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value};

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_.~-]{0,8}"
}

/// Words that YAML readers take for something else, and texts with its punctuation.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{1,24}".prop_filter("it is not blank", |text| !text.trim().is_empty()),
        prop::sample::select(vec![
            "yes",
            "no",
            "on",
            "off",
            "null",
            "~",
            "1e3",
            "0x10",
            "0o17",
            "1_000",
            ".inf",
            "true",
            "2020-01-01",
            "12:30:45",
            "- a",
            "a: b",
            "a #b",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "|",
            ">",
            "'",
            "\"",
            "é",
            "a\nb",
            "\u{2028}",
            "<<",
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("it is no secret", |text| {
        !text.contains("://") && !text.contains("uthorization")
    })
}

/// What the header of a request can hold.
fn header() -> impl Strategy<Value = String> {
    text().prop_filter("it is visible", |text| {
        text.chars().all(|c| (' '..='~').contains(&c))
    })
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z]{1,6}", 0..3)
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1.0e6..1.0e6f64).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z]{2,8}_of", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn plugins() -> impl Strategy<Value = Vec<Plugin>> {
    let names = ["cors", "key-auth", "acl", "jwt", "statsd", "my-own"];
    let config = btree_map("[a-z]{2,8}_is", json(), 0..4);
    let plugin = (
        of(config),
        any::<bool>(),
        tags(),
        of("[a-z]{1,6}"),
        any::<bool>(),
    );
    vec((prop::sample::select(names.to_vec()), plugin), 0..4).prop_map(|list| {
        let mut all: Vec<Plugin> = Vec::new();
        for (name, (config, enabled, tags, instance_name, protocols)) in list {
            if all.iter().any(|plugin| plugin.name == name) {
                continue;
            }
            let config = config.map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()));
            all.push(Plugin {
                name: name.to_owned(),
                config: config.unwrap_or_default(),
                enabled,
                tags,
                instance_name,
                protocols: if protocols {
                    vec!["http".to_owned()]
                } else {
                    Vec::new()
                },
                ..Plugin::default()
            });
        }
        all
    })
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        "/[a-z0-9]{0,8}(/[a-z0-9.:@!$&+,;=-]{1,6}[a-z0-9]){0,2}/?",
        "~/[a-z]{1,4}/[\\[\\]a-z0-9]{0,4}\\$?",
    ]
    .prop_filter("it is in its normal form", |path| {
        path.starts_with('~') || mesh_declarative::check_path(path).is_ok()
    })
}

fn route() -> impl Strategy<Value = Route> {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let conditions = (
        vec(path(), 1..4),
        prop::sample::subsequence(methods.to_vec(), 0..4),
        vec("([*][.])?[a-z]{1,8}[.]example", 0..3),
        btree_map("x-[a-z]{1,6}", vec(header(), 1..3), 0..3),
    );
    let rest = (
        prop::sample::select(vec![
            vec![Protocol::Http, Protocol::Https],
            vec![Protocol::Https],
            vec![Protocol::Grpc],
        ]),
        any::<(bool, bool, Option<bool>, Option<bool>)>(),
        0..65_535i32,
        prop::sample::select(vec![426u16, 301, 302, 307, 308]),
        any::<bool>(),
        tags(),
        plugins(),
    );
    (conditions, rest).prop_map(|((mut paths, methods, hosts, headers), rest)| {
        let (
            protocols,
            (strip_path, preserve_host, ask, answer),
            priority,
            status,
            v1,
            tags,
            plugins,
        ) = rest;
        paths.sort();
        paths.dedup();
        Route {
            paths,
            methods: methods.into_iter().map(str::to_owned).collect(),
            hosts,
            headers,
            protocols,
            strip_path,
            preserve_host,
            request_buffering: ask,
            response_buffering: answer,
            regex_priority: priority,
            https_redirect_status_code: status,
            path_handling: if v1 {
                PathHandling::V1
            } else {
                PathHandling::V0
            },
            tags,
            plugins,
            ..Route::default()
        }
    })
}

fn service() -> impl Strategy<Value = Service> {
    let place = prop_oneof![
        ("https?", "[a-z]{1,8}", of(1u16..), of("/[a-z]{1,5}/?")).prop_map(
            |(scheme, host, port, path)| {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                Service {
                    url: Some(format!(
                        "{scheme}://{host}{port}{}",
                        path.unwrap_or_default()
                    )),
                    ..Service::default()
                }
            }
        ),
        (
            of(prop::sample::select(vec!["http", "https"])),
            "[a-z]{1,8}",
            1u16..,
            of("/[a-z]{1,5}"),
        )
            .prop_map(|(protocol, host, port, path)| Service {
                protocol: protocol.map(str::to_owned),
                host: Some(host),
                port: Some(port),
                path,
                ..Service::default()
            }),
    ];
    let times = || 1u32..2_147_483_646;
    let numbers = (
        0u32..32_767,
        times(),
        times(),
        times(),
        any::<bool>(),
        of(any::<bool>()),
    );
    (place, numbers, tags(), vec(route(), 0..4), plugins()).prop_map(
        |(place, (retries, connect, write, read, enabled, tls_verify), tags, routes, plugins)| {
            Service {
                retries,
                connect_timeout: connect,
                write_timeout: write,
                read_timeout: read,
                enabled,
                tls_verify,
                tags,
                routes,
                plugins,
                ..place
            }
        },
    )
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let healthy = || {
        (
            of(0.0..100.0f64),
            of(vec(200u16..400, 1..3)),
            of(any::<u8>()),
        )
            .prop_map(|(interval, http_statuses, successes)| Healthy {
                interval,
                http_statuses,
                successes,
            })
    };
    let unhealthy = || {
        (
            of(0.0..100.0f64),
            of(any::<u8>()),
            of(any::<u8>()),
            of(any::<u8>()),
        )
            .prop_map(|(interval, tcp, timeouts, http)| Unhealthy {
                interval,
                http_statuses: None,
                tcp_failures: tcp,
                timeouts,
                http_failures: http,
            })
    };
    let active = (
        of(healthy()),
        of(unhealthy()),
        of(0.1..60.0f64),
        of("/[a-z]{1,6}"),
    );
    let checks = (
        of(active),
        of((of(healthy()), of(unhealthy()))),
        of(0.0..100.0f64),
    );
    let targets = vec(("[a-z]{1,8}:[1-9][0-9]{0,3}", any::<u16>(), tags()), 0..4);
    (
        of(prop::sample::select(vec![
            "round-robin",
            "least-connections",
        ])),
        targets,
        of(checks),
        tags(),
    )
        .prop_map(|(algorithm, targets, checks, tags)| {
            let mut all: Vec<UpstreamTarget> = Vec::new();
            for (target, weight, tags) in targets {
                if all.iter().all(|other| other.target != target) {
                    all.push(UpstreamTarget {
                        target,
                        weight,
                        tags,
                    });
                }
            }
            Upstream {
                algorithm: algorithm.map(str::to_owned),
                targets: all,
                tags,
                healthchecks: checks.map(|(active, passive, threshold)| Healthchecks {
                    active: active.map(|(healthy, unhealthy, timeout, http_path)| Active {
                        healthy,
                        unhealthy,
                        timeout,
                        http_path,
                        ..Active::default()
                    }),
                    passive: passive.map(|(healthy, unhealthy)| Passive {
                        healthy,
                        unhealthy,
                        ..Passive::default()
                    }),
                    threshold,
                }),
                ..Upstream::default()
            }
        })
}

/// Names that stand once.
fn config() -> impl Strategy<Value = Config> {
    let services = vec((name(), service()), 1..5);
    let upstreams = vec((name(), upstream()), 0..3);
    (services, upstreams, plugins()).prop_map(|(services, upstreams, plugins)| {
        let mut config = Config {
            plugins,
            ..Config::default()
        };
        for (number, (name, mut service)) in services.into_iter().enumerate() {
            service.name = format!("{name}{number}");
            for (route, one) in service.routes.iter_mut().enumerate() {
                one.name = format!("{name}.{number}.{route}");
            }
            config.services.push(service);
        }
        for (number, (name, mut upstream)) in upstreams.into_iter().enumerate() {
            upstream.name = format!("{name}{number}");
            config.upstreams.push(upstream);
        }
        config
    })
}

/// Some of what stands in its owner beside it, as other tools write it.
fn apart(mut config: Config) -> Config {
    let mut routes = Vec::new();
    for service in &mut config.services {
        for mut route in std::mem::take(&mut service.routes) {
            route.service = Some(service.name.clone());
            for mut plugin in std::mem::take(&mut route.plugins) {
                plugin.route = Some(route.name.clone());
                config.plugins.push(plugin);
            }
            routes.push(route);
        }
        for mut plugin in std::mem::take(&mut service.plugins) {
            plugin.service = Some(service.name.clone());
            config.plugins.push(plugin);
        }
    }
    config.routes = routes;
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_gateway_comes_back_without_a_difference(config in config(), split in any::<bool>()) {
        let config = if split { apart(config) } else { config };
        let text = config.to_yaml().unwrap();
        // As Kong would read it: its reader may take other than the writer meant.
        let before = Config::from_yaml(&text).unwrap();
        let (imported, after) = kong_of(&text);
        prop_assert_eq!(&imported.lost, &Vec::new(), "{}", text);
        assert_same(&before, &after);
    }
}
