//! The run: every file at the same time as the others, its cases in their order, each case by all gateways.

use crate::chains::{self, Chain, MAX_BODY};
use crate::corpus::{Case, Expectation, Expected, File, Step};
use crate::echo::Echo;
use crate::expect;
use crate::gateways::{Answer, Gateway};
use crate::native::Native;
use crate::report::{Failure, Report};
use crate::request::Request;
use crate::text;
use futures_util::future::join_all;
use mesh_gateway::{Config, Deps, build};
use mesh_tests::envoy::{self, Envoy};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Only cases whose file and name hold this.
pub type Only<'a> = Option<&'a str>;

/// Runs `files` through the native policies, the local gateway and Envoy.
///
/// # Panics
/// When one of them does not start.
pub async fn here(files: &[File], only: Only<'_>) -> Report {
    let echo = Echo::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    let chains = chains::all(files, echo.address);
    let native = chains
        .iter()
        .map(async |c| (c.name.clone(), Native::start(c).await));
    let native = join_all(native).await;
    let (local, shutdown) = local(&chains, echo.address).await;
    let envoy = start_envoy(&chains, echo.address).await;
    let http = |name, addresses| Gateway::Http {
        name,
        addresses,
        echo: echo.address,
    };
    let addresses = chains.iter().map(|c| (c.name.clone(), local));
    let listeners = chains
        .iter()
        .map(|c| (c.name.clone(), envoy.address(&c.name)));
    let gateways = [
        Gateway::Native(native.into_iter().collect()),
        http("local", addresses.collect()),
        http("envoy", listeners.collect()),
    ];
    let report = all(files, &gateways, only).await;
    shutdown.cancel();
    if !report.failures.is_empty() {
        let log = envoy.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(20);
        println!("the end of Envoy's log:\n{}", lines[from..].join("\n"));
    }
    report
}

/// Runs `files` through the gateway at `gateway`, whose upstream is the echo at `echo`.
pub async fn elsewhere(
    files: &[File],
    gateway: SocketAddr,
    echo: SocketAddr,
    only: Only<'_>,
) -> Report {
    let addresses = files.iter().map(|file| (file.name.clone(), gateway));
    let gateway = Gateway::Http {
        name: "kong",
        addresses: addresses.collect(),
        echo,
    };
    all(files, &[gateway], only).await
}

async fn local(chains: &[Chain], upstream: SocketAddr) -> (SocketAddr, CancellationToken) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let declarative = chains::declarative(chains, upstream);
    // Through its text, as the file is read.
    let text = declarative.to_yaml().expect("a kong.yml");
    let declarative = mesh_declarative::Config::from_yaml(&text).expect("the kong.yml again");
    let mut config = Config::new(listen, declarative, chains::modules());
    config.workers = 2;
    config.max_request_body = MAX_BODY;
    // So that the filters decide on what the gateway would refuse before.
    config.max_headers = 4096;
    config.max_head_bytes = 4 * 1024 * 1024;
    let deps = Deps {
        tracer: mesh_trace::Tracer::off(),
        metrics: prometheus::Registry::new(),
    };
    let bound = build(config, deps).await.expect("a gateway");
    let address = bound.address();
    let shutdown = CancellationToken::new();
    tokio::spawn(bound.run(shutdown.clone()));
    (address, shutdown)
}

async fn start_envoy(chains: &[Chain], upstream: SocketAddr) -> Envoy {
    let chain = |chain: &Chain| {
        let filters = chain.filters.iter();
        filters
            .map(|(name, config)| envoy::Filter {
                name: name.clone(),
                config: config.to_string(),
            })
            .collect()
    };
    Envoy::start(&envoy::Setup {
        modules: chains::modules(),
        upstream,
        chains: chains.iter().map(|c| (c.name.clone(), chain(c))).collect(),
        dispatch: Vec::new(),
        max_body: u32::try_from(MAX_BODY).unwrap_or(u32::MAX),
    })
    .await
}

async fn all(files: &[File], gateways: &[Gateway], only: Only<'_>) -> Report {
    let mut report = Report::default();
    let runs = files.iter().map(|file| one_file(file, gateways, only));
    for (file, (cases, found)) in files.iter().zip(join_all(runs).await) {
        *report.cases.entry(file.group.clone()).or_default() += cases;
        report.merge(found);
    }
    report
}

