//! ip-restriction: which addresses may ask.

use super::error;
use crate::body::Body;
use http::{Response, StatusCode};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    status: Option<u16>,
    message: Option<String>,
}

/// The plugin, checked.
#[derive(Debug)]
pub(super) struct IpRestriction {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    status: StatusCode,
    message: Option<String>,
}

impl IpRestriction {
    pub(super) fn new(config: Config) -> Result<Self, String> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return Err("needs one of config.allow and config.deny".to_owned());
        }
        let status = config.status.unwrap_or(403);
        Ok(Self {
            allow: networks("allow", &config.allow)?,
            deny: networks("deny", &config.deny)?,
            status: StatusCode::from_u16(status)
                .ok()
                .filter(|s| s.as_u16() >= 200)
                .ok_or_else(|| format!("config.status: {status} is no status of an answer"))?,
            message: config.message,
        })
    }

    /// The answer to a client that may not ask. `deny` goes before `allow`, as in Kong.
    pub(super) fn check(&self, client: IpAddr) -> Option<Response<Body>> {
        let within = |networks: &[IpNet]| networks.iter().any(|n| n.contains(&client));
        let refused = within(&self.deny) || (!self.allow.is_empty() && !within(&self.allow));
        refused.then(|| match &self.message {
            Some(message) => error(self.status, message),
            None => error(self.status, &format!("IP address not allowed: {client}")),
        })
    }
}

fn networks(field: &str, texts: &[String]) -> Result<Vec<IpNet>, String> {
    texts
        .iter()
        .map(|text| {
            let network = text.parse().ok();
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            network
                .or_else(address)
                .ok_or_else(|| format!("config.{field}: {text} is no address and no network"))
        })
        .collect()
}
