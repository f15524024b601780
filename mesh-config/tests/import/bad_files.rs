//! Files that nobody should be able to hurt with, and what is said of them.

use mesh_config::import::{self, Format, ImportError};
use std::time::{Duration, Instant};

fn refused(text: &str, from: Option<Format>) -> String {
    let begun = Instant::now();
    let error = import::import(text, from, "m").unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
    error
}

#[test]
fn what_is_no_file_of_anyone_is_refused() {
    for (text, said) in [
        ("", "neither kong.yml"),
        ("just words", "neither kong.yml"),
        ("- a\n- b\n", "neither kong.yml"),
        ("{}", "neither kong.yml"),
        ("version: 1\nmesh: m\n", "a mesh.yaml already"),
        ("services: [\n", "line"),
        ("a: b: c\n", "line 1"),
        ("\u{0}", "line"),
        (
            "_format_version: \"2.1\"\nservices: []\n",
            "deck file convert",
        ),
        ("services: [{name: a}]\n", "_format_version"),
        ("services: {}\n", "no service"),
        ("services: {a: {}}\n", "no service"),
        ("_format_version: \"3.0\"\n", "no mesh can be made of it"),
        ("a: 1\n---\nb: 2\n", "more than one document"),
    ] {
        let error = refused(text, None);
        assert!(error.contains(said), "{text:?}: {error}");
    }
    for (_, format) in Format::ALL {
        for text in ["", "5", "[]", "text"] {
            refused(text, Some(format));
        }
    }
}

#[test]
fn a_file_of_ten_megabytes_is_refused_before_it_is_read() {
    let text = format!("_format_version: \"3.0\"\n{}", "# x\n".repeat(2_600_000));
    assert!(text.len() > 10_000_000);
    let begun = Instant::now();
    assert_eq!(
        import::import(&text, None, "m").unwrap_err(),
        ImportError::TooLarge
    );
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[test]
fn anchors_do_not_grow_without_end_and_nesting_neither() {
    let mut laughs = "_format_version: \"3.0\"\na: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ["bcdefghi".chars(), "abcdefgh".chars()].map(Iterator::collect::<Vec<_>>)[0]
        .iter()
        .zip("abcdefgh".chars())
    {
        let nine = vec![format!("*{of}"); 9].join(", ");
        laughs.push_str(&format!("{name}: &{name} [{nine}]\n"));
    }
    assert!(refused(&laughs, None).contains("beyond what"), "laughs");
    let deep = format!(
        "_format_version: \"3.0\"\nservices: {}{}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    refused(&deep, None);
    let json = format!("{{\"queues\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    refused(&json, None);
    let wide = format!(
        "_format_version: \"3.0\"\nservices: [{}]",
        "a, ".repeat(500_000)
    );
    assert!(refused(&wide, None).contains("beyond what"));
}

#[test]
fn keys_that_stand_twice_are_named() {
    let text = "_format_version: \"3.0\"\nservices:\n- name: a\n  url: http://a\n  url: http://b\n  routes:\n  - {name: r, paths: [/a], paths: [/b]}\nservices: []\n";
    let imported = import::import(text, None, "m").unwrap();
    let said: Vec<(&str, usize)> = imported
        .lost
        .iter()
        .map(|lost| (lost.path.as_str(), lost.line))
        .collect();
    assert_eq!(
        said,
        [
            ("services", 8),
            ("services[0].url", 5),
            ("services[0].routes[0].paths", 7)
        ]
    );
    assert!(imported.text.contains("http://a"));
}

#[test]
fn what_a_file_says_cannot_leave_the_comment() {
    let text = "_format_version: \"3.0\"\nservices: [{name: a, url: http://a}]\n\"x\\nmesh: evil\\u2028\\e[31m\": 1\n";
    let imported = import::import(text, None, "m").unwrap();
    assert_eq!(imported.lost.len(), 1);
    let mesh = mesh_config::compile("mesh.yaml", &imported.text)
        .unwrap()
        .mesh;
    assert_eq!(mesh.name, "m");
    for line in imported.text.lines() {
        assert!(
            !line.contains('\u{1b}') && !line.contains('\u{2028}'),
            "{line:?}"
        );
    }
}

#[test]
fn no_prefix_of_a_file_makes_it_panic() {
    for text in [
        include_str!("plan-kong.yml"),
        include_str!("definitions.json"),
        include_str!("docker-compose.yml"),
    ] {
        for (at, _) in text.char_indices().step_by(41) {
            for from in [
                None,
                Some(Format::Kong),
                Some(Format::Rabbitmq),
                Some(Format::Compose),
            ] {
                if let Ok(imported) = import::import(&text[..at], from, "m") {
                    let report = mesh_config::compile("mesh.yaml", &imported.text);
                    assert!(report.is_ok(), "{}", report.unwrap_err());
                }
            }
        }
    }
}
