//! Services, and what the gateway has beside the mesh's own routes, into Kong's types and the container's.

use super::{GATEWAY_LISTEN, value};
use crate::container::{Build, Container, Dependency, Healthcheck};
use crate::fronted::{Certificate, Check, Extras, Metrics, Service, TLS_PORT, Tls, references};
use crate::schema::{self, At};
use crate::secret::Source;
use mesh_declarative::{Plugin, Route};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// Consul's own where mesh.yaml says nothing, and the wait that it has then.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn services(raw: Vec<At<schema::Fronted>>) -> Vec<Service> {
    raw.into_iter().filter_map(|at| service(at.value)).collect()
}

fn service(raw: schema::Fronted) -> Option<Service> {
    let name = value(raw.name)?;
    let url = value(raw.url);
    let by_gateway = raw.routes.is_some() || raw.plugins.is_some() || raw.kong.is_some();
    let gateway = by_gateway.then(|| {
        let only = value(raw.kong).unwrap_or_default();
        let usual = mesh_declarative::Service::default();
        mesh_declarative::Service {
            name: name.clone(),
            url: url.as_ref().map(address),
            retries: value(only.retries).unwrap_or(usual.retries),
            connect_timeout: value(only.connect_timeout).unwrap_or(usual.connect_timeout),
            write_timeout: value(only.write_timeout).unwrap_or(usual.write_timeout),
            read_timeout: value(only.read_timeout).unwrap_or(usual.read_timeout),
            tls_verify: value(only.tls_verify),
            tls_verify_depth: value(only.tls_verify_depth),
            enabled: value(only.enabled).unwrap_or(true),
            tags: plain(only.tags),
            routes: items(raw.routes, route),
            plugins: items(raw.plugins, plugin),
            ..usual
        }
    });
    Some(Service {
        id: value(raw.id).unwrap_or_else(|| format!("{name}-1")),
        tags: value(raw.tags).map(plain).unwrap_or_default(),
        check: value(raw.check).and_then(|check| {
            Some(Check {
                ask: check.ask?,
                interval: value(check.interval).unwrap_or(INTERVAL),
                timeout: value(check.timeout).unwrap_or(TIMEOUT),
            })
        }),
        metrics: value(raw.metrics).map(|metrics| Metrics {
            job: value(metrics.job).unwrap_or_else(|| name.clone()),
            path: value(metrics.path).unwrap_or_else(|| "/metrics".to_owned()),
            port: value(metrics.port),
            scheme: value(metrics.scheme).unwrap_or("http").to_owned(),
            params: value(metrics.params).unwrap_or_default(),
            interval: value(metrics.interval),
        }),
        container: value(raw.container).map(container),
        gateway,
        name,
        url,
    })
}

/// A URL without a path has the path `/`, which Kong takes as none.
fn address(url: &url::Url) -> String {
    let text = url.as_str();
    let bare = (url.path() == "/").then(|| text.strip_suffix('/'));
    bare.flatten().unwrap_or(text).to_owned()
}

fn route(raw: schema::FrontedRoute) -> Option<Route> {
    let usual = Route::default();
    Some(Route {
        name: value(raw.name)?,
        paths: plain(raw.paths),
        methods: plain(raw.methods),
        hosts: plain(raw.hosts),
        headers: value(raw.headers).unwrap_or_default(),
        snis: plain(raw.snis),
        protocols: value(raw.protocols).map_or(usual.protocols, plain),
        strip_path: value(raw.strip_path).unwrap_or(usual.strip_path),
        preserve_host: value(raw.preserve_host).unwrap_or(usual.preserve_host),
        regex_priority: value(raw.regex_priority).unwrap_or(usual.regex_priority),
        https_redirect_status_code: value(raw.https_redirect_status_code)
            .unwrap_or(usual.https_redirect_status_code),
        path_handling: value(raw.path_handling).unwrap_or(usual.path_handling),
        request_buffering: value(raw.request_buffering),
        response_buffering: value(raw.response_buffering),
        tags: plain(raw.tags),
        plugins: raw
            .plugins
            .into_iter()
            .filter_map(|at| plugin(at.value))
            .collect(),
        service: None,
    })
}

