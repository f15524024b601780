//! PEM files that somebody else renews.
//!
//! They are looked at once a second. Three files never change at one moment: they are read when they have stood
//! still between two looks, and used when the key fits the certificate and the bundle vouches for it.

use super::{Source, SourceError};
use crate::identity::material::{Material, certificates, key};
use async_trait::async_trait;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Longest file that is read, in bytes; hundreds of certificates.
const MAX_FILE: u64 = 1 << 20;

/// PEM files that somebody else renews.
pub(super) struct Files {
    /// Certificate, key and roots.
    paths: [PathBuf; 3],
    trust_domain: String,
    /// How they looked when they were last read.
    read: Option<Stamps>,
}

/// How the files look from outside; `None` for one that is not there.
type Stamps = [Option<Stamp>; 3];

/// What no replacement leaves as it was, not even one that sets the time of modification back. Symbolic links
/// are followed, since some replace a link to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    pub(super) fn new(paths: [PathBuf; 3], trust_domain: String) -> Self {
        Self {
            paths,
            trust_domain,
            read: None,
        }
    }

    async fn stamps(&self) -> Stamps {
        let mut stamps = [None; 3];
        for (stamp, path) in stamps.iter_mut().zip(&self.paths) {
            *stamp = tokio::fs::metadata(path).await.ok().map(|file| Stamp {
                device: file.dev(),
                inode: file.ino(),
                size: file.size(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            });
        }
        stamps
    }
}

#[async_trait]
impl Source for Files {
    async fn issue(&mut self) -> Result<Material, SourceError> {
        let before = self.stamps().await;
        // A set that fails now is read again when it has changed again.
        self.read = Some(before);
        let [certificate, private, roots] = &self.paths;
        let chain = certificates(&read(certificate).await?, "certificate")?;
        let key = key(&read(private).await?)?;
        let roots = certificates(&read(roots).await?, "trust bundle")?;
        if self.stamps().await != before {
            self.read = None;
            return Err(SourceError::Away("files change while they are read".into()));
        }
        Ok(Material {
            chain,
            key,
            roots,
            trust_domain: self.trust_domain.clone(),
        })
    }

    async fn changed(&mut self) {
        let mut last = None;
        loop {
            let now = self.stamps().await;
            if self.read != Some(now) && last == Some(now) {
                return;
            }
            last = Some(now);
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The content of a file, overwritten when it is dropped.
async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let away = |error: io::Error| SourceError::Away(format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(away)?;
    let mut content = Zeroizing::new(Vec::new());
    let read = file.take(MAX_FILE).read_to_end(&mut content).await;
    if read.map_err(away)? as u64 == MAX_FILE {
        return Err(away(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}
