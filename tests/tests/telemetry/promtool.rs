//! promtool accepts what is rendered.

use crate::{case, rendered};
use mesh_tests::server::installed;
use std::path::Path;
use std::process::Command;

/// What promtool says of a file, which it must accept.
pub fn promtool(arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(installed("promtool"));
    let done = command.args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(
        done.status.success(),
        "{arguments:?} {}: {said}",
        file.display()
    );
    said
}

#[test]
fn configuration_and_rules_are_accepted() {
    for name in [
        "ok-telemetry",
        "ok-smallest",
        "ok-trust",
        "ok-full",
        "ok-ollama",
        "ok-delivery",
    ] {
        let out = rendered(&case(name));
        let prometheus = out.path().join("prometheus");
        let main = prometheus.join("prometheus.yml");
        let text = std::fs::read_to_string(&main).unwrap();
        // Certificates are looked for where they are to lie.
        if text.contains("ca_file: certs/consul.pem") {
            std::fs::create_dir(prometheus.join("certs")).unwrap();
            std::fs::write(prometheus.join("certs/consul.pem"), "").unwrap();
        }
        let said = promtool(&["check", "config"], &main);
        assert!(said.contains("2 rule files found"), "{name}: {said}");
        for rules in ["mesh-alerts.yml", "mesh-records.yml"] {
            promtool(&["check", "rules"], &prometheus.join("rules").join(rules));
        }
    }
}
