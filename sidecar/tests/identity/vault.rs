//! Vault's PKI engine, by a double of its documented API (version 1.21, `secret/pki`): sign, list of issuers, read of
//! an issuer; the errors that Vault answers with, and answers that hang or break off.

use crate::authority::Authority;
use crate::mesh::{DOMAIN, Member, says, shake};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mesh_sidecar::config::{self, IdentitySource, Secret};
use mesh_sidecar::identity::{Alpn, Identity};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData, SanType};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509CertificationRequest, X509Name,
};

const TOKEN: &str = "hvs.CAESIJ-the-token";

/// How Vault fares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    Sealed,
    Breaks,
    Nonsense,
}

struct Engine {
    condition: Condition,
    token: &'static str,
    /// The last one signs.
    issuers: Vec<Authority>,
    signed: usize,
}

type Shared = Arc<Mutex<Engine>>;

struct Vault {
    url: String,
    engine: Shared,
    _serving: JoinSet<()>,
}

impl Vault {
    async fn start(issuers: Vec<Authority>) -> Self {
        let engine = Arc::new(Mutex::new(Engine {
            condition: Condition::Well,
            token: TOKEN,
            issuers,
            signed: 0,
        }));
        let router = Router::new()
            .route("/v1/pki/mesh/sign/{role}", post(sign))
            .route("/v1/pki/mesh/issuers", get(issuers_listed))
            .route("/v1/pki/mesh/issuer/{id}/json", get(issuer))
            .fallback(|| async { fault(StatusCode::NOT_FOUND, "no handler for route") })
            .with_state(Arc::clone(&engine));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            engine,
            _serving: serving,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Engine) -> T) -> T {
        change(&mut self.engine.lock().unwrap())
    }

    fn source(&self, role: &str) -> IdentitySource {
        IdentitySource::Vault {
            url: self.url.clone(),
            mount: "pki/mesh".to_owned(),
            role: role.to_owned(),
            token: Some(Secret::from(TOKEN.to_owned())),
            token_file: None,
            ca_file: None,
        }
    }
}

/// An error as Vault writes it.
fn fault(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"errors": [why]}))).into_response()
}

/// What comes before any request is looked at.
fn in_the_way(engine: &Engine) -> Option<Response> {
    match engine.condition {
        Condition::Well => None,
        Condition::Sealed => Some(fault(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed")),
        Condition::Nonsense => Some("<html>a proxy's page</html>".into_response()),
        Condition::Breaks => {
            let parts: [Result<&str, std::io::Error>; 2] =
                [Ok("{\"data\":"), Err(std::io::ErrorKind::BrokenPipe.into())];
            let body = Body::from_stream(futures_util::stream::iter(parts));
            Some(body.into_response())
        }
    }
}

async fn issuers_listed(State(engine): State<Shared>) -> Response {
    let engine = engine.lock().unwrap();
    if let Some(answer) = in_the_way(&engine) {
        return answer;
    }
    let keys: Vec<_> = (0..engine.issuers.len())
        .map(|n| format!("issuer-{n}"))
        .collect();
    Json(json!({"data": {"keys": keys, "key_info": {}}})).into_response()
}

async fn issuer(State(engine): State<Shared>, Path(id): Path<String>) -> Response {
    let engine = engine.lock().unwrap();
    if let Some(answer) = in_the_way(&engine) {
        return answer;
    }
    let number = id
        .strip_prefix("issuer-")
        .and_then(|n| n.parse::<usize>().ok());
    match number.and_then(|n| engine.issuers.get(n)) {
        Some(issuer) => {
            let data =
                json!({"certificate": issuer.pem(), "ca_chain": [issuer.pem()], "revoked": false});
            Json(json!({ "data": data })).into_response()
        }
        None => fault(StatusCode::NOT_FOUND, "unable to find PKI issuer"),
    }
}

async fn sign(
    State(engine): State<Shared>,
    Path(role): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mut engine = engine.lock().unwrap();
    if let Some(answer) = in_the_way(&engine) {
        return answer;
    }
    if headers
        .get("x-vault-token")
        .is_none_or(|token| token != engine.token)
    {
        return fault(StatusCode::FORBIDDEN, "permission denied");
    }
    if role != "service" {
        return fault(StatusCode::BAD_REQUEST, &format!("unknown role: {role}"));
    }
    let der =
        CertificateSigningRequestDer::from_pem_slice(body["csr"].as_str().unwrap().as_bytes());
    let der = der.unwrap();
    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    let info = &request.certification_request_info;
    assert_eq!(info.subject, X509Name::from_der(&[0x30, 0]).unwrap().1);
    let uris: Vec<String> = request
        .requested_extensions()
        .unwrap()
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => panic!("{other} is asked for"),
        })
        .collect();
    assert_eq!(json!(uris.join(",")), body["uri_sans"]);
    let allowed = format!("spiffe://{DOMAIN}/ns/default/dc/local/svc/");
    let [uri] = uris.as_slice() else {
        panic!("one name is asked for");
    };
    if !uri.starts_with(&allowed) || uri.ends_with("/forbidden") {
        let why = format!(
            "URI Subject Alternative Names not allowed in this role, but were provided: {uri}"
        );
        return fault(StatusCode::BAD_REQUEST, &why);
    }
    let mut params = CertificateParams::default();
    params.not_before = crate::authority::hours(-1);
    params.not_after = crate::authority::hours(1);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = Requested(info.subject_pki.subject_public_key.data.to_vec());
    let issuer = engine.issuers.last().unwrap();
    let certificate = params.signed_by(&key, &issuer.issuer()).unwrap();
    let answer = json!({"data": {
        "certificate": certificate.pem(),
        "issuing_ca": issuer.pem(),
        "ca_chain": [issuer.pem()],
        "serial_number": "00",
        "expiration": 0,
    }});
    engine.signed += 1;
    Json(answer).into_response()
}

