//! HAProxy in both roles: the peer's certificate is checked against the authority alone, which is all it can.

use super::{Between, Form, Ground, Proxy};
use crate::certificates::Leaf;
use crate::process::Process;
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

/// Above the connections of any measurement.
const MAX_CONNECTIONS: u32 = 16_384;

pub(super) fn inbound(
    ground: &Ground,
    form: Form,
    leaf: &Leaf,
    address: SocketAddr,
) -> Result<Process> {
    let bind = format!("{address} {} alpn h2,http/1.1", tls(ground, leaf));
    start(ground, form, "in", &bind, &ground.agent.to_string())
}

pub(super) fn outbound(
    ground: &Ground,
    form: Form,
    inbound: &Proxy,
    address: SocketAddr,
) -> Result<Process> {
    let alpn = match form.between {
        Between::Http2 => "h2",
        Between::Http1 => "http/1.1",
    };
    let tls = tls(ground, &ground.client);
    let server = format!("{} {tls} alpn {alpn}", inbound.address);
    start(ground, form, "out", &address.to_string(), &server)
}

fn tls(ground: &Ground, leaf: &Leaf) -> String {
    format!(
        "ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3",
        leaf.both.display(),
        ground.authority.roots.display()
    )
}

fn start(ground: &Ground, form: Form, role: &str, bind: &str, server: &str) -> Result<Process> {
    // Without `no strict-limits` it does not start where it could not hold twice as many files open, which a
    // connection that rests never needs. It says whom it has a request from, as ours does.
    let config = format!(
        "global\n  nbthread {threads}\n  maxconn {MAX_CONNECTIONS}\n  no strict-limits\n\
         defaults\n  mode http\n  option forwardfor\n  http-reuse always\n\
         \x20 timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n\
         frontend all\n  bind {bind}\n  default_backend next\n\
         backend next\n  server next {server}\n",
        threads = form.threads,
    );
    let name = format!("{}-{role}", form.label());
    let file = ground.scratch.join(format!("{name}.cfg"));
    fs::write(&file, config)?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Process::start(&name, &ground.scratch, command)
        .context("is HAProxy installed? benches/setup.sh installs it")
}
