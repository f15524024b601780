//! The lines of a log that moves on: the older files first, then the one that is written, then the next one.

use super::file::{OLDER, older};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest line that is shown, in bytes; of a longer one the beginning is no line and is passed over.
const MAX_LINE: usize = 256 * 1024;

/// Reads a log from its oldest line on.
pub struct Follower {
    path: PathBuf,
    /// Older files that are not read yet.
    files: VecDeque<File>,
    reading: Option<BufReader<File>>,
    /// A line whose end is not written yet.
    begun: Vec<u8>,
    /// Whether what is read now belongs to a line that is too long.
    passing: bool,
}

impl Follower {
    /// The log at `path`, and whether there is any.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn open(path: &Path) -> io::Result<(Self, bool)> {
        // From the newest on: what moves on meanwhile is read once, not twice or never.
        let mut files: VecDeque<File> = VecDeque::new();
        for n in 0..=OLDER {
            let file = match File::open(older(path, n)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let inode = file.metadata()?.ino();
            let known = |other: &File| other.metadata().is_ok_and(|m| m.ino() == inode);
            if !files.iter().any(known) {
                files.push_front(file);
            }
        }
        let kept = !files.is_empty();
        let follower = Self {
            path: path.to_owned(),
            files,
            reading: None,
            begun: Vec::new(),
            passing: false,
        };
        Ok((follower, kept))
    }

    /// The next whole line, without its end; `None` when there is none yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(reader) = &mut self.reading else {
                match self.files.pop_front() {
                    Some(file) => self.reading = Some(BufReader::new(file)),
                    None => match File::open(&self.path) {
                        Ok(file) => self.reading = Some(BufReader::new(file)),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                        Err(error) => return Err(error),
                    },
                }
                continue;
            };
            let read = reader.fill_buf()?;
            if read.is_empty() {
                if self.moved_on()? {
                    self.reading = None;
                    continue;
                }
                return Ok(None);
            }
            let end = read.iter().position(|&b| b == b'\n');
            let part = read.get(..end.unwrap_or(read.len())).unwrap_or_default();
            if !self.passing {
                self.begun.extend_from_slice(part);
            }
            let used = end.map_or(read.len(), |at| at + 1);
            reader.consume(used);
            if self.begun.len() > MAX_LINE {
                self.begun.clear();
                self.passing = true;
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.begun);
                if !std::mem::take(&mut self.passing) {
                    return Ok(Some(line));
                }
            }
        }
    }

    /// Whether what is read will not grow any more: there is a newer file.
    fn moved_on(&mut self) -> io::Result<bool> {
        if !self.files.is_empty() {
            return Ok(true);
        }
        let Some(reader) = &self.reading else {
            return Ok(false);
        };
        let here = reader.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((here.dev(), here.ino()) != (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn all(follower: &mut Follower) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = follower.next().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        lines
    }

    #[test]
    fn older_files_come_first_and_a_new_one_is_gone_on_with() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        fs::write(older(&path, 2), "1\n").unwrap();
        fs::write(older(&path, 1), "2\n").unwrap();
        fs::write(&path, "3\nbegun").unwrap();
        let (mut follower, kept) = Follower::open(&path).unwrap();
        assert!(kept);
        assert_eq!(all(&mut follower), ["1", "2", "3"]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b" and ended\n").unwrap();
        assert_eq!(all(&mut follower), ["begun and ended"]);
        fs::rename(&path, older(&path, 1)).unwrap();
        file.write_all(b"last\n").unwrap();
        assert_eq!(all(&mut follower), ["last"]);
        fs::write(&path, "4\n").unwrap();
        assert_eq!(all(&mut follower), ["4"]);
    }

    #[test]
    fn a_line_without_an_end_is_not_held() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let long = "x".repeat(3 * MAX_LINE);
        fs::write(&path, format!("a\n{long}\nb\n")).unwrap();
        let (mut follower, _) = Follower::open(&path).unwrap();
        assert_eq!(all(&mut follower), ["a", "b"]);
        let (mut none, kept) = Follower::open(&home.path().join("none")).unwrap();
        assert!(!kept && all(&mut none).is_empty());
    }
}
