//! Peers that are no sidecars: they show what they are given and believe everybody.

use crate::authority::Issued;
use mesh_sidecar::identity::HandshakeError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Versions of TLS.
pub type Versions = &'static [&'static SupportedProtocolVersion];
pub static ONLY_12: Versions = &[&TLS12];
pub static ONLY_13: Versions = &[&TLS13];
pub static BOTH: Versions = &[&TLS12, &TLS13];

/// A client that believes everybody and shows what it is given; whether it is let in.
pub async fn client(
    stream: TcpStream,
    versions: Versions,
    issued: Option<&Issued>,
) -> Result<(), HandshakeError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let config = match issued {
        Some(issued) => config
            .with_client_auth_cert(issued.chain.clone(), issued.key())
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let server = ServerName::try_from("self").unwrap();
    let read = async {
        let mut stream = connector.connect(server, stream).await?;
        // In TLS 1.3 it learns here what became of its certificate; who accepts says nothing and goes.
        stream.read(&mut [0]).await
    };
    match read.await {
        Ok(_) => Ok(()),
        Err(error) => Err(HandshakeError::from_io(&error)),
    }
}

/// A server that asks for no certificate and shows what it is given; whether it is believed.
pub async fn server(
    stream: TcpStream,
    versions: Versions,
    issued: &Issued,
) -> Result<(), HandshakeError> {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain.clone(), issued.key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    match acceptor.accept(stream).await {
        Ok(_) => Ok(()),
        Err(error) => Err(HandshakeError::from_io(&error)),
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
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
        let algorithms = default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
