//! Ways to write a secret, each with a finding on its line.

use crate::compile;

/// mesh.yaml with `key` as the one key of an issuer, `assertion` as the gateway's own.
fn mesh(key: &str, assertion: &str) -> String {
    format!(
        "version: 1\nmesh: m\ngateway:\n  auth:\n    issuers:\n      - issuer: i\n        audiences: [a]\n        \
         keys:\n          - {key}\n    assertion:\n      {assertion}\nagents:\n  - id: a\n    run: {{builtin: general-agent}}\n"
    )
}

#[test]
fn no_way_to_write_a_secret_shows_it() {
    const HS256: &str = "id: k\n            algorithm: HS256\n            ";
    let block = |text: &str| format!("{HS256}{text}");
    let keys = [
        block("secret:\n              hunter2"),
        block("secret: >\n              hunter2"),
        block("secret: |-\n              hunter2\n              hunter2"),
        block("secret: \"hun\\\n              hunter2\""),
        block("secret:\n              - hunter2"),
        block("secret:\n              inline: hunter2"),
        block("secret:\n              value: hunter2"),
        block("secret:\n              hunter2:\n                x: 1"),
        block("secret: {env: X, file: hunter2}"),
        block("secret: {hunter2}"),
        block("secret: {hunter2: 1, hunter2: 2}"),
        block("secret: !hunter2"),
        block("secret: !hunter2 [1]"),
        block("secret: &hunter2 short"),
        block("secret: short # hunter2"),
        block("secert: hunter2"),
        block("secert:\n              hunter2"),
        block("secert: {a: [hunter2]}"),
        "{id: k, algorithm: HS256, secert: hunter2}".to_owned(),
        "{id: k, algorithm: HS256, secret: hunter2, secret: hunter2}".to_owned(),
        "{id: k, algorithm: HS512, secret: {file: hunter2}, public_key: hunter2}".to_owned(),
        "{id: k, algorithm: HS256, hunter2}".to_owned(),
        "{secret: &a hunter2, public_key: *a, id: *a, x: *a}".to_owned(),
        "hunter2".to_owned(),
        "[hunter2]".to_owned(),
        "{algorithm: ES256, public_key: \"-----BEGIN PRIVATE KEY----- hunter2\"}".to_owned(),
        // Not YAML at all.
        "{id: k, secret: \"hunter2}".to_owned(),
        "{id: k, secret: hunter2: x}".to_owned(),
        "{id: k, secret: @hunter2}".to_owned(),
        "{id: k, secret: *hunter2}".to_owned(),
        "{id: k, secret: !!int hunter2}".to_owned(),
        "{id: k, secret: !hunter2!x y}".to_owned(),
        "{id: k, secret: !!hunter2 y}".to_owned(),
        "{id: k, secret: !!seq hunter2}".to_owned(),
        "{id: k, secret: \"\\hunter2\"}".to_owned(),
    ];
    let assertions = [
        "{key: hunter2, lifetime: 1d}",
        "{lifetime: 1d, key: hunter2}",
        "key: MC4CAQhunter2\n      lifetime: 1d",
        "key:\n        hunter2",
        "key: [hunter2]",
        "hunter2",
        "{lifetime: 1s, kye: hunter2}",
        "{lifetime: [hunter2]}",
    ];
    let good = "{id: k, algorithm: HS256, secret: {env: X}}";
    let files = keys.iter().map(|key| mesh(key, "key: {env: Y}"));
    let files = files.chain(assertions.iter().map(|assertion| mesh(good, assertion)));
    let files = files.flat_map(|text| {
        [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
            format!("\u{feff}{text}"),
            text,
        ]
    });
    for text in files {
        let said = match compile("mesh.yaml", &text) {
            Ok(compiled) => format!("{}\n{:?}", compiled.warnings, compiled.warnings),
            Err(report) => format!("{report}\n{report:?}"),
        };
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
}

#[test]
fn what_is_no_secret_is_shown_in_its_place() {
    let text = mesh(
        "{id: k, secret: hunter2, algorithm: HS513, secert: x} # was y",
        "{key: hunter2, lifetime: 1d}",
    );
    let said = compile("mesh.yaml", &text).unwrap_err().to_string();
    for lines in [
        " 9 |           - {id: k, secret: …, algorithm: HS513, secert: …\n   |                                           ^^^^^\n",
        "   |                                                  ^^^^^^\n",
        "11 |       {key: …, lifetime: 1d}\n   |                          ^^\n",
    ] {
        assert!(said.contains(lines), "{said}");
    }
}
