//! mTLS with one certificate and one trust bundle.
//!
//! A [`Tls`] never changes: new material makes a new one, with ticket keys and a store of sessions of its own. So a
//! session is never resumed past the root that vouched for it, and connections that stand are left alone.

use super::handshake::{HandshakeError, Reason};
use super::material::Credentials;
use super::metrics::{Direction, Metrics};
use super::spiffe::SpiffeId;
use super::svid::Svid;
use super::verify::{ClientVerifier, Rules, ServerVerifier, Trust, other_service};
use crate::config::ServiceName;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How long a handshake may take where nobody says otherwise.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Peers whose sessions are kept, for each protocol: as many instances as one sidecar may well call in turn; a session
/// holds the peer's chain, some 2 KB.
const SESSIONS: usize = 1_024;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What is to be spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

/// mTLS with one certificate and one trust bundle.
pub struct Tls {
    credentials: Arc<Credentials>,
    rules: Arc<Rules>,
    server: TlsAcceptor,
    h2: TlsConnector,
    http1: TlsConnector,
    metrics: Arc<Metrics>,
}

/// A connection that a peer began.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: server::TlsStream<TcpStream>,
    /// Who began it.
    pub peer: SpiffeId,
    /// Whether HTTP/2 was agreed on; otherwise it is HTTP/1.1.
    pub h2: bool,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// A connection to a peer.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: client::TlsStream<TcpStream>,
    /// Who answers there.
    pub peer: SpiffeId,
    /// Whether HTTP/2 was agreed on; otherwise it is HTTP/1.1.
    pub h2: bool,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(self.id()).finish()
    }
}

impl Tls {
    /// Shows the certificate of `credentials` and believes its bundle, and `other` beside it.
    pub(super) fn new(
        credentials: Arc<Credentials>,
        other: Option<Arc<Trust>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        let rules = Arc::new(Rules::new(Arc::clone(&credentials.trust), other));
        let server = server_config(&credentials, ClientVerifier(Arc::clone(&rules)))?;
        let verifier = Arc::new(ServerVerifier(Arc::clone(&rules)));
        let client = |alpn: &[u8]| {
            let config = client_config(&credentials, Arc::clone(&verifier), alpn);
            config.map(|config| TlsConnector::from(Arc::new(config)))
        };
        let (h2, http1) = (client(H2)?, client(HTTP1)?);
        Ok(Self {
            server: TlsAcceptor::from(Arc::new(server)),
            credentials,
            rules,
            h2,
            http1,
            metrics,
        })
    }

    /// Who this service is.
    pub fn id(&self) -> &SpiffeId {
        &self.credentials.svid.id
    }

    /// Whose certificates are believed.
    pub fn trust_domain(&self) -> &str {
        self.credentials.trust.domain()
    }

    pub(super) fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The called side of a handshake: TLS 1.3, and a certificate of the mesh, or an alert. Speaks HTTP/2 and HTTP/1.1.
    /// Takes at most 10 seconds.
    ///
    /// # Errors
    /// Why there is no connection; it is counted already.
    pub async fn accept(&self, stream: TcpStream) -> Result<Accepted, HandshakeError> {
        self.accept_within(stream, HANDSHAKE_LIMIT).await
    }

