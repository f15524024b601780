//! The authority in a directory.

use crate::mesh::{Member, says, serial, shake};
use mesh_sidecar::identity::{Alpn, Reason};
use mesh_tests::wait_for;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn two_services_of_one_directory_know_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority");
    let server = Member::development("data-processor", &authority, 3_600);
    let client = Member::development("gateway", &authority, 3_600);
    let (server_tls, client_tls) = (server.first().await, client.first().await);
    for (alpn, h2) in [(Alpn::H2, true), (Alpn::Http1, false)] {
        let (accepted, connected) = shake(&server_tls, &client_tls, "data-processor", alpn).await;
        let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!(
            accepted.peer.to_string(),
            "spiffe://mesh.test/ns/default/dc/local/svc/gateway"
        );
        assert_eq!(connected.peer, *server_tls.id());
        assert_eq!((accepted.h2, connected.h2), (h2, h2));
    }
    assert_eq!(server.handshakes("inbound", "ok"), 2.0);
    assert_eq!(client.handshakes("outbound", "ok"), 2.0);
    // Called by another name it is refused, there and here.
    let (accepted, connected) = shake(&server_tls, &client_tls, "other", Alpn::H2).await;
    assert_eq!(connected.unwrap_err().reason(), Reason::OtherService);
    assert_eq!(accepted.unwrap_err().reason(), Reason::RefusedByPeer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_that_begin_at_once_have_one_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("deep/er/authority");
    let members: Vec<_> = (0..32)
        .map(|n| Member::development(&format!("agent-{n}"), &authority, 3_600))
        .collect();
    let mut roots = BTreeSet::new();
    for member in &members {
        member.first().await;
        let shown = member.identity.shown();
        roots.insert(shown["roots"][0]["sha256"].to_string());
        assert_eq!(shown["roots"].as_array().unwrap().len(), 1);
    }
    assert_eq!(roots.len(), 1);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&authority), 0o700);
    assert_eq!(mode(&authority.join("authority.pem")), 0o600);
    let roots = std::fs::read_to_string(authority.join("roots.pem")).unwrap();
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(!roots.contains("PRIVATE"));
    // Nothing is left lying about.
    assert_eq!(std::fs::read_dir(&authority).unwrap().count(), 2);
}

#[tokio::test]
async fn an_authority_that_others_may_read_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let first = Member::development("a", directory.path(), 3_600);
    first.first().await;
    let file = directory.path().join("authority.pem");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let second = Member::development("b", directory.path(), 3_600);
    says(&second, "others may read").await;
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    second.first().await;
}

#[tokio::test]
async fn an_authority_of_another_trust_domain_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    Member::development("a", directory.path(), 3_600)
        .first()
        .await;
    let source = mesh_sidecar::config::IdentitySource::Development {
        directory: directory.path().to_owned(),
        lifetime_s: 3_600,
    };
    let config = mesh_sidecar::config::Identity {
        trust_domain: Some("other.test".to_owned()),
        source,
        ..Default::default()
    };
    let other = Member::start("b", &config, None);
    says(&other, "not the authority of other.test").await;
}

#[tokio::test]
async fn a_short_life_is_renewed_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::development("a", directory.path(), 6);
    member.first().await;
    let first = serial(&member);
    wait_for("two renewals", || async {
        let reasons = member.identity.reasons();
        assert!(reasons.is_empty(), "{reasons:?}");
        member.metric("sidecar_certificate_renewals_total", &[("outcome", "ok")]) >= 3.0
    })
    .await;
    assert_ne!(serial(&member), first);
}

#[tokio::test]
async fn what_cannot_be_renewed_is_kept_and_its_end_is_told_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Member::development("peer", directory.path(), 3_600);
    let peer_tls = peer.first().await;
    let member = Member::development("a", directory.path(), 16);
    let tls = member.first().await;
    std::fs::remove_file(directory.path().join("authority.pem")).unwrap();
    std::fs::create_dir(directory.path().join("authority.pem")).unwrap();
    wait_for("a renewal that fails", || async {
        !member.identity.shown()["last_renewal_error"].is_null()
    })
    .await;
    let (accepted, _connected) = shake(&peer_tls, &tls, "peer", Alpn::H2).await;
    accepted.unwrap();
    wait_for("a warning", || async {
        let reasons = member.identity.reasons().join(" ");
        reasons.contains("expires in") && reasons.contains("authority.pem")
    })
    .await;
    wait_for("the end", || async {
        let reasons = member.identity.reasons().join(" ");
        reasons.contains("has expired")
    })
    .await;
    wait_for("the peer to refuse it", || async {
        let (accepted, _connected) = shake(&peer_tls, &tls, "peer", Alpn::H2).await;
        accepted.is_err_and(|error| error.reason() == Reason::Expired)
    })
    .await;
    assert!(peer.handshakes("inbound", "expired") >= 1.0);
    let failed = member.metric("sidecar_certificate_renewals_total", &[("outcome", "away")]);
    assert!(failed >= 1.0);
    // Mended, it goes on.
    std::fs::remove_dir(directory.path().join("authority.pem")).unwrap();
    wait_for("a new certificate", || async {
        member.identity.reasons().is_empty()
    })
    .await;
}
