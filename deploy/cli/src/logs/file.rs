//! `.mesh/logs/MESH.jsonl`: what `mesh up` writes, a line of JSON each, bounded, for its owner alone.
//!
//! A full file becomes `.1`, that one `.2`, and the last one goes. Every line is masked before it is kept: what a
//! program prints may hold what it was given. Nothing waits for a disk: a line that cannot be written is lost, and
//! the standard error has it all the same.

use mesh_config::Masks;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes after which a file is full.
const FULL: u64 = 8 * 1024 * 1024;
/// Files beside the one that is written: 32 MiB in all.
pub const OLDER: usize = 3;

/// Where the log of a mesh lies.
pub fn path(base: &Path, mesh: &str) -> PathBuf {
    let directory = base.join(mesh_config::mesh::KEYS_DIR).join("logs");
    directory.join(format!("{mesh}.jsonl"))
}

/// The `n`th older file of a log; 0 is the log itself.
pub fn older(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// The log that `mesh up` writes; clones are the same log, and it takes nothing before it is opened.
#[derive(Clone, Default)]
pub struct LogFile(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    open: Option<Open>,
    masks: Masks,
}

struct Open {
    path: PathBuf,
    file: File,
    written: u64,
    full: u64,
}

impl LogFile {
    /// Begins to keep lines of this mesh, masked.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(&self, base: &Path, mesh: &str, masks: Masks) -> io::Result<()> {
        let opened = Open::at(path(base, mesh), FULL);
        let mut inner = self.inner();
        inner.masks = masks;
        inner.open = Some(opened?);
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A file is a file whatever happened to who held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for the standard error: masked, and kept nowhere.
    pub fn stderr(&self) -> MaskedStderr {
        MaskedStderr(self.clone())
    }
}

impl Open {
    fn at(path: PathBuf, full: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        // One that was there keeps its mode otherwise.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            written,
            full,
        })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written >= self.full {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.written += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (0..OLDER).rev() {
            match std::fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self::at(self.path.clone(), self.full)?;
        Ok(())
    }
}

/// Takes one line a call, as the subscriber writes them.
impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let Inner { open, masks } = &mut *inner;
        if let Some(open) = open {
            open.line(&masks.apply(line))?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The standard error without secrets.
#[derive(Clone)]
pub struct MaskedStderr(LogFile);

impl Write for &MaskedStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Let go before it is written: a terminal may be slow.
        let shown = self.0.inner().masks.apply(line).into_owned();
        io::stderr().write_all(&shown)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for MaskedStderr {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_full_file_moves_on_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let path = path(home.path(), "m");
        let mut open = Open::at(path.clone(), 11).unwrap();
        for n in 0..20 {
            open.line(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        let texts: Vec<String> = (0..=OLDER)
            .map(|n| fs::read_to_string(older(&path, n)).unwrap())
            .collect();
        assert_eq!(texts[0], "line 0018\nline 0019\n");
        assert_eq!(texts[OLDER], "line 0012\nline 0013\n");
        assert!(!older(&path, OLDER + 1).exists());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let directory = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_is_kept_before_it_is_opened() {
        let log = LogFile::default();
        assert_eq!((&log).write(b"early\n").unwrap(), 6);
        let home = tempfile::tempdir().unwrap();
        log.open(home.path(), "m", Masks::default()).unwrap();
        (&log).write_all(b"late\n").unwrap();
        let kept = fs::read_to_string(path(home.path(), "m")).unwrap();
        assert_eq!(kept, "late\n");
    }
}