    /// [`Tls::accept`] with a time limit of the caller's.
    ///
    /// # Errors
    /// Why there is no connection; it is counted already.
    pub async fn accept_within(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<Accepted, HandshakeError> {
        let shaken = tokio::time::timeout(limit, self.server.accept(stream)).await;
        let accepted = settled(shaken, limit).and_then(|stream| {
            let connection = stream.get_ref().1;
            let peer = peer(connection.peer_certificates())?;
            Ok(Accepted {
                peer: peer.id,
                h2: connection.alpn_protocol() == Some(H2),
                resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
                stream,
            })
        });
        self.metrics.handshake(Direction::Inbound, &accepted);
        accepted
    }

    /// The calling side of a handshake: TLS 1.3, and the peer must be `service` of our trust domain. Takes at most
    /// 10 seconds.
    ///
    /// The peer looks at our certificate after this has returned: where it refuses it, the first read fails, and
    /// [`HandshakeError::from_io`] says why.
    ///
    /// # Errors
    /// Why there is no connection; it is counted already.
    pub async fn connect(
        &self,
        stream: TcpStream,
        service: &ServiceName,
        alpn: Alpn,
    ) -> Result<Connected, HandshakeError> {
        self.connect_within(stream, service, alpn, HANDSHAKE_LIMIT)
            .await
    }

    /// [`Tls::connect`] with a time limit of the caller's.
    ///
    /// # Errors
    /// Why there is no connection; it is counted already.
    pub async fn connect_within(
        &self,
        stream: TcpStream,
        service: &ServiceName,
        alpn: Alpn,
        limit: Duration,
    ) -> Result<Connected, HandshakeError> {
        let connected = self.connected(stream, service, alpn, limit).await;
        self.metrics.handshake(Direction::Outbound, &connected);
        connected
    }

    async fn connected(
        &self,
        stream: TcpStream,
        service: &ServiceName,
        alpn: Alpn,
        limit: Duration,
    ) -> Result<Connected, HandshakeError> {
        let address = stream
            .peer_addr()
            .map_err(|error| HandshakeError::from_io(&error))?;
        let connector = match alpn {
            Alpn::H2 => &self.h2,
            Alpn::Http1 => &self.http1,
        };
        let shaking = connector.connect(session_name(service, address)?, stream);
        let stream = settled(tokio::time::timeout(limit, shaking).await, limit)?;
        let connection = stream.get_ref().1;
        let peer = peer(connection.peer_certificates())?;
        if peer.id.service != *service {
            return Err(other_service(&peer.id, service.as_str()));
        }
        Ok(Connected {
            peer: peer.id,
            h2: connection.alpn_protocol() == Some(H2),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            stream,
        })
    }
}

fn server_config(
    credentials: &Credentials,
    verifier: ClientVerifier,
) -> Result<ServerConfig, rustls::Error> {
    let certificate = SingleCertAndKey::from(Arc::clone(&credentials.certified));
    let mut config = ServerConfig::builder_with_provider(credentials.provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    // Who resumes gets the next ticket on the resumed connection.
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn client_config(
    credentials: &Credentials,
    verifier: Arc<ServerVerifier>,
    alpn: &[u8],
) -> Result<ClientConfig, rustls::Error> {
    let certificate = SingleCertAndKey::from(Arc::clone(&credentials.certified));
    let mut config = ClientConfig::builder_with_provider(credentials.provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    // The name is ours alone, see `session_name`.
    config.enable_sni = false;
    Ok(config)
}

/// The name under which sessions with this instance are kept: a ticket is of use at the instance that gave it, so
/// address and port are in it. Its first label tells the verifier which service is called. It is never sent.
fn session_name(
    service: &ServiceName,
    address: SocketAddr,
) -> Result<ServerName<'static>, HandshakeError> {
    let port = address.port();
    let name = match address.ip() {
        IpAddr::V4(ip) => format!("{service}.p{port}.v{:08x}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{service}.p{port}.v{:032x}", ip.to_bits()),
    };
    ServerName::try_from(name).map_err(|e| HandshakeError::new(Reason::Other, e.to_string()))
}

fn settled<T>(
    shaken: Result<std::io::Result<T>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> Result<T, HandshakeError> {
    match shaken {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(HandshakeError::from_io(&error)),
        Err(_) => {
            let detail = format!("not done within {} ms", limit.as_millis());
            Err(HandshakeError::new(Reason::Timeout, detail))
        }
    }
}

/// Who the peer is. A resumed handshake shows no verifier a certificate: it is the one of the first, which may
/// have expired since.
fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Result<Svid, HandshakeError> {
    let leaf = certificates
        .and_then(<[_]>::first)
        .ok_or_else(|| HandshakeError::new(Reason::NoCertificate, "peer has no certificate"))?;
    let svid = Svid::read(leaf)?;
    if svid.not_after < super::unix_now() {
        let detail = "certificate of the resumed session has expired";
        return Err(HandshakeError::new(Reason::Expired, detail));
    }
    Ok(svid)
}
