//! The client's side of mTLS as a load: it resumes no session, and costs as little as it can.
//!
//! It does not look at who answers, and offers one group and one cipher, so that every server does the same work.

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Addresses that connections begin at: one alone has 28,000 ports, each of which rests for a minute.
const SOURCES: u8 = 16;
/// HTTP/1.1, as TLS names it.
pub const HTTP1: &str = "http/1.1";
/// HTTP/2.
pub const HTTP2: &str = "h2";
/// For an answer of a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Opens connections to one address.
pub struct Client {
    connector: TlsConnector,
    address: SocketAddr,
    opened: AtomicU8,
}

/// A connection.
pub type Stream = TlsStream<TcpStream>;

impl Client {
    /// With the certificate and key of these files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(address: SocketAddr, certificate: &Path, key: &Path, alpn: &str) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read {}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("cannot read {}", key.display()))?;
        Self::with(address, Some((chain, key)), alpn)
    }

    fn with(
        address: SocketAddr,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        alpn: &str,
    ) -> Result<Self> {
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = match identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            opened: AtomicU8::new(0),
        })
    }

    /// Opens one.
    ///
    /// The server looks at the client's certificate after this has returned: only what it sends says that it
    /// took it.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn open(&self) -> Result<Stream> {
        let source = 1 + self.opened.fetch_add(1, Ordering::Relaxed) % SOURCES;
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 1, 0, source), 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        Ok(self.connector.connect(name, stream).await?)
    }

    /// One request in HTTP/1.1, answered with 200.
    async fn ask(&self, host: &str) -> Result<()> {
        let mut answer = [0; 12];
        let asked = async {
            let mut stream = self.open().await?;
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            stream.read_exact(&mut answer).await?;
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(LIMIT, asked)
            .await
            .context("no answer")??;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer == "HTTP/1.1 200", "answered {answer}");
        Ok(())
    }
}

/// Waits until `client` has a request of `host` answered, and fails when a client without a certificate has one
/// answered, too.
///
/// # Errors
/// Also when `client` has none answered within `limit`; with the last failure.
pub async fn until_mutual(client: &Client, host: &str, limit: Duration) -> Result<()> {
    let until = Instant::now() + limit;
    while let Err(error) = client.ask(host).await {
        // A sidecar listens before it has its certificate.
        ensure!(
            Instant::now() < until,
            "not ready after {limit:?}: {error:#}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stranger = Client::with(client.address, None, HTTP1)?;
    ensure!(
        stranger.ask(host).await.is_err(),
        "answers a client without a certificate"
    );
    Ok(())
}

/// Believes everyone: the load is not what is measured.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
