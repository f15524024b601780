//! Access control and TLS.

use crate::setup::{Announced, are, follow};
use mesh_sidecar::config;
use mesh_sidecar::registry::contract::{instance, pass};
use mesh_sidecar::registry::{Consul, Registry, RegistryError};
use mesh_tests::server::directory;
use mesh_tests::{consul, wait_for};
use std::sync::Arc;

const RULES: &str = r#"
service "mine" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
"#;

#[tokio::test]
async fn a_token_in_a_file_is_read_again_when_it_changes() {
    let consul = consul::start_with_acl().await;
    let home = directory("token");
    let file = home.path().join("token");
    let config = config::Consul {
        token_file: Some(file.clone()),
        ..config::Consul::at(consul.url())
    };
    let registry: Arc<dyn Registry> = Arc::new(Consul::new(&config).unwrap());
    let mut one = Announced::start(&registry, instance("mine", 1));
    let reason = async |words: &str| {
        wait_for(words, || async {
            let reason = one.announcement.reason().unwrap_or_default();
            reason.contains(words)
        })
        .await;
    };
    reason("token file").await;
    std::fs::write(&file, "\n").unwrap();
    reason("holds no token").await;
    std::fs::write(&file, "11111111-2222-3333-4444-555555555555\n").unwrap();
    reason("ACL not found").await;
    let other = consul
        .token_for("other", r#"service "other" { policy = "write" }"#)
        .await;
    std::fs::write(&file, other).unwrap();
    reason("Permission denied").await;
    let mine = consul.token_for("mine", RULES).await;
    std::fs::write(&file, &mine).unwrap();
    one.registered().await;
    let (_discovery, mut watch) = follow(&registry, "mine");
    are(&mut watch, &["mine-1"]).await;
    let refused = registry.register(&instance("other", 1)).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Refused(_)), "{refused}");
    one.leave().await;
}

#[tokio::test]
async fn consul_is_believed_by_the_authorities_that_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let setup = consul::Setup {
        tls: Some(authority.certificate_for("127.0.0.1")),
        ..consul::Setup::default()
    };
    let consul = consul::start_with(setup).await;
    let home = directory("roots");
    let at = |file: &str, pem: &str| {
        let file = home.path().join(file);
        std::fs::write(&file, pem).unwrap();
        Consul::new(&config::Consul {
            ca_file: Some(file),
            ..config::Consul::at(consul.https_url())
        })
        .unwrap()
    };
    // Both are believed while one is replaced by the other.
    let registry = at("both.pem", &format!("{}{}", other.pem, authority.pem));
    pass(&registry, &instance("over-tls", 1)).await;
    let registry = at("other.pem", &other.pem);
    let error = registry.services().await.unwrap_err();
    assert!(matches!(error, RegistryError::Away(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    /// A certificate and its key, in PEM.
    fn certificate_for(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
