//! A Consul with many services: what it takes to know them all, and how soon a change is followed.

use super::{Bench, say};
use crate::certificates::{Authority, Leaf};
use crate::consul::{Consul, Instance, node};
use crate::load::{Call, Line, until_right};
use crate::mesh;
use crate::nginx::Nginx;
use crate::pairs::{CLIENT, add, inbound_config, outbound_config};
use crate::process::{Process, free_address};
use crate::row::{Row, figure};
use crate::{median, quantile};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "From a change in Consul to the first request that follows it, for a sidecar that calls 1,000 services with 10 instances each: from before an instance is written into \
    the catalogue, passing, to the first answer of that instance, while requests to its service follow one another. Since Consul takes 200 connections of one \
    machine, a sidecar cannot wait for each service by itself: the row is the service that was asked for last, the table has the first one, too, and how long an instance that was \
    taken out still gets requests. `slow_start_ms` is 0, so that a new instance is chosen like the old one at once.";
/// What the row says.
pub const ABOUT_RSS: &str =
    "Resident memory of that sidecar, when it was asked for every one of the services.";

const SERVICES: usize = 1_000;
const INSTANCES: usize = 10;
/// The services that have instances which answer: asked for before all others, and after them.
const ANSWERING: [&str; 2] = ["first", "last"];
/// What the instance that stays answers, and the one that comes and goes.
const BODIES: [&str; 2] = ["stays", "comes"];
/// Of each kind in a round, for each service.
const CHANGES: usize = 3;
/// Without a request for this long, an instance gets none any more. A sidecar that is told of changes faster than
/// this would rightly take its time.
const QUIET: Duration = Duration::from_millis(600);
/// For a process to be ready, and for a change to be followed, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Measures both rows.
pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let field = Field::lay(bench).await?;
    let mut rounds = Vec::new();
    for number in 0..bench.rounds {
        let round = field.round(bench, number).await?;
        let [_, last] = &round.services;
        say(&format!(
            "  {} MiB; a new instance after {} ms, the last request to one that is gone after {} ms",
            figure(round.resident_mib),
            figure(median(&last.new_ms)),
            figure(median(&last.gone_ms))
        ));
        rounds.push(round);
    }
    let each = |of: &dyn Fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let new_ms = each(&|round| {
        let [_, last] = &round.services;
        median(&last.new_ms)
    });
    let before = median(&each(&|round| round.before_mib));
    Ok(vec![
        Row::alone("sidecar-discovery", "ms", &new_ms)
            .with_table(table(&rounds))
            .with_note(crate::machine::busy()),
        Row::alone(
            "sidecar-discovery-rss",
            "MiB",
            &each(&|round| round.resident_mib),
        )
        .with_note(format!(
            "MiB before the other services were asked for: {}",
            figure(before)
        )),
    ])
}

