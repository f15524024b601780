//! Two proxies between a client and an agent, mTLS between them: ours, Envoy's and HAProxy's, each in a process of
//! its own and all with the same certificates.
//!
//! ```text
//!  client ──HTTP/1.1──▶ outbound ══TLS 1.3, both certificates checked══▶ inbound ──HTTP/1.1──▶ agent (nginx)
//! ```

mod envoy;
mod haproxy;
mod ours;

pub use ours::{add, inbound_config, outbound_config};

use crate::certificates::{Authority, Leaf};
use crate::consul::Consul;
use crate::load::{Call, until_right};
use crate::nginx::Nginx;
use crate::process::{Process, free_address};
use crate::rows::Bench;
use crate::tls;
use anyhow::{Context, Result};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// For two processes that share a machine with many, and for a registration to be seen.
const READY: Duration = Duration::from_secs(30);
/// Length of the agent's answer, in bytes.
const ANSWER: usize = 1024;
/// Who calls.
pub const CLIENT: &str = "client";

/// Whose proxies they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Our sidecars.
    Ours,
    /// Envoy.
    Envoy,
    /// HAProxy.
    HaProxy,
}

/// What is spoken between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// One way to run a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Whose proxies.
    pub maker: Maker,
    /// What is spoken between them.
    pub between: Between,
    /// Threads of each that serve.
    pub threads: u16,
}

/// What all pairs of a measurement share: authority, agent, registry.
pub struct Ground {
    scratch: PathBuf,
    programs: Programs,
    authority: Authority,
    client: Leaf,
    agent: SocketAddr,
    consul: Option<Consul>,
    _agent: Process,
}

struct Programs {
    sidecar: PathBuf,
    envoy: PathBuf,
}

/// One proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    /// Where it takes requests.
    pub address: SocketAddr,
    service: String,
    process: Process,
}

/// Both proxies of a form.
#[derive(Debug)]
pub struct Pair {
    /// How they are run.
    pub form: Form,
    /// Takes the client's requests.
    pub outbound: Proxy,
    /// Hands them to the agent.
    pub inbound: Proxy,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Envoy => "Envoy",
            Self::HaProxy => "HAProxy",
        })
    }
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads == 1 {
            "thread"
        } else {
            "threads"
        };
        write!(
            f,
            "{}, {}, {} {threads}",
            self.maker, self.between, self.threads
        )
    }
}

impl Form {
    /// A form.
    pub const fn of(maker: Maker, between: Between, threads: u16) -> Self {
        Self {
            maker,
            between,
            threads,
        }
    }

    /// For files and services: a DNS label.
    fn label(self) -> String {
        let between = match self.between {
            Between::Http2 => "http2",
            Between::Http1 => "http1",
        };
        format!("{}-{between}-{}", self.maker, self.threads).to_lowercase()
    }
}

impl Ground {
    /// Makes certificates, starts the agent, and a Consul where our outbound sidecars are to find something.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub async fn lay(bench: &Bench, registry: bool) -> Result<Self> {
        let scratch = bench.scratch.path().to_owned();
        let authority = Authority::make(&scratch.join("certificates"))?;
        let consul = if registry {
            Some(Consul::start(&scratch).await?)
        } else {
            None
        };
        let answer = Nginx::answering(&"x".repeat(ANSWER));
        let (agent, process) = answer.start(&scratch, "agent").await?;
        Ok(Self {
            programs: Programs {
                sidecar: bench.binary("sidecar"),
                envoy: bench.root.join("target/envoy/bin/envoy"),
            },
            client: authority.leaf(CLIENT)?,
            authority,
            agent,
            consul,
            _agent: process,
            scratch,
        })
    }

    /// The agent itself, without proxies.
    pub fn agent(&self) -> Call {
        Call::get(self.agent, "/")
    }

    /// Who may call an inbound proxy.
    pub fn client(&self) -> &Leaf {
        &self.client
    }

    /// Starts an inbound proxy.
    ///
    /// # Errors
    /// When it serves nobody, or clients that have no certificate.
    pub async fn inbound(&self, form: Form) -> Result<Proxy> {
        let leaf = self.authority.leaf(&form.label())?;
        let address = free_address()?;
        let mut process = match form.maker {
            Maker::Ours => ours::inbound(self, form, &leaf, address)?,
            Maker::Envoy => envoy::inbound(self, form, &leaf, address)?,
            Maker::HaProxy => haproxy::inbound(self, form, &leaf, address)?,
        };
        process.listening(address, READY).await?;
        let client = tls::Client::new(
            address,
            &self.client.certificate,
            &self.client.key,
            tls::HTTP1,
        )?;
        tls::until_mutual(&client, &leaf.service, READY)
            .await
            .with_context(|| {
                let log = process.log_end();
                format!("the inbound proxy of {form}\n{log}")
            })?;
        Ok(Proxy {
            address,
            service: leaf.service,
            process,
        })
    }

    /// Starts both proxies and waits until a request passes.
    ///
    /// # Errors
    /// When none does, with the end of their logs.
    pub async fn pair(&self, form: Form) -> Result<Pair> {
        let inbound = self.inbound(form).await?;
        let address = free_address()?;
        let mut process = match form.maker {
            Maker::Ours => ours::outbound(self, form, address)?,
            Maker::Envoy => envoy::outbound(self, form, &inbound, address)?,
            Maker::HaProxy => haproxy::outbound(self, form, &inbound, address)?,
        };
        process.listening(address, READY).await?;
        let pair = Pair {
            form,
            outbound: Proxy {
                address,
                service: inbound.service.clone(),
                process,
            },
            inbound,
        };
        until_right(&pair.call()?, READY).await.with_context(|| {
            let logs = [&pair.outbound, &pair.inbound].map(|proxy| proxy.log_end());
            format!("{form}\n{}", logs.join("\n"))
        })?;
        Ok(pair)
    }
}

impl Proxy {
    /// The service behind it, which is the host of requests to it.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The end of what it printed.
    pub fn log_end(&self) -> String {
        self.process.log_end()
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_s(&self) -> Result<f64> {
        self.process.cpu_s()
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_mib(&self) -> Result<f64> {
        self.process.resident_mib()
    }
}

impl Pair {
    /// A request that passes both.
    ///
    /// # Errors
    /// When the service's name cannot be a host.
    pub fn call(&self) -> Result<Call> {
        Call::get(self.outbound.address, "/").with_header("host", &self.inbound.service)
    }

    /// Processor time of both so far, in seconds.
    ///
    /// # Errors
    /// When one is gone.
    pub fn cpu_s(&self) -> Result<f64> {
        Ok(self.outbound.cpu_s()? + self.inbound.cpu_s()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_name_and_a_label() {
        let form = Form::of(Maker::HaProxy, Between::Http1, 2);
        assert_eq!(form.to_string(), "HAProxy, HTTP/1.1, 2 threads");
        assert_eq!(form.label(), "haproxy-http1-2");
    }
}
