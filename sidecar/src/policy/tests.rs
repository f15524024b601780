//! The way of a request and of a task through the policy, from headers to audit.

use super::*;
use ed25519_dalek::SigningKey;
use mesh_protocol::assertion::{HEADER, HEADER_AGENT, public_half};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

mod properties;
mod tasks;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(super) fn claims(sub: &str) -> Claims {
    Claims {
        iss: "gateway".into(),
        aud: "mesh".into(),
        sub: sub.into(),
        origin: "https://issuer.example".into(),
        scope: "tasks:submit tasks:read".into(),
        claims: [("tenant".to_owned(), "acme".to_owned())].into(),
        iat: NOW.seconds(),
        exp: NOW.seconds() + 60,
    }
}

pub(super) fn sign(claims: &Claims) -> String {
    mesh_protocol::assertion::sign(claims, "k1", &key())
}

/// One key, no intentions.
pub(super) fn config() -> config::Policy {
    let keys = json!([{"kid": "k1", "x": public_half(&key())}]);
    serde_json::from_value(json!({"assertions": {"audience": "mesh", "keys": keys}})).unwrap()
}

pub(super) fn peer(service: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: "mesh.test".into(),
        path: format!("/ns/default/dc/dc1/svc/{service}"),
        service: service.parse().unwrap(),
    }
}

/// A policy and what it writes down.
struct Bench {
    policy: Policy,
    writer: audit::Writer,
    log: tempfile::NamedTempFile,
    metrics: prometheus::Registry,
}

impl Bench {
    fn new(intentions: Value, inbound: Value) -> Self {
        Self::with(config(), intentions, inbound)
    }

    fn with(mut config: config::Policy, intentions: Value, mut inbound: Value) -> Self {
        config.intentions = serde_json::from_value(intentions).unwrap();
        inbound["listen"] = json!("127.0.0.1:0");
        let inbound: Inbound = serde_json::from_value(inbound).unwrap();
        let service = "data-processor".parse().unwrap();
        let metrics = prometheus::Registry::new();
        let log = tempfile::NamedTempFile::new().unwrap();
        let (audit, writer) = Audit::open(Some(log.path()), &service, &metrics).unwrap();
        let policy = Policy::new(&service, &config, Some(&inbound), audit, &metrics).unwrap();
        Self {
            policy,
            writer,
            log,
            metrics,
        }
    }

    fn ask(&self, from: &str, asked: &str, headers: &mut HeaderMap) -> Result<Admitted, Refusal> {
        let (method, path) = asked.split_once(' ').unwrap();
        let id = peer(from);
        let peer = Peer {
            id: &id,
            address: "127.0.0.1:4711".parse().unwrap(),
        };
        self.policy
            .request(peer, &method.parse().unwrap(), path, headers, NOW)
    }

