//! What the gateway counts, what its filters count, and how its targets are.

mod pools;

pub(crate) use pools::Pools;

use crate::access::{self, Access, Line};
use mesh_wasm_host::{BUCKETS, MetricKind, MetricValue, Shared};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// From a refusal without any service to a task that is waited for.
const DURATIONS_S: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];
/// Route label of requests that no route takes.
const NO_ROUTE: &str = "none";

/// The gateway's metrics; clones are the same metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    filter_failures: IntCounterVec,
    pub connections: IntGauge,
    /// Configurations that were loaded while the gateway ran, by outcome.
    pub reloads: IntCounterVec,
    pub lines_dropped: IntCounter,
    /// The pools of the configuration that runs.
    pub pools: Pools,
}

impl Metrics {
    pub(crate) fn register(
        registry: &Registry,
        filters: Arc<Shared>,
    ) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("gateway_requests_total", "requests, by route and status"),
            &["route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "gateway_request_duration_seconds",
                "from the request's head to the answer's last byte",
            )
            .buckets(DURATIONS_S.to_vec()),
            &["route"],
        )?;
        let filter_failures = IntCounterVec::new(
            Opts::new(
                "gateway_filter_failures_total",
                "calls that a filter did not bring to their end",
            ),
            &["filter"],
        )?;
        let connections = IntGauge::new("gateway_connections", "clients' connections now")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(filter_failures.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        let reloads = IntCounterVec::new(
            Opts::new(
                "gateway_reloads_total",
                "configurations loaded while running, by outcome",
            ),
            &["outcome"],
        )?;
        let lines_dropped = IntCounter::new(
            "gateway_access_lines_dropped_total",
            "lines of the access log that its writer was too slow for",
        )?;
        let pools = Pools::new()?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(lines_dropped.clone()))?;
        registry.register(Box::new(pools.clone()))?;
        registry.register(Box::new(FilterMetrics::new(filters)?))?;
        Ok(Self {
            requests,
            durations,
            filter_failures,
            connections,
            reloads,
            lines_dropped,
            pools,
        })
    }

    /// A filter runs: its failures are counted from zero, so that the first is an increase.
    pub(crate) fn filter(&self, filter: &str) {
        self.filter_failures.with_label_values(&[filter]);
    }

    pub(crate) fn filter_failed(&self, filter: &str) {
        self.filter_failures.with_label_values(&[filter]).inc();
    }

    /// Handles of one route's metrics, looked up once.
    pub(crate) fn route(&self, route: &str) -> RouteMetrics {
        RouteMetrics {
            route: route.into(),
            duration: self.durations.with_label_values(&[route]),
            requests: self.requests.clone(),
        }
    }

    pub(crate) fn no_route(&self) -> RouteMetrics {
        self.route(NO_ROUTE)
    }
}

/// One route's metrics.
#[derive(Clone)]
pub(crate) struct RouteMetrics {
    route: Arc<str>,
    duration: Histogram,
    requests: IntCounterVec,
}

/// Metrics by route name, with one entry for requests without a route.
pub(crate) struct ByRoute {
    routes: HashMap<Arc<str>, RouteMetrics>,
    none: RouteMetrics,
}

impl ByRoute {
    pub(crate) fn new(metrics: &Metrics, routes: impl Iterator<Item = Arc<str>>) -> Self {
        Self {
            routes: routes
                .map(|r| (Arc::clone(&r), metrics.route(&r)))
                .collect(),
            none: metrics.no_route(),
        }
    }

    pub(crate) fn get(&self, route: Option<&str>) -> &RouteMetrics {
        route
            .and_then(|route| self.routes.get(route))
            .unwrap_or(&self.none)
    }
}

/// A request's entry in metrics and access log, written when its answer is over.
pub(crate) struct Finished {
    pub start: Instant,
    pub status: u16,
    pub metrics: RouteMetrics,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// None when there is no access log.
    pub entry: Option<Box<Entry>>,
    #[expect(dead_code, reason = "held for its end")]
    pub span: mesh_trace::Span,
}

/// What the access log tells of a request beside that.
pub(crate) struct Entry {
    pub access: Arc<Access>,
    pub method: http::Method,
    /// Without the query, which may hold what belongs in no log.
    pub path: String,
    pub client: std::net::IpAddr,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    pub service: Option<Arc<str>>,
    pub upstream: Option<Duration>,
    pub decision: Option<&'static str>,
    pub reason: Option<String>,
}

impl Drop for Finished {
    fn drop(&mut self) {
        let duration = self.start.elapsed();
        let route = &*self.metrics.route;
        self.metrics
            .requests
            .with_label_values(&[route, status_text(self.status)])
            .inc();
        self.metrics.duration.observe(duration.as_secs_f64());
        let Some(entry) = &self.entry else { return };
        entry.access.write(&Line {
            time: access::stamp(SystemTime::now()),
            client: entry.client.to_string(),
            method: entry.method.as_str(),
            path: &entry.path,
            route: Some(route).filter(|r| *r != NO_ROUTE),
            service: entry.service.as_deref(),
            status: self.status,
            bytes: self.bytes,
            duration_us: access::micros(duration),
            upstream_us: entry.upstream.map(access::micros),
            decision: entry.decision,
            reason: entry.reason.as_deref(),
            request_id: entry.request_id.as_deref(),
            traceparent: entry.traceparent.as_deref(),
        });
    }
}

/// Statuses in words that cost no allocation; a service's odd one counts under its class.
fn status_text(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        other => match other / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
    }
}

/// The filters' metrics, as they are when they are asked for.
struct FilterMetrics {
    store: Arc<Shared>,
    /// Stands for all of them: which there are is known only once filters have run.
    desc: Desc,
}

impl FilterMetrics {
    fn new(store: Arc<Shared>) -> Result<Self, prometheus::Error> {
        let desc = Desc::new(
            "pw".to_owned(),
            "metrics of filters".to_owned(),
            Vec::new(),
            HashMap::new(),
        )?;
        Ok(Self { store, desc })
    }
}

impl Collector for FilterMetrics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for metric in self.store.metrics.snapshot() {
            let help = "metric of a filter";
            match metric.kind {
                MetricKind::Counter => {
                    if let Ok(counter) = IntCounter::new(metric.name, help) {
                        counter.inc_by(metric.value);
                        families.extend(counter.collect());
                    }
                }
                MetricKind::Histogram => families.push(histogram(metric, help)),
                MetricKind::Gauge => {
                    if let Ok(gauge) = IntGauge::new(metric.name, help) {
                        gauge.set(metric.value.cast_signed());
                        families.extend(gauge.collect());
                    }
                }
            }
        }
        families
    }
}

/// What a filter recorded, as Prometheus has it; the crate's own histogram cannot be given its counts.
fn histogram(metric: MetricValue, help: &str) -> MetricFamily {
    let mut histogram = proto::Histogram::default();
    histogram.set_sample_count(metric.counts.last().copied().unwrap_or_default());
    histogram.set_sample_sum(metric.value as f64);
    let buckets = BUCKETS.iter().zip(&metric.counts).map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(*count);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut value = proto::Metric::default();
    value.set_histogram(histogram);
    let mut family = MetricFamily::default();
    family.set_name(metric.name);
    family.set_help(help.to_owned());
    family.set_field_type(proto::MetricType::HISTOGRAM);
    family.set_metric(vec![value]);
    family
}
