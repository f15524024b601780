//! One verdict everywhere: the whole corpus through the native policies, the local gateway and Envoy.

// A test that cannot go on says so loudly.
#![allow(clippy::print_stdout)]

use mesh_verdicts::{corpus, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_decides_the_same() {
    let report = run::here(&corpus::read(), None).await;
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
}
