//! Rendered files on disk: whole or not at all, and untouched when nothing changed.
//!
//! A reader that watches the directory must never see half a file, and must not reload for nothing.

use crate::secret::Secrets;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Path in the directory, with `/`.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether only the owner may read it.
    pub secret: bool,
}

impl Rendered {
    /// A file that holds no secret's value, whether they are known or not.
    pub fn open(name: impl Into<String>, text: String) -> Self {
        Self {
            name: name.into(),
            text,
            secret: false,
        }
    }

    /// `STEM.EXTENSION`, which shows references to secrets; `STEM.secret.EXTENSION` for its owner alone where
    /// their values are known.
    pub fn veiled(secrets: &Secrets, stem: &str, extension: &str, text: String) -> Self {
        let secret = secrets.are_known();
        let infix = if secret { ".secret" } else { "" };
        Self {
            name: format!("{stem}{infix}.{extension}"),
            text,
            secret,
        }
    }
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Whether it was written; it was equal already when not.
    pub changed: bool,
    /// Whether only the owner may read it.
    pub secret: bool,
}

/// From this many files on, one flush of their file system is quicker than one of each: some ms each.
const MANY: usize = 64;

/// Writes `files` into `dir`, which is made when it is not there. Each is whole on the disk before the first takes the
/// place of an old one: when one cannot be written, all old ones stay.
///
/// # Errors
/// What the system said about which file.
pub fn write_all(dir: &Path, files: &[Rendered]) -> io::Result<Vec<Written>> {
    fs::create_dir_all(dir).map_err(|e| named(dir, &e))?;
    let (mut all, mut begun) = (Vec::new(), Vec::new());
    for file in files {
        let path = dir.join(&file.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| named(parent, &e))?;
        }
        let changed = !holds(&path, &file.text);
        if changed {
            begun.push(Begun::write(&path, file).map_err(|e| named(&path, &e))?);
        } else {
            restrict(&path, file.secret).map_err(|e| named(&path, &e))?;
        }
        all.push(Written {
            path,
            changed,
            secret: file.secret,
        });
    }
    flush(dir, &begun)?;
    for file in begun {
        file.finish()?;
    }
    Ok(all)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A file under another name, until it is finished; removed when that does not come about.
struct Begun {
    temporary: PathBuf,
    path: PathBuf,
}

impl Begun {
    fn write(path: &Path, file: &Rendered) -> io::Result<Self> {
        // Beside its target, so that the renaming stays within one file system; the process id keeps two
        // renderings apart.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let begun = Self {
            temporary: path.with_file_name(name),
            path: path.to_owned(),
        };
        // Left by a process of this number that was killed, or a link that somebody laid there.
        let _ = fs::remove_file(&begun.temporary);
        fill(&begun.temporary, file)?;
        Ok(begun)
    }

    fn finish(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path).map_err(|e| named(&self.path, &e))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Not there once it has its name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Waits until the texts are on the disk.
fn flush(dir: &Path, begun: &[Begun]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if begun.len() >= MANY {
        let synced = File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
        return synced.map_err(|e| named(dir, &e));
    }
    begun.iter().try_for_each(|file| {
        let synced = File::open(&file.temporary).and_then(|open| open.sync_all());
        synced.map_err(|e| named(&file.path, &e))
    })
}

/// Whether a file holds the text. What is no file is replaced like a file that holds another one: a pipe would be
/// waited for, a device has no end, and where a link leads is nobody's who renders.
fn holds(path: &Path, text: &str) -> bool {
    let same = |kind: fs::Metadata| {
        kind.is_file() && u64::try_from(text.len()).is_ok_and(|length| kind.len() == length)
    };
    fs::symlink_metadata(path).is_ok_and(same)
        && fs::read(path).is_ok_and(|old| old == text.as_bytes())
}

/// The file that `path` is being written to become, if that is what it is.
pub(super) fn half_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(".new")?;
    let (name, process) = name.rsplit_once('.')?;
    process.parse::<u32>().ok()?;
    Some(path.with_file_name(name))
}

fn fill(path: &Path, file: &Rendered) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if file.secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut out: File = options.open(path)?;
    out.write_all(file.text.as_bytes())?;
    restrict(path, file.secret)
}

/// Takes a secret file away from everybody else, also when it was there before with wider rights.
fn restrict(path: &Path, secret: bool) -> io::Result<()> {
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::PermissionsExt;
        return fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    }
    let _ = (path, secret);
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn file(text: &str, secret: bool) -> Rendered {
        Rendered {
            name: "kong.yml".to_owned(),
            text: text.to_owned(),
            secret,
        }
    }

    #[test]
    fn an_unchanged_file_is_left_alone_and_a_changed_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
        assert!(write_all(&out, &[file("a", false)]).unwrap()[0].changed);
        let first = inode("kong.yml");
        assert!(!write_all(&out, &[file("a", false)]).unwrap()[0].changed);
        assert_eq!(inode("kong.yml"), first);
        assert!(write_all(&out, &[file("b", false)]).unwrap()[0].changed);
        assert_eq!(fs::read_to_string(out.join("kong.yml")).unwrap(), "b");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing left over");
    }

    #[test]
    fn when_one_cannot_be_written_all_stay() {
        let dir = tempfile::tempdir().unwrap();
        let all = |text: &str| -> Vec<Rendered> {
            let names = (0..MANY)
                .map(|n| format!("{n}.json"))
                .chain(["z/last".to_owned()]);
            names
                .map(|name| Rendered::open(name, text.to_owned()))
                .collect()
        };
        assert_eq!(write_all(dir.path(), &all("a")).unwrap().len(), MANY + 1);
        let last = dir.path().join("z");
        fs::remove_dir_all(&last).unwrap();
        fs::write(&last, "in the way").unwrap();
        write_all(dir.path(), &all("b")).unwrap_err();
        assert_eq!(fs::read_to_string(dir.path().join("0.json")).unwrap(), "a");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            MANY + 1,
            "nothing left over"
        );
        fs::remove_file(&last).unwrap();
        assert!(
            write_all(dir.path(), &all("b"))
                .unwrap()
                .iter()
                .all(|file| file.changed)
        );
    }

    #[test]
    fn what_is_no_file_is_replaced_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kong.yml");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(write_all(dir.path(), &[file("s", false)]).unwrap()[0].changed);
        assert_eq!(fs::read_to_string(&path).unwrap(), "s");
        // A link, be it to a file that holds the same.
        let (other, temporary) = (
            dir.path().join("other"),
            dir.path()
                .join(format!("kong.yml.{}.new", std::process::id())),
        );
        fs::write(&other, "s").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        std::os::unix::fs::symlink(&other, &temporary).unwrap();
        for text in ["s", "t"] {
            write_all(dir.path(), &[file(text, true)]).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "s");
        assert_eq!(
            fs::metadata(&other).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }

    #[test]
    fn a_secret_file_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kong.yml");
        fs::write(&path, "s").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for text in ["s", "t"] {
            write_all(dir.path(), &[file(text, true)]).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