/// The key of a request.
struct Requested(Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[tokio::test]
async fn services_have_certificates_of_vault() {
    // The engine's issuer is signed by a root elsewhere, as it usually is.
    let root = Authority::new("root");
    let vault = Vault::start(vec![root.below("engine", |_| {})]).await;
    let server = Member::of("data-processor", vault.source("service"));
    let client = Member::of("gateway", vault.source("service"));
    let (server_tls, client_tls) = (server.first().await, client.first().await);
    let (accepted, connected) = shake(&server_tls, &client_tls, "data-processor", Alpn::H2).await;
    assert_eq!(accepted.unwrap().peer, *client_tls.id());
    assert_eq!(connected.unwrap().peer, *server_tls.id());
    let shown = server.identity.shown();
    assert_eq!(shown["source"], "vault");
    assert_eq!(shown["roots"][0]["subject"], "CN=engine");
    assert_eq!(vault.with(|engine| engine.signed), 2);
}

#[tokio::test]
async fn a_second_issuer_is_believed_beside_the_first() {
    let vault = Vault::start(vec![Authority::new("old")]).await;
    let old = Member::of("old", vault.source("service"));
    old.first().await;
    vault.with(|engine| engine.issuers.push(Authority::new("new")));
    let new = Member::of("new", vault.source("service"));
    let (old_tls, new_tls) = (old.first().await, new.first().await);
    assert_eq!(new.identity.shown()["roots"].as_array().unwrap().len(), 2);
    assert_eq!(new.identity.shown()["certificate"]["issuer"], "CN=new");
    // The new one knows both; the old one learns of the second at its next renewal.
    let (_accepted, connected) = shake(&old_tls, &new_tls, "old", Alpn::H2).await;
    connected.unwrap();
}

#[tokio::test]
async fn what_vault_answers_instead_is_told_and_tried_again() {
    let vault = Vault::start(vec![Authority::new("engine")]).await;
    vault.with(|engine| engine.condition = Condition::Sealed);
    let member = Member::of("gateway", vault.source("service"));
    says(&member, "vault answers 503").await;
    says(&member, "Vault is sealed").await;
    vault.with(|engine| engine.condition = Condition::Nonsense);
    says(&member, "not its API's").await;
    vault.with(|engine| engine.condition = Condition::Breaks);
    says(&member, "vault is away").await;
    vault.with(|engine| {
        engine.condition = Condition::Well;
        engine.token = "another";
    });
    says(&member, "vault answers 403").await;
    let reasons = member.identity.reasons().join(" ");
    assert!(
        reasons.contains("permission denied") && !reasons.contains(TOKEN),
        "{reasons}"
    );
    assert_eq!(vault.with(|engine| engine.signed), 0);
    vault.with(|engine| engine.token = TOKEN);
    member.first().await;
    assert!(member.identity.reasons().is_empty());
    assert_eq!(vault.with(|engine| engine.signed), 1);
}

#[tokio::test]
async fn a_role_that_does_not_allow_it_says_why() {
    let vault = Vault::start(vec![Authority::new("engine")]).await;
    let unknown = Member::of("gateway", vault.source("stranger"));
    says(&unknown, "unknown role: stranger").await;
    let forbidden = Member::of("forbidden", vault.source("service"));
    says(&forbidden, "not allowed in this role").await;
    for label in [&unknown, &forbidden] {
        let refused = [("outcome", "refused")];
        assert!(label.metric("sidecar_certificate_renewals_total", &refused) >= 1.0);
    }
}

#[tokio::test]
async fn the_token_is_read_again_for_every_certificate() {
    let vault = Vault::start(vec![Authority::new("engine")]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let source = IdentitySource::Vault {
        url: vault.url.clone(),
        mount: "/pki/mesh/".to_owned(),
        role: "service".to_owned(),
        token: None,
        token_file: Some(file.clone()),
        ca_file: None,
    };
    std::fs::write(&file, "old\n").unwrap();
    let member = Member::of("gateway", source);
    says(&member, "vault answers 403").await;
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    member.first().await;
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    let metrics = prometheus::Registry::new();
    for (mount, role) in [
        ("pki/../sys", "service"),
        ("pki", "a/b"),
        ("", "service"),
        ("pki", ""),
    ] {
        let config = config::Identity {
            trust_domain: Some(DOMAIN.to_owned()),
            source: IdentitySource::Vault {
                url: "http://127.0.0.1:8200".to_owned(),
                mount: mount.to_owned(),
                role: role.to_owned(),
                token: Some(Secret::from(TOKEN.to_owned())),
                token_file: None,
                ca_file: None,
            },
            ..config::Identity::default()
        };
        let made = Identity::new(&crate::mesh::name("gateway"), &config, None, &metrics);
        let error = made.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("of vault"), "{error}");
    }
}
