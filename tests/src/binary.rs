//! The project's own programs, as `cargo build --release` leaves them.

use std::path::PathBuf;

/// The file of the program `name`, built beside the tests.
///
/// # Panics
/// When it is not built: `cargo test` builds libraries and tests, `make test` builds the programs first.
pub fn binary(name: &str) -> String {
    let mut file: PathBuf = std::env::current_exe().expect("the test's own file");
    file.pop();
    if file.ends_with("deps") {
        file.pop();
    }
    file.push(name);
    assert!(
        file.is_file(),
        "{} is not built: run `make test`",
        file.display()
    );
    file.display().to_string()
}
