//! Sessions that are resumed: who the peer is stays known, and ends with what vouched for it.

use crate::mesh::{Member, name};
use mesh_sidecar::identity::{Accepted, Alpn, Connected, HandshakeError, Reason, Tls};
use mesh_tests::{wait_for, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A handshake at `listener` and one byte each way, with which the client takes in its ticket.
async fn exchange(
    listener: &TcpListener,
    server: &Tls,
    client: &Tls,
    wanted: &str,
) -> (
    Result<Accepted, HandshakeError>,
    Result<Connected, HandshakeError>,
) {
    let address: SocketAddr = listener.local_addr().unwrap();
    let wanted = name(wanted);
    let serve = async {
        let mut accepted = server.accept(listener.accept().await.unwrap().0).await?;
        // A client that does not believe us has gone already.
        let written = accepted.stream.write_all(b"x").await;
        if written.is_ok() {
            let _ = accepted.stream.flush().await;
        }
        Ok(accepted)
    };
    let call = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut connected = client.connect(stream, &wanted, Alpn::H2).await?;
        let read = connected.stream.read_exact(&mut [0]).await;
        read.map_err(|error| HandshakeError::from_io(&error))?;
        Ok(connected)
    };
    within("an exchange", async { tokio::join!(serve, call) }).await
}

#[tokio::test]
async fn a_resumed_handshake_still_says_who_the_peer_is() {
    let directory = tempfile::tempdir().unwrap();
    let server = Member::development("server", directory.path(), 3_600);
    let client = Member::development("client", directory.path(), 3_600);
    let (server, client) = (server.first().await, client.first().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for resumed in [false, true, true] {
        let (accepted, connected) = exchange(&listener, &server, &client, "server").await;
        let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!((accepted.resumed, connected.resumed), (resumed, resumed));
        assert_eq!(accepted.peer, *client.id());
        assert_eq!(connected.peer, *server.id());
        assert!(accepted.h2 && connected.h2);
    }
    // A session is of the instance that gave it, and of the service that was called there.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (accepted, _connected) = exchange(&elsewhere, &server, &client, "server").await;
    assert!(!accepted.unwrap().resumed);
    let (_accepted, connected) = exchange(&listener, &server, &client, "other").await;
    assert_eq!(connected.unwrap_err().reason(), Reason::OtherService);
}

#[tokio::test]
async fn a_session_ends_with_the_material_it_stands_on() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let start =
        |service: &str, lifetime_s| Member::development(service, directory.path(), lifetime_s);
    // Each renews once while the other does not.
    for (server_s, client_s) in [(4, 3_600), (3_600, 4)] {
        let (server, client) = (start("server", server_s), start("client", client_s));
        let (old_server, old_client) = (server.first().await, client.first().await);
        let (accepted, _) = exchange(&listener, &old_server, &old_client, "server").await;
        accepted.unwrap();
        let (accepted, _) = exchange(&listener, &old_server, &old_client, "server").await;
        assert!(accepted.unwrap().resumed);
        wait_for("a renewal", || async {
            let (server, client) = (server.identity.tls(), client.identity.tls());
            !std::sync::Arc::ptr_eq(&server.unwrap(), &old_server)
                || !std::sync::Arc::ptr_eq(&client.unwrap(), &old_client)
        })
        .await;
        let (server, client) = (server.first().await, client.first().await);
        let (accepted, connected) = exchange(&listener, &server, &client, "server").await;
        assert!(!accepted.unwrap().resumed && !connected.unwrap().resumed);
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_the_peers_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lasting = Member::development("server", directory.path(), 3_600);
    let lasting_tls = lasting.first().await;
    let brief_tls = Member::development("brief", directory.path(), 5)
        .first()
        .await;
    // As long as the certificate is good the session is resumed, at both sides.
    let (accepted, _) = exchange(&listener, &lasting_tls, &brief_tls, "server").await;
    accepted.unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, connected) = exchange(&elsewhere, &brief_tls, &lasting_tls, "brief").await;
    connected.unwrap();
    wait_for("the server to refuse the session", || async {
        match exchange(&listener, &lasting_tls, &brief_tls, "server")
            .await
            .0
        {
            Ok(accepted) => {
                assert!(accepted.resumed);
                false
            }
            Err(error) => error.reason() == Reason::Expired,
        }
    })
    .await;
    let (_, connected) = exchange(&elsewhere, &brief_tls, &lasting_tls, "brief").await;
    assert_eq!(connected.unwrap_err().reason(), Reason::Expired);
    assert_eq!(lasting.handshakes("inbound", "expired"), 1.0);
    assert_eq!(lasting.handshakes("outbound", "expired"), 1.0);
}
