//! The project's own programs, as `cargo build --release` leaves them, and those that `make setup` puts
//! beside the build.

use crate::server::target_directories;
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

/// The file of `program`, which `make setup` installs into `target/<name>`.
///
/// # Panics
/// When it is not installed.
pub fn program_of(name: &str, program: &str) -> String {
    target_directories()
        .map(|target| target.join(name).join("bin").join(program))
        .into_iter()
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed: install with `make setup`"))
        .display()
        .to_string()
}
