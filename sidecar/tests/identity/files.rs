//! Files that somebody else renews, also clumsily.

use crate::authority::{Authority, files, hours, replace, write_roots};
use crate::mesh::{DOMAIN, Member, says, serial};
use mesh_sidecar::config;
use mesh_tests::wait_for;
use std::path::Path;
use tempfile::TempDir;

/// A directory with what `service` needs of `authority`.
fn directory(authority: &Authority, service: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_roots(directory.path(), &[authority]);
    authority.issue(service).write(directory.path());
    directory
}

#[tokio::test]
async fn what_is_in_use_is_shown_and_the_key_never() {
    let authority = Authority::new("ours");
    let directory = directory(&authority, "self");
    let member = Member::of("self", files(directory.path()));
    member.first().await;
    let shown = member.identity.shown();
    assert_eq!(shown["source"], "files");
    let certificate = &shown["certificate"];
    assert_eq!(
        certificate["spiffe_id"],
        "spiffe://mesh.test/ns/default/dc/dc1/svc/self"
    );
    assert_eq!(certificate["issuer"], "CN=ours");
    assert_eq!(shown["trust_domain"], DOMAIN);
    assert_eq!(shown["roots"][0]["subject"], "CN=ours");
    assert_eq!(shown["roots"][0]["sha256"].as_str().unwrap().len(), 64);
    assert!(shown["last_renewal_error"].is_null());
    assert!(member.identity.reasons().is_empty());
    let not_after = certificate["not_after"].as_str().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let not_after = time::OffsetDateTime::parse(not_after, format).unwrap();
    let expiry = member.metric("sidecar_certificate_expiry_seconds", &[]);
    assert_eq!(expiry, not_after.unix_timestamp() as f64);
    let key = std::fs::read_to_string(directory.path().join("key.pem")).unwrap();
    let key = key.lines().nth(1).unwrap();
    let tls = member.identity.tls().unwrap();
    let said = format!("{shown}{:?}{tls:?}", member.identity);
    assert!(!said.contains(key) && !said.contains("PRIVATE"), "{said}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_nothing_new_is_none() {
    let authority = Authority::new("ours");
    let directory = directory(&authority, "self");
    let member = Member::of("self", files(directory.path()));
    let old = member.first().await;
    let mut changed = member.identity.changed();
    let first = serial(&member);
    // Written again as it was.
    write_roots(directory.path(), &[&authority]);
    wait_for("a look at equal files", || async {
        member.metric(
            "sidecar_certificate_renewals_total",
            &[("outcome", "unchanged")],
        ) > 0.0
    })
    .await;
    assert!(!changed.has_changed().unwrap());
    authority.issue("self").write(directory.path());
    mesh_tests::within("news", changed.changed()).await.unwrap();
    assert_ne!(serial(&member), first);
    assert!(!std::sync::Arc::ptr_eq(&old, &member.first().await));
    let renewed = member.metric("sidecar_certificate_renewals_total", &[("outcome", "ok")]);
    assert_eq!(renewed, 2.0);
}

#[tokio::test]
async fn a_set_that_does_not_fit_leaves_the_old_in_use() {
    let authority = Authority::new("ours");
    let directory = directory(&authority, "self");
    let path = |name: &str| directory.path().join(name);
    let member = Member::of("self", files(directory.path()));
    member.first().await;
    let first = serial(&member);
    let next = authority.issue("self");
    let bad = |wanted: &'static str, file: &'static str, content: String| {
        let good = std::fs::read_to_string(path(file)).unwrap();
        replace(&path(file), &content);
        let (member, first, path) = (&member, &first, path(file));
        async move {
            says(member, wanted).await;
            assert_eq!(serial(member), *first, "{wanted}");
            assert!(member.identity.reasons().is_empty());
            replace(&path, &good);
            wait_for("the old to be good again", || async {
                member.identity.shown()["last_renewal_error"].is_null()
            })
            .await;
        }
    };
    bad("key does not fit", "certificate.pem", next.chain_pem()).await;
    bad("key does not fit", "key.pem", next.key_pem()).await;
    let cut = |text: String| text.chars().take(text.len() / 2).collect::<String>();
    bad(
        "certificate cannot be read",
        "certificate.pem",
        cut(next.chain_pem()),
    )
    .await;
    bad("key cannot be read", "key.pem", cut(next.key_pem())).await;
    bad(
        "certificate holds no certificate",
        "certificate.pem",
        String::new(),
    )
    .await;
    bad("key cannot be read", "key.pem", next.chain_pem()).await;
    bad(
        "trust bundle holds no certificate",
        "roots.pem",
        "# nothing\n".to_owned(),
    )
    .await;
    bad("unknown_ca", "roots.pem", Authority::new("other").pem()).await;
    bad("not an authority's", "roots.pem", next.chain_pem()).await;
    bad("file too large", "roots.pem", "#".repeat(2 << 20)).await;
    let many: String = (0..65).map(|_| authority.pem()).collect();
    bad("more than 64", "roots.pem", many).await;
    let other = authority.issue("other");
    bad("key does not fit", "key.pem", other.key_pem()).await;
    other.write(directory.path());
    says(&member, "not of this service").await;
    assert_eq!(serial(&member), first);
    let unusable = member.metric(
        "sidecar_certificate_renewals_total",
        &[("outcome", "unusable")],
    );
    assert!(unusable >= 12.0, "{unusable}");
    // Half of a set, then the other half.
    next.write(directory.path());
    replace(&path("key.pem"), &other.key_pem());
    says(&member, "key does not fit").await;
    replace(&path("key.pem"), &next.key_pem());
    wait_for("the whole set", || async { serial(&member) != first }).await;
    assert!(member.identity.shown()["last_renewal_error"].is_null());
}

#[tokio::test]
async fn files_may_come_later() {
    let authority = Authority::new("ours");
    let directory = tempfile::tempdir().unwrap();
    let member = Member::of("self", files(directory.path()));
    assert!(member.identity.tls().is_none());
    says(&member, "certificate.pem").await;
    let reasons = member.identity.reasons().join(" ");
    assert!(reasons.starts_with("no certificate yet: "), "{reasons}");
    assert!(member.identity.shown()["certificate"].is_null());
    // What is over is not used at all.
    let over = authority.issue_with("self", |p| p.not_after = hours(-1));
    write_roots(directory.path(), &[&authority]);
    over.write(directory.path());
    says(&member, "expired").await;
    assert!(member.identity.tls().is_none());
    let begins_later = authority.issue_with("self", |p| p.not_before = hours(1));
    begins_later.write(directory.path());
    says(&member, "not_yet_valid").await;
    authority.issue("self").write(directory.path());
    member.first().await;
    assert!(member.identity.reasons().is_empty());
}

#[tokio::test]
async fn a_link_may_change_instead_of_the_files() {
    // As Kubernetes does it: the files are links into a directory that is a link.
    let authority = Authority::new("ours");
    let root = tempfile::tempdir().unwrap();
    let volume = |name: &str| {
        let directory = root.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        write_roots(&directory, &[&authority]);
        authority.issue("self").write(&directory);
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        std::fs::rename(&link, root.path().join("data")).unwrap();
    };
    volume("one");
    for file in ["certificate.pem", "key.pem", "roots.pem"] {
        let target = Path::new("data").join(file);
        std::os::unix::fs::symlink(target, root.path().join(file)).unwrap();
    }
    let member = Member::of("self", files(root.path()));
    member.first().await;
    let first = serial(&member);
    volume("two");
    wait_for("the other directory", || async { serial(&member) != first }).await;
}

#[test]
fn a_source_that_needs_a_trust_domain_says_so() {
    let metrics = prometheus::Registry::new();
    let name = crate::mesh::name("self");
    for source in [files(Path::new("nowhere")), config::IdentitySource::None] {
        let config = config::Identity {
            source,
            ..config::Identity::default()
        };
        let made = mesh_sidecar::identity::Identity::new(&name, &config, None, &metrics);
        assert!(made.is_err());
    }
}
