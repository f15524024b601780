//! Each end counts once, and reasons are bounded.

use super::*;

fn outcome(ids: &[&str], end: End) -> Outcome {
    Outcome {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        end,
    }
}

#[test]
fn each_end_counts_once_and_every_id_belongs_to_one_key() {
    let mut tally = Tally::default();
    let completed = |ms| End::Completed(Duration::from_millis(ms));
    for ms in 1..=99 {
        tally.count(outcome(&[&ms.to_string()], completed(ms)));
    }
    tally.count(outcome(&["99"], completed(1_000)));
    tally.count(outcome(
        &["a", "b"],
        End::Failed(Some("timeout".to_owned())),
    ));
    tally.count(outcome(&["c"], End::Failed(None)));
    tally.count(outcome(&[], End::Refused("503".to_owned())));
    tally.count(outcome(&["d"], End::Lost("unknown".to_owned())));
    let report = tally.report(1.0);
    for (key, wanted) in [
        ("completed", json!(100)),
        ("failed", json!(2)),
        ("unexplained", json!(1)),
        ("refused", json!(1)),
        ("lost", json!(1)),
        ("duplicated", json!(2)),
        ("p50", json!(50.0)),
        ("p99", json!(99.0)),
    ] {
        assert_eq!(report[key], wanted, "{key}: {report}");
    }
    assert_eq!(report["reasons"]["timeout"], 1);
    assert_eq!(report["reasons"]["lost: unknown"], 1);
}

#[test]
fn nothing_completed_has_no_quantiles_and_reasons_are_bounded() {
    let mut tally = Tally::default();
    for n in 0..1_000 {
        tally.count(outcome(&[], End::Failed(Some(format!("code-{n}")))));
    }
    let report = tally.report(0.0);
    assert_eq!(report["p50"], Value::Null);
    assert_eq!(report["reasons"]["others"], 936);
}
