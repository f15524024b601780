//! One verdict everywhere: the whole corpus through the native policies, the local gateway and Envoy; and
//! that the suite sees it where there is more than one.

// What came of it is to be seen.
#![allow(clippy::print_stdout)]

use mesh_verdicts::{corpus, run};

/// Least number of cases; a corpus that was not found would show nothing.
const CASES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_decides_the_same() {
    let report = run::here(&corpus::read(), None).await;
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.total() >= CASES, "{} cases", report.total());
    for gateway in ["native", "local", "envoy"] {
        assert!(report.asked[gateway].0 >= CASES, "{gateway}");
    }
}

/// Each of these expects something that is not so.
const WRONG: &str = r#"
about: What is not so is seen.
config:
  - filter: jwt_auth
    config:
      issuers: [{issuer: i, audiences: [mesh], keys: [{algorithm: HS256, secret: "${secret:hs}"}]}]
      assertion: {issuer: gateway, audience: mesh, kid: g, signing_key: "${secret:gateway}"}
defaults:
  token: {claims: {iss: i, aud: mesh}}
cases:
  - {name: status, expect: {status: 401}}
  - {name: no assertion, expect: {status: 200}}
  - {name: assertion, expect: {status: 200, upstream: {assertion: {sub: bob}}}}
  - {name: upstream header, expect: {status: 200, upstream: {assertion: {}, headers: {x-a: b}}}}
  - {name: upstream body, expect: {status: 200, upstream: {assertion: {}, body: b}}}
  - {name: response header, without_token: true, expect: {status: 401, headers: {www-authenticate: {absent: true}}}}
  - {name: problem, without_token: true, expect: {status: 401, type: invalid-token}}
  - {name: member, without_token: true, expect: {status: 401, type: token-required, problem: {title: other}}}
  - {name: step, steps: [{expect: {status: 200, upstream: {assertion: {}}}}, {expect: {status: 429}}]}
  - {name: at once, steps: [{at_once: {pass: 2, refused: 0}, expect: {status: 429}}, {at_once: {pass: 0, refused: 1}, expect: {status: 429}}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_expected_is_seen() {
    let file = corpus::parse("wrong", "wrong", WRONG);
    let cases = file.cases.len();
    let report = run::here(&[file], None).await;
    for gateway in ["native", "local", "envoy"] {
        let failed = report.failures.iter().filter(|f| f.gateway == gateway);
        assert_eq!(failed.count(), cases, "{gateway}: {report}");
    }
}
