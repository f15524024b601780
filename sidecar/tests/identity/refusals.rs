//! Everything that is refused at the handshake, each at both sides where it can be, with its counter.

use crate::authority::{Authority, Issued, files, hours, uri, write_roots};
use crate::mesh::{DOMAIN, Member, connection, name};
use crate::strangers::{BOTH, ONLY_12, ONLY_13, client, server};
use mesh_sidecar::identity::{Alpn, Reason, Tls};
use mesh_tests::within;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Where a peer of a kind is met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Inbound,
    Outbound,
}

/// Peers that are refused for what their certificate is.
fn refused(ours: &Authority) -> Vec<(&'static str, Reason, Side, Issued)> {
    use Reason as R;
    use Side::{Both, Inbound, Outbound};
    let peer = |edit: &dyn Fn(&mut rcgen::CertificateParams)| ours.issue_with("peer", edit);
    let named = |names: Vec<SanType>| peer(&|p| p.subject_alt_names = names.clone());
    let text = |uri: &str| named(vec![SanType::URI(uri.try_into().unwrap())]);
    let used = |usages: &[KeyUsagePurpose]| peer(&|p| p.key_usages = usages.to_vec());
    let purpose =
        |purpose: ExtendedKeyUsagePurpose| peer(&|p| p.extended_key_usages = vec![purpose.clone()]);
    let dns = SanType::DnsName("peer.mesh.test".try_into().unwrap());
    let ended = ours.below("ended", |p| p.not_after = hours(-1));
    vec![
        (
            "expired",
            R::Expired,
            Both,
            peer(&|p| p.not_after = hours(-1)),
        ),
        ("expired above", R::Expired, Both, ended.issue("peer")),
        (
            "not begun",
            R::NotYetValid,
            Both,
            peer(&|p| p.not_before = hours(1)),
        ),
        (
            "two services",
            R::SeveralNames,
            Both,
            named(vec![uri(DOMAIN, "peer"), uri(DOMAIN, "other")]),
        ),
        (
            "a service and a page",
            R::SeveralNames,
            Both,
            named(vec![
                uri(DOMAIN, "peer"),
                SanType::URI("https://mesh.test/".try_into().unwrap()),
            ]),
        ),
        ("no name", R::NoSpiffeId, Both, named(vec![])),
        ("a host", R::NoSpiffeId, Both, named(vec![dns])),
        (
            "a page",
            R::NoSpiffeId,
            Both,
            text("https://mesh.test/svc/peer"),
        ),
        (
            "a path of no service",
            R::NoSpiffeId,
            Both,
            text("spiffe://mesh.test/peer"),
        ),
        (
            "an encoded path",
            R::NoSpiffeId,
            Both,
            text("spiffe://mesh.test/svc/p%65er"),
        ),
        (
            "a trust domain with a port",
            R::NoSpiffeId,
            Both,
            text("spiffe://mesh.test:1/svc/peer"),
        ),
        (
            "two services in one path",
            R::NoSpiffeId,
            Both,
            text("spiffe://mesh.test/svc/a/svc/peer"),
        ),
        (
            "another trust domain",
            R::WrongTrustDomain,
            Both,
            named(vec![uri("other.test", "peer")]),
        ),
        (
            "an authority",
            R::CaCertificate,
            Both,
            peer(&|p| {
                p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                p.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::KeyCertSign,
                ];
            }),
        ),
        (
            "may sign certificates",
            R::KeyUsage,
            Both,
            used(&[
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ]),
        ),
        (
            "may sign lists",
            R::KeyUsage,
            Both,
            used(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]),
        ),
        ("does not say what for", R::KeyUsage, Both, used(&[])),
        (
            "may not sign",
            R::KeyUsage,
            Both,
            used(&[KeyUsagePurpose::KeyEncipherment]),
        ),
        (
            "a server as a client",
            R::KeyUsage,
            Inbound,
            purpose(ExtendedKeyUsagePurpose::ServerAuth),
        ),
        (
            "a client as a server",
            R::KeyUsage,
            Outbound,
            purpose(ExtendedKeyUsagePurpose::ClientAuth),
        ),
        (
            "for code",
            R::KeyUsage,
            Both,
            purpose(ExtendedKeyUsagePurpose::CodeSigning),
        ),
        (
            "another authority",
            R::UnknownCa,
            Both,
            Authority::new("other").issue("peer"),
        ),
        // The names agree, the keys do not.
        (
            "a false authority",
            R::UnknownCa,
            Both,
            Authority::new("ours").issue("peer"),
        ),
        (
            "signed by itself",
            R::UnknownCa,
            Both,
            Issued::by_itself("peer"),
        ),
        (
            "below another authority",
            R::UnknownCa,
            Both,
            Authority::new("other").below("ours", |_| {}).issue("peer"),
        ),
        (
            "another service",
            R::OtherService,
            Outbound,
            ours.issue("other"),
        ),
    ]
}