    fn refused(&self, from: &str, asked: &str, list: &[(&str, &str)]) -> &'static str {
        match self.ask(from, asked, &mut headers(list)) {
            Ok(_) => "",
            Err(refusal) => refusal.reason().as_str(),
        }
    }

    fn task(
        &self,
        assertion: Option<&str>,
        submitted: Option<u64>,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        let (task_id, step_id) = ("t".parse().unwrap(), "s".parse().unwrap());
        let origin = Origin {
            task_id: &task_id,
            step_id: &step_id,
            assertion,
            submitted: submitted.map(Timestamp::from_millis),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        };
        self.policy.task(origin, NOW)
    }

    fn count(&self, direction: &str, reason: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families
            .iter()
            .find(|f| f.name() == "sidecar_refusals_total")
            .unwrap();
        let wanted = |l: &prometheus::proto::LabelPair| match l.name() {
            "direction" => l.value() == direction,
            "reason" => l.value() == reason,
            _ => true,
        };
        let metric = family
            .get_metric()
            .iter()
            .find(|m| m.get_label().iter().all(wanted));
        metric.unwrap().get_counter().get_value()
    }

    async fn audited(self) -> Vec<Value> {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        self.writer.run(shutdown).await;
        let text = std::fs::read_to_string(self.log.path()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn open() -> Value {
    json!([{"from": "any"}])
}

#[test]
fn identity_headers_are_made_and_never_taken_over() {
    let bench = Bench::new(
        open(),
        json!({"identity_headers": {
            "x-user-id": "sub", "x-user-issuer": "origin", "x-user-scope": "scope", "x-tenant": "tenant", "x-none": "none",
            "x-caller": "peer", "x-caller-service": "peer_service",
        }}),
    );
    let token = sign(&claims("Jürgen"));
    let mut map = headers(&[
        ("accept", "*/*"),
        (HEADER, &token),
        (HEADER_AGENT, "other"),
        ("x_mesh.agent", "other"),
        ("x_user_id", "root"),
        ("X-User-Id", "root"),
        ("x.tenant", "other"),
        ("x-none", "root"),
        ("x!caller", "root"),
    ]);
    map.append("x-user-id", HeaderValue::from_static("root"));
    let admitted = bench.ask("gateway", "GET /", &mut map).unwrap();
    assert_eq!(admitted.originator.unwrap().sub, "Jürgen");
    let seen: Vec<_> = map
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_bytes()))
        .collect();
    assert_eq!(seen.len(), 7, "{seen:?}");
    for (name, value) in [
        ("accept", "*/*"),
        ("x-user-id", "Jürgen"),
        ("x-user-issuer", "https://issuer.example"),
        ("x-user-scope", "tasks:submit tasks:read"),
        ("x-tenant", "acme"),
        (
            "x-caller",
            "spiffe://mesh.test/ns/default/dc/dc1/svc/gateway",
        ),
        ("x-caller-service", "gateway"),
    ] {
        assert!(seen.contains(&(name, value.as_bytes())), "{name}: {seen:?}");
    }
    // Without an assertion there is no user, whatever the peer says.
    let mut map = headers(&[("x-user-id", "root")]);
    assert_eq!(
        bench.ask("gateway", "GET /", &mut map).unwrap().originator,
        None
    );
    assert!(!map.contains_key("x-user-id") && map.contains_key("x-caller"));
}

#[test]
fn what_no_header_can_hold_is_refused() {
    let bench = Bench::new(open(), json!({"identity_headers": {"x-user-id": "sub"}}));
    let token = sign(&claims("alice\nx-admin: true"));
    assert_eq!(
        bench.refused("gateway", "GET /", &[(HEADER, &token)]),
        "identity"
    );
    assert!(bench.task(Some(&token), Some(NOW.millis())).is_ok());
}

#[test]
fn the_assertion_is_forwarded_only_where_it_is_wanted_and_verified() {
    let token = sign(&claims("alice"));
    for (forward, config, kept) in [
        (true, config(), true),
        (false, config(), false),
        (true, config::Policy::default(), false),
    ] {
        let bench = Bench::with(config, open(), json!({"forward_assertion": forward}));
        let mut map = headers(&[(HEADER, &token), ("x_mesh_assertion", "alias")]);
        bench.ask("gateway", "GET /", &mut map).unwrap();
        assert_eq!(map.contains_key(HEADER), kept);
        assert_eq!(map.len(), usize::from(kept));
    }
}

