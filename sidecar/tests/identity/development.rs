//! The authority in a directory.

use crate::mesh::{Member, shake};
use mesh_sidecar::identity::Alpn;

#[tokio::test]
async fn two_services_of_one_directory_know_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority");
    let server = Member::development("data-processor", &authority, 3_600);
    let client = Member::development("gateway", &authority, 3_600);
    for (alpn, h2) in [(Alpn::H2, true), (Alpn::Http1, false)] {
        let (accepted, connected) = shake(
            &*server.first().await,
            &*client.first().await,
            "data-processor",
            alpn,
        )
        .await;
        let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!(
            accepted.peer.to_string(),
            "spiffe://mesh.test/ns/default/dc/local/svc/gateway"
        );
        assert_eq!(connected.peer.service.as_str(), "data-processor");
        assert_eq!((accepted.h2, connected.h2), (h2, h2));
    }
    assert_eq!(server.handshakes("inbound", "ok"), 2.0);
    assert_eq!(client.handshakes("outbound", "ok"), 2.0);
}