/// Peers that are let in although they look a little different.
fn believed(ours: &Authority) -> Vec<(&'static str, Issued)> {
    let named = |names: Vec<SanType>| ours.issue_with("peer", |p| p.subject_alt_names = names);
    let host = SanType::DnsName("peer.mesh.test".try_into().unwrap());
    let short = SanType::URI("spiffe://mesh.test/svc/peer".try_into().unwrap());
    vec![
        ("the usual", ours.issue("peer")),
        ("below another", ours.below("between", |_| {}).issue("peer")),
        ("with a host", named(vec![host, uri(DOMAIN, "peer")])),
        ("the short path", named(vec![short])),
        (
            "without extended usages",
            ours.issue_with("peer", |p| {
                p.extended_key_usages = vec![];
                p.is_ca = IsCa::NoCa;
            }),
        ),
    ]
}

struct Bench {
    ours: Authority,
    member: Member,
    tls: Arc<Tls>,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ours = Authority::new("ours");
        write_roots(directory.path(), &[&ours]);
        ours.issue("self").write(directory.path());
        let member = Member::of("self", files(directory.path()));
        let tls = member.first().await;
        Self {
            ours,
            member,
            tls,
            _directory: directory,
        }
    }

    /// What `accept` says while `peer` does its part; also that it is counted once, as what it is.
    async fn inbound<F: Future>(
        &self,
        case: &str,
        wanted: Reason,
        peer: impl FnOnce(TcpStream) -> F,
    ) -> F::Output {
        let before = self.member.handshakes("inbound", wanted.as_label());
        let (ours, theirs) = connection().await;
        let (accepted, peer) = within("a handshake", async {
            tokio::join!(self.tls.accept(ours), peer(theirs))
        })
        .await;
        let error = accepted.map(|accepted| accepted.peer).unwrap_err();
        assert_eq!(error.reason(), wanted, "{case}: {error}");
        let after = self.member.handshakes("inbound", wanted.as_label());
        assert_eq!(after, before + 1.0, "{case}");
        peer
    }

    /// The same of `connect`.
    async fn outbound<F: Future>(
        &self,
        case: &str,
        wanted: Reason,
        peer: impl FnOnce(TcpStream) -> F,
    ) -> F::Output {
        let before = self.member.handshakes("outbound", wanted.as_label());
        let (theirs, ours) = connection().await;
        let service = name("peer");
        let (connected, peer) = within("a handshake", async {
            tokio::join!(self.tls.connect(ours, &service, Alpn::H2), peer(theirs))
        })
        .await;
        let error = connected.map(|connected| connected.peer).unwrap_err();
        assert_eq!(error.reason(), wanted, "{case}: {error}");
        let after = self.member.handshakes("outbound", wanted.as_label());
        assert_eq!(after, before + 1.0, "{case}");
        peer
    }
}

#[tokio::test]
async fn a_client_of_no_right_is_refused_at_the_handshake() {
    let bench = Bench::new().await;
    for (case, reason, side, issued) in refused(&bench.ours) {
        if side == Side::Outbound {
            continue;
        }
        let refusal = bench
            .inbound(case, reason, |stream| {
                client(stream, ONLY_13, Some(&issued))
            })
            .await;
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.reason(), Reason::RefusedByPeer, "{case}: {refusal}");
    }
    assert_eq!(bench.member.handshakes("inbound", "ok"), 0.0);
}

