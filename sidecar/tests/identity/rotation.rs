//! Certificates and roots that change while connections send: no handshake fails, no connection ends.

use crate::authority::{Authority, files, write_roots};
use crate::mesh::{Member, generation, serial, shake};
use crate::traffic::Traffic;
use mesh_sidecar::identity::{Alpn, Reason};
use mesh_tests::wait_for;
use std::path::Path;
use tempfile::TempDir;

/// A member with files of its own.
fn member(service: &str, authority: &Authority) -> (TempDir, Member) {
    let directory = tempfile::tempdir().unwrap();
    write_roots(directory.path(), &[authority]);
    authority.issue(service).write(directory.path());
    let member = Member::of(service, files(directory.path()));
    (directory, member)
}

/// Changes the files of a member and waits until they are in use.
async fn change(member: &Member, directory: &Path, write: impl FnOnce(&Path)) {
    let before = generation(member);
    write(directory);
    wait_for("changed files", || async { generation(member) > before }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_replaced_in_order_without_a_failure() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server_files, server) = member("server", &old);
    let (client_files, client) = member("client", &old);
    let traffic = Traffic::start(&server, &client).await;
    let old_client = client.identity.tls().unwrap();
    let (server_files, client_files) = (server_files.path(), client_files.path());

    change(&server, server_files, |d| write_roots(d, &[&old, &new])).await;
    traffic.goes_on("both roots at the server").await;
    change(&client, client_files, |d| write_roots(d, &[&old, &new])).await;
    change(&server, server_files, |d| new.issue("server").write(d)).await;
    traffic.goes_on("a new certificate at the server").await;
    change(&client, client_files, |d| new.issue("client").write(d)).await;
    traffic.goes_on("new certificates").await;
    change(&server, server_files, |d| write_roots(d, &[&new])).await;
    change(&client, client_files, |d| write_roots(d, &[&new])).await;
    traffic.goes_on("the new root alone").await;

    let server_tls = server.identity.tls().unwrap();
    let (accepted, _connected) = shake(&server_tls, &old_client, "server", Alpn::H2).await;
    // The old client does not believe the new server; shown the other way round:
    assert_eq!(accepted.unwrap_err().reason(), Reason::RefusedByPeer);
    let (_accepted, connected) = shake(&old_client, &server_tls, "client", Alpn::H2).await;
    assert_eq!(connected.unwrap_err().reason(), Reason::UnknownCa);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_without_anything_in_common_are_exchanged_without_a_failure() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server_files, server) = member("server", &old);
    let (client_files, client) = member("client", &old);
    let traffic = Traffic::start(&server, &client).await;
    let old_serial = serial(&client);
    let old_client = client.identity.tls().unwrap();

    for (directory, member, service) in [
        (&server_files, &server, "server"),
        (&client_files, &client, "client"),
    ] {
        change(member, directory.path(), |directory| {
            write_roots(directory, &[&new]);
            new.issue(service).write(directory);
        })
        .await;
        assert_eq!(
            member.identity.shown()["roots"].as_array().unwrap().len(),
            2
        );
        traffic.goes_on("the first step").await;
    }
    assert_eq!(serial(&client), old_serial);
    wait_for("the new certificates", || async {
        generation(&server) == 3 && generation(&client) == 3
    })
    .await;
    traffic.goes_on("the second step").await;
    assert_ne!(serial(&client), old_serial);
    wait_for("the new roots alone", || async {
        generation(&server) == 4 && generation(&client) == 4
    })
    .await;
    traffic.goes_on("the last step").await;
    let shown = client.identity.shown();
    assert_eq!(shown["roots"].as_array().unwrap().len(), 1);
    assert_eq!(shown["roots"][0]["subject"], "CN=new");
    let server_tls = server.identity.tls().unwrap();
    let (_accepted, connected) = shake(&old_client, &server_tls, "client", Alpn::H2).await;
    assert_eq!(connected.unwrap_err().reason(), Reason::UnknownCa);
}
