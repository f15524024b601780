//! Whose units a request takes: the parts of its head that make a limit's key.

use super::table::{Key, Table};
use crate::callers::Calling;
use crate::config::Dimension;
use crate::decision::FOUND_AGENT;
use crate::host::Host;
use crate::{Caller, ConfigError, RequestHead, Unreadable};
use std::net::{IpAddr, Ipv6Addr};

/// Longest part of a key that is told apart, in bytes; of a longer one the beginning counts.
const MAX_PART: usize = 1024;
/// Addresses of `X-Forwarded-For` that are looked at; a chain of proxies has a handful.
const MAX_HOPS: usize = 16;

/// What makes the key of one limit.
#[derive(Debug)]
pub(super) struct Keys(Vec<Dimension>);

/// Networks that proxies are trusted in.
#[derive(Debug, Default)]
pub(super) struct Networks(Vec<(IpAddr, u8)>);

impl Keys {
    pub(super) fn compile(by: &[Dimension], path: &str, faults: &mut Vec<ConfigError>) -> Self {
        for (number, dimension) in by.iter().enumerate() {
            if by.iter().take(number).any(|earlier| earlier == dimension) {
                faults.push(ConfigError::new(
                    format!("{path}[{number}]"),
                    "is there twice",
                ));
            }
            if let Dimension::Claim(name) = dimension
                && name.is_empty()
            {
                faults.push(ConfigError::new(
                    format!("{path}[{number}].claim"),
                    "must be a claim's name",
                ));
            }
            if let Dimension::Header(name) = dimension
                && !is_header_name(name)
            {
                faults.push(ConfigError::new(
                    format!("{path}[{number}].header"),
                    "must be a header's name in lower case",
                ));
            }
        }
        Self(by.to_vec())
    }

    /// The request's key.
    pub(super) fn key(
        &self,
        table: &Table,
        limit: &str,
        trusted: &Networks,
        head: &dyn RequestHead,
        calling: &Calling<'_>,
        host: &dyn Host,
    ) -> Result<Key, Unreadable> {
        let mut parts: Vec<Vec<u8>> = vec![limit.into()];
        for dimension in &self.0 {
            let mut part = part(dimension, trusted, head, calling, host)?;
            part.truncate(MAX_PART);
            parts.push(part);
        }
        Ok(table.key(parts.iter().map(Vec::as_slice)))
    }
}

fn part(
    dimension: &Dimension,
    trusted: &Networks,
    head: &dyn RequestHead,
    calling: &Calling<'_>,
    host: &dyn Host,
) -> Result<Vec<u8>, Unreadable> {
    Ok(match dimension {
        Dimension::Consumer => calling.caller().map(Caller::identity).unwrap_or_default(),
        Dimension::Address => match client(trusted, head)? {
            IpAddr::V4(address) => address.octets().to_vec(),
            // Whoever has one address of such a network has all of them.
            IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
        },
        Dimension::Path => crate::path::plain(&head.path()?),
        Dimension::Agent => host.found(FOUND_AGENT).unwrap_or_default(),
        Dimension::Claim(name) => calling
            .caller()
            .and_then(|caller| caller.claims.get(name).cloned())
            .unwrap_or_default()
            .into_bytes(),
        // As the gateways join them that tell several as one.
        Dimension::Header(name) => head.header(name)?.join(&b", "[..]),
    })
}

/// The client's address: the peer's, or where that is a proxy that is trusted, the last address of
/// `X-Forwarded-For` that is none.
fn client(trusted: &Networks, head: &dyn RequestHead) -> Result<IpAddr, Unreadable> {
    let mut client = head.peer()?;
    if !trusted.hold(client) {
        return Ok(client);
    }
    let chain = head.header("x-forwarded-for")?.join(&b',');
    for entry in chain.rsplit(|b| *b == b',').take(MAX_HOPS) {
        let address = std::str::from_utf8(entry)
            .ok()
            .and_then(|text| text.trim().parse::<IpAddr>().ok());
        // What a proxy that is trusted did not write proves nothing.
        let Some(address) = address else { break };
        client = address.to_canonical();
        if !trusted.hold(client) {
            break;
        }
    }
    Ok(client)
}

impl Networks {
    pub(super) fn compile(texts: &[String], path: &str, faults: &mut Vec<ConfigError>) -> Self {
        let mut networks = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            match network(text) {
                Some(network) => networks.push(network),
                None => faults.push(ConfigError::new(
                    format!("{path}[{number}]"),
                    "must be an address or a network, such as 10.0.0.0/8",
                )),
            }
        }
        Self(networks)
    }

    fn hold(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|(network, length)| {
            network.is_ipv4() == address.is_ipv4()
                && (bits ^ self::bits(*network))
                    .checked_shr(128 - u32::from(*length))
                    .unwrap_or(0)
                    == 0
        })
    }
}

/// An address and the number of bits, counted from the front of 128, that its network shares.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (most, before) = if address.is_ipv4() {
        (32, 96)
    } else {
        (128, 0)
    };
    let length = length.unwrap_or(most);
    (length <= most).then_some((address, before + length))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

/// Whether `name` is a header's name in lower case.
pub(super) fn is_header_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::MemoryHead;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        let mut faults = Vec::new();
        let networks = Networks::compile(&texts, "trusted_proxies", &mut faults);
        assert_eq!(faults, []);
        networks
    }

    #[test]
    fn networks_hold_what_they_hold() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        for inside in ["10.0.0.1", "10.255.0.1", "192.0.2.7", "2001:db8:1::1"] {
            assert!(some.hold(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::ffff:10.0.0.1"] {
            assert!(!some.hold(outside.parse().unwrap()), "{outside}");
        }
        assert!(networks(&["0.0.0.0/0"]).hold("8.8.8.8".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/0"]).hold("::1".parse().unwrap()));
        assert!(networks(&["::/0"]).hold("::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "::/129", "host", "10.0.0/8", "1.1.1.1/x"] {
            assert_eq!(network(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let trusted = networks(&["10.0.0.0/8"]);
        let from = |peer: &str, chain: &str| {
            let head = MemoryHead::new("GET", "/")
                .from(peer.parse().unwrap())
                .with("x-forwarded-for", chain);
            client(&trusted, &head).unwrap().to_string()
        };
        assert_eq!(from("192.0.2.1", "198.51.100.1"), "192.0.2.1");
        assert_eq!(from("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(
            from("10.0.0.1", "203.0.113.9, 198.51.100.1"),
            "198.51.100.1"
        );
        assert_eq!(from("10.0.0.1", "198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(from("10.0.0.1", "198.51.100.1, junk, 10.0.0.2"), "10.0.0.2");
        assert_eq!(from("10.0.0.1", "junk"), "10.0.0.1");
    }
}