#[tokio::test]
async fn a_server_of_no_right_is_refused_at_the_handshake() {
    let bench = Bench::new().await;
    for (case, reason, side, issued) in refused(&bench.ours) {
        if side == Side::Inbound {
            continue;
        }
        let refusal = bench
            .outbound(case, reason, |stream| server(stream, ONLY_13, &issued))
            .await;
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.reason(), Reason::RefusedByPeer, "{case}: {refusal}");
    }
    assert_eq!(bench.member.handshakes("outbound", "ok"), 0.0);
}

#[tokio::test]
async fn who_has_the_right_is_let_in() {
    let bench = Bench::new().await;
    let service = name("peer");
    for (case, issued) in believed(&bench.ours) {
        let (ours, theirs) = connection().await;
        // The connection ends when the peer is known, which is what the client waits for.
        let accept = async { bench.tls.accept(ours).await.map(|accepted| accepted.peer) };
        let (peer, let_in) = within("a handshake", async {
            tokio::join!(accept, client(theirs, BOTH, Some(&issued)))
        })
        .await;
        assert_eq!(peer.unwrap().service, service, "{case}");
        // Without a farewell, which is `accept`'s caller's.
        assert_eq!(let_in.unwrap_err().reason(), Reason::Closed, "{case}");
        let (theirs, ours) = connection().await;
        let connect = bench.tls.connect(ours, &service, Alpn::Http1);
        let (connected, served) = within("a handshake", async {
            tokio::join!(connect, server(theirs, BOTH, &issued))
        })
        .await;
        served.unwrap();
        assert_eq!(connected.unwrap().peer.service, service, "{case}");
    }
    let all = believed(&bench.ours).len() as f64;
    assert_eq!(bench.member.handshakes("inbound", "ok"), all);
    assert_eq!(bench.member.handshakes("outbound", "ok"), all);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let bench = Bench::new().await;
    let refusal = bench
        .inbound("none", Reason::NoCertificate, |stream| {
            client(stream, ONLY_13, None)
        })
        .await;
    assert_eq!(refusal.unwrap_err().reason(), Reason::RefusedByPeer);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let bench = Bench::new().await;
    let issued = bench.ours.issue("peer");
    let refusal = bench
        .inbound("client", Reason::TlsVersion, |stream| {
            client(stream, ONLY_12, Some(&issued))
        })
        .await;
    // Its peer says so by the alert that is for it.
    assert_eq!(refusal.unwrap_err().reason(), Reason::TlsVersion);
    bench
        .outbound("server", Reason::TlsVersion, |stream| {
            server(stream, ONLY_12, &issued)
        })
        .await
        .unwrap_err();
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let bench = Bench::new().await;
    let say = |text: &'static [u8]| {
        move |mut stream: TcpStream| async move {
            stream.write_all(text).await.unwrap();
            stream
        }
    };
    for text in [
        b"GET / HTTP/1.1\r\nhost: self\r\n\r\n".as_slice(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 64],
    ] {
        bench.inbound("plain", Reason::NotTls, say(text)).await;
    }
    let answer = say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    bench.outbound("plain", Reason::NotTls, answer).await;
}

#[tokio::test]
async fn who_goes_away_is_counted_so() {
    let bench = Bench::new().await;
    let go = |stream: TcpStream| async { drop(stream) };
    bench.inbound("gone", Reason::Closed, go).await;
    bench.outbound("gone", Reason::Closed, go).await;
    // In the middle of its first message.
    let cut = |mut stream: TcpStream| async move {
        stream.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
    };
    bench.inbound("cut", Reason::Closed, cut).await;
}

#[tokio::test]
async fn who_says_nothing_is_left_after_a_while() {
    let bench = Bench::new().await;
    let limit = Duration::from_millis(50);
    let (ours, _theirs) = connection().await;
    let silent = within("the limit", bench.tls.accept_within(ours, limit)).await;
    assert_eq!(silent.unwrap_err().reason(), Reason::Timeout);
    let (_theirs, ours) = connection().await;
    let service = name("peer");
    let connecting = bench.tls.connect_within(ours, &service, Alpn::H2, limit);
    let silent = within("the limit", connecting).await;
    assert_eq!(silent.unwrap_err().reason(), Reason::Timeout);
    for direction in ["inbound", "outbound"] {
        assert_eq!(bench.member.handshakes(direction, "timeout"), 1.0);
    }
}