fn plugin(raw: schema::KongPlugin) -> Option<Plugin> {
    Some(Plugin {
        name: value(raw.name)?,
        config: value(raw.config).map_or(Value::Null, |config| Value::Object(config.json)),
        enabled: value(raw.enabled).unwrap_or(true),
        protocols: plain(raw.protocols),
        instance_name: value(raw.instance_name),
        tags: plain(raw.tags),
        ..Plugin::default()
    })
}

pub(super) fn container(raw: schema::Container) -> Container {
    Container {
        name: value(raw.name),
        image: value(raw.image),
        build: value(raw.build).and_then(|build: schema::Build| {
            Some(Build {
                context: value(build.context)?,
                dockerfile: value(build.dockerfile),
                target: value(build.target),
                args: value(build.args).unwrap_or_default(),
            })
        }),
        ports: plain(raw.ports),
        environment: plain(raw.environment).into_iter().collect(),
        volumes: plain(raw.volumes),
        command: plain(raw.command),
        entrypoint: plain(raw.entrypoint),
        tier: value(raw.tier),
        networks: plain(raw.networks),
        depends_on: plain(raw.depends_on)
            .into_iter()
            .map(|dependency| Dependency {
                name: dependency.name,
                condition: dependency.condition,
            })
            .collect(),
        healthcheck: value(raw.healthcheck).map(|check: schema::Healthcheck| Healthcheck {
            test: plain(check.test),
            interval: value(check.interval),
            timeout: value(check.timeout),
            retries: value(check.retries),
            start_period: value(check.start_period),
        }),
        user: value(raw.user),
        restart: value(raw.restart),
        compose: value(raw.compose).unwrap_or_default(),
        secrets: value(raw.secrets).unwrap_or_default(),
        read_only: value(raw.read_only),
        replicas: value(raw.replicas),
        max_replicas: value(raw.max_replicas),
        memory: value(raw.memory).map(|bytes| bytes as u64),
        cpus: value(raw.cpus),
    }
}

/// What stands in the gateway beside the mesh's own routes.
pub(super) fn extras(raw: &mut schema::Gateway) -> Extras {
    let listen = value(raw.listen.clone()).unwrap_or(GATEWAY_LISTEN);
    Extras {
        plugins: items(raw.plugins.take(), plugin),
        upstreams: items(raw.upstreams.take(), Some),
        tls: value(raw.tls.take()).map(|tls: schema::Tls| Tls {
            listen: value(tls.listen).unwrap_or(SocketAddr::new(listen.ip(), TLS_PORT)),
            certificates: tls
                .certificates
                .into_iter()
                .filter_map(|at| {
                    Some(Certificate {
                        snis: plain(at.value.snis),
                        cert: value(at.value.cert)?,
                        key: value(at.value.key)?,
                        tags: plain(at.value.tags),
                    })
                })
                .collect(),
        }),
        secrets: Vec::new(),
        vault: None,
    }
}

/// Every secret that the plugins of the gateway and of services stand on.
pub(super) fn secrets(extras: &Extras, services: &[Service]) -> Vec<(String, Source)> {
    let mut out = Vec::new();
    let mut all = |place: String, plugins: &[Plugin]| {
        for plugin in plugins {
            let path = format!("{place}.plugins.{}.config", plugin.name);
            references(&plugin.config, &path, extras, &mut out);
        }
    };
    all("gateway".to_owned(), &extras.plugins);
    for service in services {
        let Some(gateway) = &service.gateway else {
            continue;
        };
        all(format!("services.{}", service.name), &gateway.plugins);
        for route in &gateway.routes {
            let place = format!("services.{}.routes.{}", service.name, route.name);
            all(place, &route.plugins);
        }
    }
    out
}

fn plain<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

fn items<T, U>(list: Option<At<Vec<At<T>>>>, read: impl Fn(T) -> Option<U>) -> Vec<U> {
    let all = value(list).unwrap_or_default().into_iter();
    all.filter_map(|at| read(at.value)).collect()
}