async fn one_file(file: &File, gateways: &[Gateway], only: Only<'_>) -> (usize, Report) {
    let mut report = Report::default();
    let mut cases = 0;
    for case in &file.cases {
        let place = format!("{}: {}", file.name, case.name);
        if only.is_some_and(|only| !place.contains(only)) {
            continue;
        }
        cases += 1;
        let asked = gateways.iter().map(|g| one_case(file, case, g, &place));
        for found in join_all(asked).await {
            report.merge(found);
        }
    }
    (cases, report)
}

async fn one_case(file: &File, case: &Case, gateway: &Gateway, place: &str) -> Report {
    let mut report = Report::default();
    let name = gateway.name();
    let difference = case.differs.get(name);
    if let Some(difference) = difference {
        let entry = (name, place.to_owned(), difference.reason.clone());
        report.differing.push(entry);
        if difference.expect.is_none() {
            return report;
        }
    }
    let fresh = text::fresh();
    let steps = case.steps();
    let several = steps.len() > 1;
    let mut requests = 0;
    for (number, step) in steps.iter().enumerate() {
        let own = difference.and_then(|d| d.expect.as_ref());
        let own = own
            .or(step.expect.as_ref())
            .or(file.defaults.expect.as_ref());
        let expected = own.map(|own| named(file, own, place)).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(step.wait_ms)).await;
        let (asked, found) = one_step(file, step, &expected, gateway, &fresh).await;
        requests += asked;
        if !found.is_empty() {
            let case = if several {
                format!("{place}, step {}", number + 1)
            } else {
                place.to_owned()
            };
            report.failures.push(Failure {
                case,
                gateway: name,
                found,
            });
            break;
        }
    }
    report.asked.insert(name, (1, requests));
    report
}

fn named(file: &File, expectation: &Expectation, place: &str) -> Expected {
    match expectation {
        Expectation::Own(own) => own.as_ref().clone(),
        Expectation::Named(name) => file
            .expectations
            .get(name)
            .unwrap_or_else(|| panic!("{place}: no expectation is called {name}"))
            .clone(),
    }
}

/// How many requests were sent, and what was not as expected.
async fn one_step(
    file: &File,
    step: &Step,
    expected: &Expected,
    gateway: &Gateway,
    fresh: &str,
) -> (usize, Vec<String>) {
    let request = |hold| Request::of(step, &file.defaults, fresh, hold);
    if let Some(at_once) = &step.at_once {
        let all = at_once.pass + at_once.refused;
        let requests: Vec<Request> = (0..all).map(|_| request(true)).collect();
        let answers = gateway
            .ask_at_once(&file.name, &requests, at_once.refused)
            .await;
        let found = match answers {
            Ok(answers) => counted(&answers, expected.status, at_once.pass, at_once.refused),
            Err(error) => vec![error],
        };
        return (all, found);
    }
    let begun = Instant::now();
    while step.eventually && begun.elapsed() < mesh_tests::GENEROUS {
        let request = request(false);
        let answer = gateway.ask(&file.name, &request).await;
        if answer.is_ok_and(|answer| expect::differences(expected, &request, &answer).is_empty()) {
            return (1, Vec::new());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 1..=step.times {
        let request = request(false);
        let found = match gateway.ask(&file.name, &request).await {
            Ok(answer) => expect::differences(expected, &request, &answer),
            Err(error) => vec![error],
        };
        if !found.is_empty() {
            let time = (step.times > 1).then(|| format!("the {number}. time"));
            return (number, time.into_iter().chain(found).collect());
        }
    }
    (step.times, Vec::new())
}

fn counted(answers: &[Answer], status: u16, pass: usize, refused: usize) -> Vec<String> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.response.status).or_default() += 1;
    }
    let wanted = BTreeMap::from([(200, pass), (status, refused)]);
    if counts == wanted {
        Vec::new()
    } else {
        vec![format!(
            "answers by status {counts:?} instead of {wanted:?}"
        )]
    }
}
