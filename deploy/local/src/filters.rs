//! Where the filters' modules are.

use crate::LocalError;
use mesh_declarative::Config;
use std::path::{Path, PathBuf};

/// The directory that holds every module that `kong` names.
///
/// `given` wins (an option or `MESH_FILTERS`); else `filters` beside the program, where an
/// installation has it, or beside its directory, where the build has it.
///
/// # Errors
/// [`LocalError::NoFilters`] with the modules that are missing.
pub fn find(given: Option<&Path>, kong: &Config) -> Result<PathBuf, LocalError> {
    let places = match given {
        Some(dir) => vec![dir.to_owned()],
        None => beside_the_program(),
    };
    let modules: Vec<String> = {
        let mut names: Vec<_> = kong
            .filter_chains
            .iter()
            .flat_map(|chain| &chain.filters)
            .map(|filter| format!("{}.wasm", filter.name))
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let missing = |dir: &PathBuf| -> Vec<String> {
        let absent = |name: &&String| !dir.join(name).is_file();
        modules.iter().filter(absent).cloned().collect()
    };
    if let Some(dir) = places.iter().find(|dir| missing(dir).is_empty()) {
        return Ok(dir.clone());
    }
    Err(LocalError::NoFilters {
        modules: modules.join(", "),
        places: places
            .iter()
            .map(|dir| dir.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

fn beside_the_program() -> Vec<PathBuf> {
    let Some(dir) = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned))
    else {
        return Vec::new();
    };
    // A test's program lies one directory deeper (target/release/deps).
    dir.ancestors().take(3).map(|d| d.join("filters")).collect()
}
