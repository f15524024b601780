//! Where others find a sidecar that listens on every address of its machine.

use crate::config::{Advertised, Consul};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The address that the registry is told.
///
/// # Errors
/// Where it is to be found out, and Consul's name is not resolved or no way leads there.
pub(crate) fn address(advertised: Advertised, consul: Option<&Consul>) -> io::Result<IpAddr> {
    match advertised {
        Advertised::Address(address) => Ok(address),
        Advertised::Auto => {
            let other = |what: &str| io::Error::other(what.to_owned());
            let consul = consul.ok_or_else(|| other("there is no Consul to be reached"))?;
            let url = url::Url::parse(&consul.url).map_err(io::Error::other)?;
            let host = url
                .host_str()
                .ok_or_else(|| other("Consul's URL has no host"))?;
            let port = url.port_or_known_default().unwrap_or(8500);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let mut addresses = (host, port).to_socket_addrs()?;
            let peer = addresses
                .next()
                .ok_or_else(|| other("Consul's name has no address"))?;
            towards(peer)
        }
    }
}

/// The address of this machine from where `peer` is reached. Connecting a datagram socket asks the routing table
/// and sends nothing.
fn towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_consul_is_where_it_is_found() {
        let consul = Consul::at("http://127.0.0.1:8500");
        let found = address(Advertised::Auto, Some(&consul)).unwrap();
        assert_eq!(found, Ipv4Addr::LOCALHOST);
        let consul = Consul::at("http://localhost:8500");
        assert!(
            address(Advertised::Auto, Some(&consul))
                .unwrap()
                .is_loopback()
        );
    }

    #[test]
    fn what_is_said_is_not_looked_for() {
        let said = Advertised::try_from("10.0.0.7".to_owned()).unwrap();
        assert_eq!(address(said, None).unwrap().to_string(), "10.0.0.7");
        assert!(address(Advertised::Auto, None).is_err());
        for bad in ["0.0.0.0", "::", "consul", ""] {
            assert!(Advertised::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