fn table(rounds: &[Round]) -> Vec<Vec<String>> {
    let heads = ["service, change", "median ms", "p90 ms", "longest ms"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    for (place, service) in ANSWERING.iter().enumerate() {
        let line = |change: &str, of: &dyn Fn(&Followed) -> &[f64]| {
            let services = rounds.iter().filter_map(|round| round.services.get(place));
            let all: Vec<f64> = services.flat_map(of).copied().collect();
            vec![
                format!("asked for {service}, {change}"),
                figure(median(&all)),
                figure(quantile(&all, 0.9)),
                figure(quantile(&all, 1.0)),
            ]
        };
        table.push(line("a new instance: its first answer", &|f| &f.new_ms));
        table.push(line("one that is gone: its last answer", &|f| &f.gone_ms));
    }
    table
}

/// How soon changes of one service were followed.
#[derive(Default)]
struct Followed {
    new_ms: Vec<f64>,
    gone_ms: Vec<f64>,
}

/// One sidecar's life.
struct Round {
    before_mib: f64,
    resident_mib: f64,
    /// Of each of [`ANSWERING`].
    services: [Followed; 2],
}

/// A Consul full of services, and the instances that answer.
struct Field {
    consul: Consul,
    authority: Authority,
    client: Leaf,
    /// Of each of [`ANSWERING`], where the instance is that comes and goes.
    comers: Vec<SocketAddr>,
    /// Held for their end.
    processes: Vec<Process>,
}

impl Field {
    async fn lay(bench: &Bench) -> Result<Self> {
        let scratch = bench.scratch.path();
        let authority = Authority::make(&scratch.join("certificates"))?;
        let mut field = Self {
            consul: Consul::start(scratch).await?,
            client: authority.leaf(CLIENT)?,
            authority,
            comers: Vec::new(),
            processes: Vec::new(),
        };
        let mut operations: Vec<Value> = (0..INSTANCES).map(|n| node(&node_name(n))).collect();
        let [stays, comes] = BODIES;
        let staying = field.agent(scratch, stays).await?;
        let coming = field.agent(scratch, comes).await?;
        for service in ANSWERING {
            let address = field.inbound(bench, service, stays, staying).await?;
            // An id is a node's, not a service's.
            let id = format!("{service}-{stays}");
            operations.extend(instance(service, &id, 0, address).register());
            let address = field.inbound(bench, service, comes, coming).await?;
            field.comers.push(address);
        }
        for service in ANSWERING.len()..SERVICES {
            let [high, low] = u16::try_from(service)?.to_be_bytes();
            let service = service_name(service);
            for number in 0..INSTANCES {
                // Nobody listens there: a request fails at once, and its service is known.
                let port = u16::try_from(1 + number)?;
                let address = SocketAddr::from(([127, 2, high, low], port));
                let id = format!("{service}-{number}");
                operations.extend(instance(&service, &id, number, address).register());
            }
        }
        field.consul.write(&operations).await?;
        Ok(field)
    }

    async fn agent(&mut self, scratch: &Path, body: &str) -> Result<SocketAddr> {
        let (address, nginx) = Nginx::answering(body).start(scratch, body).await?;
        self.processes.push(nginx);
        Ok(address)
    }

    async fn inbound(
        &mut self,
        bench: &Bench,
        service: &str,
        body: &str,
        agent: SocketAddr,
    ) -> Result<SocketAddr> {
        let leaf = self.authority.leaf(service)?;
        let address = free_address()?;
        let config = inbound_config(&leaf, &self.authority.roots, address, agent)?;
        let name = format!("{service}-{body}");
        let scratch = bench.scratch.path();
        let mut sidecar = mesh::sidecar(&bench.binary("sidecar"), scratch, &name, &config)?;
        sidecar.listening(address, LIMIT).await?;
        self.processes.push(sidecar);
        Ok(address)
    }

    async fn round(&self, bench: &Bench, number: usize) -> Result<Round> {
        let (sidecar, address) = self.sidecar(bench).await?;
        let [first, last] = ANSWERING;
        let mut first = Probe::ready(address, first)
            .await
            .with_context(|| sidecar.log_end())?;
        let before_mib = sidecar.resident_mib()?;
        for service in ANSWERING.len()..SERVICES {
            let service = service_name(service);
            let answer = Probe::new(address, &service).await?.ask().await;
            ensure!(answer.is_err(), "{service} has nobody, and answers");
        }
        let mut last = Probe::ready(address, last).await?;
        let resident_mib = sidecar.resident_mib()?;
        let mut services = <[Followed; 2]>::default();
        for change in 0..CHANGES {
            let probes = [&mut first, &mut last];
            for ((followed, probe), comer) in services.iter_mut().zip(probes).zip(&self.comers) {
                // Each has a name of its own: one that comes and goes often would rightly be looked at twice.
                let id = format!("{}-{number}-{change}", probe.service);
                let comer = instance(&probe.service, &id, 1, *comer);
                followed.new_ms.push(self.comes(probe, &comer).await?);
                followed.gone_ms.push(self.goes(probe, &comer).await?);
            }
        }
        Ok(Round {
            before_mib,
            resident_mib,
            services,
        })
    }

    /// Milliseconds until an instance that is registered now answers.
    async fn comes(&self, probe: &mut Probe, comer: &Instance) -> Result<f64> {
        let begin = Instant::now();
        self.consul.write(&comer.register()).await?;
        while probe.ask().await? != BODIES[1] {
            ensure!(begin.elapsed() < LIMIT, "a new instance gets no request");
        }
        Ok(millis(begin.elapsed()))
    }

    /// Milliseconds until an instance that is deregistered now answers for the last time.
    async fn goes(&self, probe: &mut Probe, comer: &Instance) -> Result<f64> {
        let begin = Instant::now();
        self.consul.write(&[comer.deregister()]).await?;
        let mut last = begin;
        while last.elapsed() < QUIET {
            if probe.ask().await? == BODIES[1] {
                last = Instant::now();
            }
            ensure!(begin.elapsed() < LIMIT, "an instance that is gone is asked");
        }
        Ok(millis(last - begin))
    }

    async fn sidecar(&self, bench: &Bench) -> Result<(Process, SocketAddr)> {
        let address = free_address()?;
        let mut config = outbound_config(&self.client, &self.authority.roots, address)?;
        let consul = json!({"consul": {"url": self.consul.url()}});
        add(&mut config, "registry", consul);
        if let Some(outbound) = config.get_mut("outbound") {
            add(
                outbound,
                "defaults",
                json!({"balance": {"slow_start_ms": 0}}),
            );
        }
        let (binary, scratch) = (bench.binary("sidecar"), bench.scratch.path());
        let mut sidecar = mesh::sidecar(&binary, scratch, "outbound", &config)?;
        sidecar.listening(address, LIMIT).await?;
        Ok((sidecar, address))
    }
}

/// Requests to one service, one after the other.
struct Probe {
    service: String,
    call: Call,
    line: Line,
}

impl Probe {
    async fn new(address: SocketAddr, service: &str) -> Result<Self> {
        Ok(Self {
            service: service.to_owned(),
            call: Call::get(address, "/").with_header("host", service)?,
            line: Line::open(address).await?,
        })
    }

    /// To a service that answers.
    async fn ready(address: SocketAddr, service: &str) -> Result<Self> {
        let probe = Self::new(address, service).await?;
        until_right(&probe.call, LIMIT).await?;
        Ok(probe)
    }

    /// What the instance says that a request reached.
    async fn ask(&mut self) -> Result<String> {
        let body = self.line.call(&self.call).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn instance(service: &str, id: &str, number: usize, address: SocketAddr) -> Instance {
    Instance {
        node: node_name(number),
        service: service.to_owned(),
        id: id.to_owned(),
        address,
    }
}

fn service_name(number: usize) -> String {
    format!("service-{number}")
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
