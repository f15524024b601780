//! `jwt_auth` and the tokens of clients.
//!
//! An input that begins with `{` is a header and, on the lines after it, claims, of which a token is made
//! and signed with the issuer's secret: so the fuzzer gets past the signature. Any other is the value of
//! `Authorization`, and on further lines that of `Cookie` and the path.

use crate::refusal::passed;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use mesh_policy::config::{Algorithm, AssertionSigner, Issuer, JwtAuth, Key, Sources};
use mesh_policy::host::MemoryHost;
use mesh_policy::request::MemoryHead;
use mesh_policy::{Filter, Pass, Timestamp, jwt};
use mesh_protocol::assertion::{self, PublicKey};
use serde_json::Value;
use sha2::Sha256;
use std::collections::BTreeMap;

/// The time of every request, in seconds since 1970.
pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "mesh";
const SECRET: [u8; 32] = [7; 32];
/// The filter counts in whole ones.
const MILLISECOND: f64 = 0.001;
const GATEWAY: [u8; 32] = [1; 32];

/// A token passes only if the issuer signed it and its claims are as asked for; it passes again then,
/// from the cache, and what is handed on is an assertion about its subject.
pub fn token(data: &[u8]) -> bool {
    let policy = jwt::compile(&config()).expect("the configuration is good");
    let (head, tokens) = if data.first() == Some(&b'{') {
        let token = signed(data);
        (bearing(&token), vec![token])
    } else {
        carried(data)
    };
    let host = host();
    let decide = || policy.decide(&mut jwt::Request::default(), &head, &host);
    let (first, second) = (decide(), decide());
    assert_eq!(first, second);
    let Some(pass) = passed(first) else {
        return false;
    };
    assert_eq!(pass.reason, "token");
    let subject = tokens.iter().find_map(|token| good(token));
    let subject = subject.expect("what passes is a token of the issuer");
    let assertion = asserted(&pass);
    assert_eq!(
        (assertion.origin.as_str(), assertion.sub),
        (ISSUER, subject)
    );
    true
}

/// The gateway of every request.
pub(crate) fn host() -> MemoryHost {
    MemoryHost::at(Timestamp::from_millis(NOW_S * 1000))
}

/// A task with `token`.
pub(crate) fn bearing(token: &str) -> MemoryHead {
    MemoryHead::new("POST", "/").with("authorization", format!("Bearer {token}"))
}

/// How the gateway signs.
pub(crate) fn signer() -> AssertionSigner {
    AssertionSigner {
        issuer: "gateway".into(),
        audience: AUDIENCE.into(),
        kid: "g".into(),
        signing_key: B64.encode(GATEWAY),
        lifetime_s: 60,
    }
}

/// The one assertion that is handed on, verified.
pub(crate) fn asserted(pass: &Pass) -> assertion::Claims {
    let [(assertion::HEADER, assertion)] = pass.set_headers.as_slice() else {
        unreachable!("one header: {:?}", pass.set_headers);
    };
    let public = assertion::public_half(&SigningKey::from_bytes(&GATEWAY));
    let keys = [PublicKey::from_base64("g", &public).expect("a key")];
    let now = Timestamp::from_millis(NOW_S * 1000);
    assertion::verify(assertion, &keys, AUDIENCE, now).expect("a good assertion")
}

pub(crate) fn mac(secret: &[u8], signed: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length will do");
    B64.encode(mac.chain_update(signed).finalize().into_bytes())
}

fn config() -> JwtAuth {
    let key = Key {
        kid: None,
        algorithm: Algorithm::HS256,
        secret: Some(B64.encode(SECRET)),
        public_key: None,
        jwk: None,
    };
    JwtAuth {
        sources: Sources {
            cookie: Some("token".into()),
            query: Some("access_token".into()),
        },
        required_scopes: vec!["tasks".into()],
        required_claims: BTreeMap::from([("tenant".into(), Vec::new())]),
        hand_on_claims: vec!["tenant".into(), "roles".into()],
        ..JwtAuth::new(
            vec![Issuer::new(ISSUER, vec![AUDIENCE.into()], vec![key])],
            signer(),
        )
    }
}

fn signed(data: &[u8]) -> String {
    let mut lines = data.splitn(2, |b| *b == b'\n');
    let mut part = || B64.encode(lines.next().unwrap_or_default());
    let signed = [part(), part()].join(".");
    let mac = mac(&SECRET, &signed);
    format!("{signed}.{mac}")
}

/// The request, and every text in it that could be a token.
fn carried(data: &[u8]) -> (MemoryHead, Vec<String>) {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let authorization = lines.next().unwrap_or_default();
    let cookie = lines.next();
    let path = String::from_utf8_lossy(lines.next().unwrap_or(b"/")).into_owned();
    let mut head = MemoryHead::new("POST", &path).with("authorization", authorization);
    if let Some(cookie) = cookie {
        head = head.with("cookie", cookie);
    }
    let (_, query) = path.split_once('?').unwrap_or_default();
    let values = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
    let mut texts: Vec<String> = values.collect();
    texts.push(String::from_utf8_lossy(data).into_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let words = texts.iter().flat_map(|text| text.split(|c| !legal(c)));
    let tokens = words.filter(|word| word.contains('.')).map(str::to_owned);
    (head, tokens.collect())
}

/// The subject of a token that may pass, read another way than the filter reads it.
fn good(token: &str) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    if mac(&SECRET, signed) != signature {
        return None;
    }
    let (header, claims) = signed.split_once('.')?;
    let object = |part: &str| -> Option<BTreeMap<String, Value>> {
        serde_json::from_slice(&B64.decode(part).ok()?).ok()
    };
    let (header, claims) = (object(header)?, object(claims)?);
    let texts = |value: &Value| match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    let leeway = assertion::LEEWAY_S as f64;
    let now = NOW_S as f64;
    let has_begun = |name: &str| {
        claims.get(name).is_none_or(|at| {
            at.as_f64()
                .is_some_and(|at| at < now + leeway + MILLISECOND)
        })
    };
    let holds = header.get("alg")?.as_str()? == "HS256"
        && !header.contains_key("kid")
        && !header.contains_key("crit")
        && claims.get("iss")?.as_str()? == ISSUER
        && texts(claims.get("aud")?).iter().any(|aud| aud == AUDIENCE)
        && claims.get("exp")?.as_f64()? > now - leeway
        && has_begun("nbf")
        && has_begun("iat")
        && texts(claims.get("scope")?)
            .iter()
            .any(|scope| scope.split(' ').any(|s| s == "tasks"))
        && !claims.get("tenant")?.is_null();
    holds.then(|| claims.get("sub")?.as_str().map(str::to_owned))?
}
