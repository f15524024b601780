//! Compiled modules on disk, so that a second start does not compile.
//!
//! ```text
//! NAME-KEY.cwasm    KEY = SHA-256 of the engine's settings and version, and of the module's bytes
//!                   SHA-256 of what follows │ machine code, as wasmtime writes it
//! ```
//!
//! What lies there is run as machine code, outside every bound of a filter: whoever can write it is this process.
//! So the directory and each file must belong to the user of this process and be closed to everybody else, and a
//! file is opened once and judged by what was opened. Anything else is refused, said, and compiled anew.

use crate::engine::Engine;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes; half a megabyte of wasm becomes one and a half.
const MAX_BYTES: u64 = 128 * 1024 * 1024;
/// Bytes of the digest at the beginning of a file.
const DIGEST: usize = 32;
/// Modules of one name that are kept; beyond that the oldest go.
const KEPT: usize = 4;

/// A directory of compiled modules.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// The cache in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or is open to others or somebody else's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // Not what a link leads to: who made the link may make another one.
        let found = std::fs::symlink_metadata(directory)?;
        if !found.is_dir() {
            return Err(refused(directory, "is no directory"));
        }
        ours(directory, &found)?;
        Ok(Self(directory.to_owned()))
    }

    /// The module of these bytes, if it was compiled for this engine before.
    pub(crate) fn find(
        &self,
        engine: &Engine,
        name: &str,
        bytes: &[u8],
    ) -> Option<wasmtime::Module> {
        let path = self.path(engine, name, bytes);
        let code = match read(&path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "compiled filter is passed over");
                return None;
            }
        };
        // Sound when the code is what wasmtime wrote: it lies in a directory and a file that nobody but this user
        // could write, under the digest that it was written with, and wasmtime itself refuses another version's.
        #[allow(unsafe_code)]
        let module = unsafe { wasmtime::Module::deserialize(&engine.inner, code) };
        module
            .inspect_err(|error| tracing::warn!(%error, "compiled filter is passed over"))
            .ok()
    }

    /// Keeps a module for the next start.
    ///
    /// # Errors
    /// What the system said; nothing is half written then.
    pub(crate) fn keep(
        &self,
        engine: &Engine,
        name: &str,
        bytes: &[u8],
        module: &wasmtime::Module,
    ) -> io::Result<()> {
        let code = module.serialize().map_err(io::Error::other)?;
        let path = self.path(engine, name, bytes);
        // Two starts at once write the same, each to a file of its own.
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = write(&draft, &code).and_then(|()| std::fs::rename(&draft, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written?;
        self.tidy(name);
        Ok(())
    }

    /// Takes the oldest modules of this name away: each build of a filter leaves one.
    fn tidy(&self, name: &str) {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return;
        };
        let mut modules: Vec<_> = entries
            .flatten()
            .filter(|entry| {
                let file = entry.file_name();
                let rest = file.to_str().and_then(|file| file.strip_prefix(name));
                rest.is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".cwasm"))
            })
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        modules.sort();
        let surplus = modules.len().saturating_sub(KEPT);
        for (_, path) in modules.into_iter().take(surplus) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn path(&self, engine: &Engine, name: &str, bytes: &[u8]) -> PathBuf {
        let mut key = Key(Sha256::new());
        engine.inner.precompile_compatibility_hash().hash(&mut key);
        key.0.update(bytes);
        let key: String = key
            .0
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.0.join(format!("{name}-{key}.cwasm"))
    }
}

/// SHA-256 where a `Hasher` is asked for.
struct Key(Sha256);

impl Hasher for Key {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Nobody asks: the whole digest is the key.
        0
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let nofollow = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nofollow)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refused(path, "is no file"));
    }
    ours(path, &found)?;
    if found.len() > MAX_BYTES {
        return Err(refused(path, "is too long"));
    }
    let mut digest = [0; DIGEST];
    let mut code = Vec::new();
    file.read_exact(&mut digest)?;
    file.take(MAX_BYTES).read_to_end(&mut code)?;
    if *Sha256::digest(&code) != digest {
        return Err(refused(path, "is spoilt"));
    }
    Ok(code)
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    // A draft that a killed process left has this process's number by chance alone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&Sha256::digest(code))?;
    // Not synchronised: what a power cut tears has another digest.
    file.write_all(code)
}

/// Whether what was found is this user's and nobody else may write it.
fn ours(path: &Path, found: &std::fs::Metadata) -> io::Result<()> {
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user"));
    }
    let open = (Mode::RWXG | Mode::RWXO).as_raw_mode();
    if found.mode() & open != 0 {
        return Err(refused(path, "is open to other users"));
    }
    Ok(())
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} {why}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Module};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const FILTER: &str = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0))"#;

    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_compiled_is_found_and_what_is_spoilt_or_open_is_not() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cache");
        let cache = Cache::open(&directory).unwrap();
        let engine = Engine::new(Limits::default(), 1).unwrap();
        let bytes = wat::parse_str(FILTER).unwrap();
        assert!(cache.find(&engine, "f", &bytes).is_none());
        Module::cached(&engine, "f", &bytes, Some(&cache)).unwrap();
        let [file] = &files(&directory)[..] else {
            panic!("one file");
        };
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
        assert!(cache.find(&engine, "f", &bytes).is_some());
        // Another module, and another engine, have other keys.
        assert!(cache.find(&engine, "f", b"\0asm").is_none());
        let measured = Engine::measured(Limits::default(), 1).unwrap();
        assert!(cache.find(&measured, "f", &bytes).is_none());

        let good = fs::read(file).unwrap();
        for spoilt in [Vec::new(), good[..40].to_vec(), {
            let mut turned = good.clone();
            let last = turned.len() - 1;
            turned[last] ^= 1;
            turned
        }] {
            fs::write(file, spoilt).unwrap();
            assert!(cache.find(&engine, "f", &bytes).is_none());
        }
        fs::write(file, &good).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(cache.find(&engine, "f", &bytes).is_none());
        fs::remove_file(file).unwrap();
        fs::write(home.path().join("elsewhere"), &good).unwrap();
        std::os::unix::fs::symlink(home.path().join("elsewhere"), file).unwrap();
        assert!(cache.find(&engine, "f", &bytes).is_none(), "a link");
        // Compiled anew, in spite of what lies there.
        Module::cached(&engine, "f", &bytes, Some(&cache)).unwrap();
        assert!(cache.find(&engine, "f", &bytes).is_some());
    }

    #[test]
    fn a_directory_that_others_may_enter_is_none() {
        let home = tempfile::tempdir().unwrap();
        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = Cache::open(&open).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let link = home.path().join("link");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(Cache::open(&link).is_err());
        assert!(Cache::open(&open).is_ok());
    }

    #[test]
    fn old_modules_of_a_name_go() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::open(&home.path().join("cache")).unwrap();
        let engine = Engine::new(Limits::default(), 1).unwrap();
        for n in 0..KEPT + 3 {
            let text = FILTER.replace("i32.const 0", &format!("i32.const {n}"));
            let bytes = wat::parse_str(text).unwrap();
            Module::cached(&engine, "f", &bytes, Some(&cache)).unwrap();
        }
        assert_eq!(files(&cache.0).len(), KEPT);
    }
}