#[test]
fn bad_assertions_are_refused_for_their_reasons() {
    let bench = Bench::new(
        open(),
        json!({"assertion": {"required": {"except": ["/health"]}}}),
    );
    let good = sign(&claims("alice"));
    let other = |change: fn(&mut Claims)| {
        let mut claims = claims("alice");
        change(&mut claims);
        sign(&claims)
    };
    let late = other(|c| (c.iat, c.exp) = (c.iat - 100, c.exp - 100));
    let early = other(|c| (c.iat, c.exp) = (c.iat + 100, c.exp + 100));
    let abroad = other(|c| c.aud = "other".into());
    let unknown = mesh_protocol::assertion::sign(&claims("alice"), "k2", &key());
    let forged =
        mesh_protocol::assertion::sign(&claims("alice"), "k1", &SigningKey::from_bytes(&[2; 32]));
    for (token, reason) in [
        (&*good, ""),
        (&*late, "assertion_expired"),
        (&*early, "assertion_expired"),
        (&*abroad, "assertion_audience"),
        (&*unknown, "assertion_unknown_key"),
        (&*forged, "assertion_signature"),
        ("a.b.c", "assertion_malformed"),
        ("", "assertion_malformed"),
    ] {
        // On a path that needs none it is verified all the same.
        for asked in ["GET /x", "GET /health/live"] {
            assert_eq!(
                bench.refused("gateway", asked, &[(HEADER, token)]),
                reason,
                "{asked} {token}"
            );
        }
    }
    assert_eq!(
        bench.refused("gateway", "GET /x", &[(HEADER, &good), (HEADER, &good)]),
        "assertion_twice"
    );
    assert_eq!(bench.refused("gateway", "GET /health", &[]), "");
    assert_eq!(bench.refused("gateway", "GET /x", &[]), "assertion_missing");
    assert_eq!(
        bench.refused("gateway", "GET /healthy", &[]),
        "assertion_missing"
    );
    for unclear in [
        "GET /health/../x",
        "GET //health",
        "GET /health/%2e%2e/x",
        "GET /x;/health",
    ] {
        assert_eq!(bench.refused("gateway", unclear, &[]), "path", "{unclear}");
        assert_eq!(
            bench.refused("gateway", unclear, &[(HEADER, &good)]),
            "",
            "{unclear}"
        );
    }
    // An alias is no assertion.
    assert_eq!(
        bench.refused("gateway", "GET /x", &[("x_mesh_assertion", &good)]),
        "assertion_missing"
    );
    assert_eq!(bench.count("inbound", "assertion_expired"), 4.0);
    assert_eq!(bench.count("inbound", "assertion_twice"), 1.0);
    assert_eq!(bench.count("task", "assertion_expired"), 0.0);
}

#[test]
fn trailers_are_cleaned_as_headers_are() {
    let bench = Bench::new(
        open(),
        json!({"identity_headers": {"x-user-id": "sub"}, "forward_assertion": true}),
    );
    let mut trailers = headers(&[
        ("x_user_id", "root"),
        ("x-user-id", "root"),
        (HEADER, "x"),
        ("grpc-status", "0"),
    ]);
    bench.policy.trailers(&mut trailers);
    assert_eq!(trailers.len(), 1);
}

#[tokio::test]
async fn every_refusal_is_in_the_audit() {
    let bench = Bench::new(
        json!([{"from": "any", "callers": {"subjects": ["bob"]}}, {"from": {"services": ["spy"]}, "action": "deny"}]),
        json!({}),
    );
    let token = sign(&claims("alice"));
    let trace = (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    bench.refused("gateway", "POST /process", &[(HEADER, &token), trace]);
    bench.refused("spy", "GET /secret", &[]);
    bench.refused("gateway", "GET /", &[(HEADER, &format!("{token}x"))]);
    bench.task(Some(&token), Some(NOW.millis())).unwrap_err();
    assert_eq!(
        bench.refused("gateway", "GET /", &[(HEADER, &sign(&claims("bob")))]),
        ""
    );
    let lines = bench.audited().await;
    let codes: Vec<_> = lines
        .iter()
        .map(|l| l["event"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            "no_intention",
            "denied",
            "assertion_malformed",
            "no_intention"
        ]
    );
    assert_eq!(
        lines[0]["user"],
        json!({"id": "alice", "domain": "https://issuer.example"})
    );
    assert_eq!(lines[0]["trace"]["id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(lines[0]["service"]["origin"]["name"], "gateway");
    assert_eq!(lines[1]["rule"]["name"], "policy.intentions[1]");
    assert_eq!(lines[1].get("user"), None);
    // What was not verified is nobody's word.
    assert_eq!(lines[2].get("user"), None);
    assert_eq!(lines[3]["labels"], json!({"task_id": "t", "step_id": "s"}));
    assert_eq!(lines[3]["event"]["action"], "task-refused");
    assert_eq!(lines[3]["trace"]["id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(&token) && !text.contains(token.rsplit('.').next().unwrap()));
}
