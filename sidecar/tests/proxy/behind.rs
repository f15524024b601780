//! An answer that says whose fault it is.

use crate::support::{App, Pair, full, request};
use hyper::Response;
use serde_json::json;

/// A service that shares something with its instances, and says when that fails: whoever asks it for something else is
/// to notice nothing.
#[tokio::test]
async fn a_fault_of_what_is_behind_a_service_is_not_counted_against_it() {
    for status in [502, 503, 504] {
        let app = App::answering(move |seen| {
            let answer = Response::builder();
            let answer = match seen.target.as_str() {
                "/model" => answer.status(status).header("x-mesh-fault", "behind"),
                _ => answer,
            };
            answer.body(full("x")).unwrap()
        })
        .await;
        for between in ["http1", "http2"] {
            let breaker = json!({"min_requests": 5, "failure_percent": 10, "open_ms": 60_000});
            let settings = json!({"breaker": breaker, "outlier": {"consecutive_failures": 2}});
            let pair = Pair::new(
                app.address,
                json!({"settings": {"breaker": breaker}}),
                json!({"between": between, "defaults": settings}),
            )
            .await;
            let before = app.seen().len();
            for method in ["GET", "POST"] {
                for number in 0..20 {
                    let answer = pair.send(request(method, "/model", "")).await;
                    assert_eq!(answer.status, status, "{between} {method} {number}");
                }
            }
            assert_eq!(app.seen().len() - before, 40, "nothing is tried again");
            assert_eq!(pair.get("/").await.status, 200, "{between}");
            let labels = [("direction", "outbound"), ("peer", "target")];
            assert!(pair.caller.metric("sidecar_ejections_total", &labels) < 0.5);
        }
    }
}
