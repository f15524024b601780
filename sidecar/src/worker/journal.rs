//! Answers on disk, so that a step which comes again after a `kill -9` is not asked of the agent again.
//!
//! ```text
//!   answers.log   what is written now        record: length u32, first 8 bytes of SHA-256, JSON
//!   answers.old   what was written before
//!   lock          held while a process uses the directory
//! ```
//!
//! Appended to, never changed. A full file takes the place of the one before, so that the last answers are in one or
//! the other and both are bounded. A record that was cut off, or is not what was written, ends its file. Nothing is
//! forced to the disk: what was written outlives the process, and a machine that loses its power loses at most what
//! the agent would be asked again, under the same key (docs/decisions/redelivered-results.md).

use super::invoke::{Answer, Answered};
use super::recent::{MAX_AGE, MAX_ANSWERS, MAX_BYTES};
use bytes::Bytes;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::StepError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Length and checksum.
const HEAD: usize = 4 + SUM;
const SUM: usize = 8;
/// Longest record, in bytes: the longest answer that is kept, with its key and times. Texts of an error can take six
/// bytes for one.
const MAX_RECORD: usize = MAX_BYTES + 64 * 1024;
/// Longest file that is read: full, and the record that filled it.
const MAX_FILE: u64 = (2 * (MAX_BYTES + MAX_RECORD)) as u64;

/// The journal of one sidecar.
pub(super) struct Journal {
    directory: PathBuf,
    file: File,
    records: usize,
    bytes: u64,
    /// Held, not read.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    attempts: u32,
    started_ms: u64,
    finished_ms: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    completed: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Cow<'a, StepError>>,
}

impl Journal {
    /// Opens the journal in `directory`, makes it where there is none, and returns what it holds, oldest first.
    ///
    /// # Errors
    /// The directory cannot be made, read or written, or another process uses it.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Vec<(String, Answer)>)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let lock = open(&directory.join("lock"), false)?;
        lock.try_lock().map_err(|error| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{error}: {}", directory.display()),
            )
        })?;
        let (mut answers, _) = read(&directory.join("answers.old"))?;
        let path = directory.join("answers.log");
        let (latest, whole) = read(&path)?;
        let records = latest.len();
        answers.extend(latest);
        let oldest = Timestamp::now().millis().saturating_sub(millis(MAX_AGE));
        answers.retain(|(_, answer)| answer.finished_at.millis() >= oldest);
        let file = open(&path, true)?;
        if file.metadata()?.len() > whole {
            tracing::warn!(path = %path.display(), "the end of the journal was not whole and is left out");
            file.set_len(whole)?;
        }
        let journal = Self {
            directory: directory.to_owned(),
            file,
            records,
            bytes: whole,
            _lock: lock,
        };
        Ok((journal, answers))
    }

    /// Adds an answer.
    ///
    /// # Errors
    /// It could not be written, and then nothing of it is there.
    pub(super) fn append(&mut self, key: &str, answer: &Answer) -> io::Result<()> {
        let record = record(key, answer)?;
        if self.records >= MAX_ANSWERS || self.bytes >= MAX_BYTES as u64 {
            self.turn()?;
        }
        if let Err(error) = self.file.write_all(&record) {
            // A full disk leaves half a record, behind which nothing would be found.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.records += 1;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Begins a new file.
    fn turn(&mut self) -> io::Result<()> {
        let path = self.directory.join("answers.log");
        fs::rename(&path, self.directory.join("answers.old"))?;
        self.file = open(&path, true)?;
        self.records = 0;
        self.bytes = 0;
        Ok(())
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Answers are nobody else's to read.
fn open(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new()
        .append(append)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn record(key: &str, answer: &Answer) -> io::Result<Vec<u8>> {
    let (completed, failed) = match &answer.answered {
        Answered::Completed(json) => (Some(serde_json::from_slice(json)?), None),
        Answered::Failed(error) => (None, Some(Cow::Borrowed(error))),
    };
    let json = serde_json::to_vec(&Record {
        key: key.into(),
        attempts: answer.attempts,
        started_ms: answer.started_at.millis(),
        finished_ms: answer.finished_at.millis(),
        completed,
        failed,
    })?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut record = Vec::with_capacity(HEAD + json.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&sum(&json));
    record.extend_from_slice(&json);
    Ok(record)
}

fn sum(json: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    for (to, from) in sum.iter_mut().zip(Sha256::digest(json)) {
        *to = from;
    }
    sum
}

/// The answers of a file as far as it is whole, and how many bytes that is.
fn read(path: &Path) -> io::Result<(Vec<(String, Answer)>, u64)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let mut answers = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((answer, behind)) = next(rest) {
        answers.push(answer);
        rest = behind;
    }
    Ok((answers, (bytes.len() - rest.len()) as u64))
}

/// The first answer of `bytes` and what is behind it; `None` where it is not whole.
fn next(bytes: &[u8]) -> Option<((String, Answer), &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checked, rest) = rest.split_first_chunk::<SUM>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (json, rest) = rest.split_at_checked(length)?;
    if sum(json) != *checked {
        return None;
    }
    let record: Record<'_> = serde_json::from_slice(json).ok()?;
    let answered = match (record.completed, record.failed) {
        (Some(json), _) => Answered::Completed(Bytes::copy_from_slice(json.get().as_bytes())),
        (None, Some(error)) => Answered::Failed(error.into_owned()),
        (None, None) => return None,
    };
    let answer = Answer {
        answered,
        attempts: record.attempts,
        started_at: Timestamp::from_millis(record.started_ms),
        finished_at: Timestamp::from_millis(record.finished_ms),
        lasting: true,
    };
    Some(((record.key.into_owned(), answer), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> Answer {
        let mut answer = Answer::completed(Bytes::copy_from_slice(json.as_bytes()));
        answer.finished_at = Timestamp::now();
        answer
    }

    fn keys(directory: &Path) -> Vec<String> {
        let (_, answers) = Journal::open(directory).unwrap();
        answers.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_cut_off_ends_the_file_and_the_next_follows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answers.log");
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        journal.append("first", &answer(" {\"a\": 1} \n")).unwrap();
        journal.append("second", &answer("[2]")).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        // Everywhere that a process can be killed, and every byte that can be another.
        for cut in 1..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(keys(directory.path()).len() < 2, "{cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(keys(directory.path()).len() < 2, "{cut}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, answers) = Journal::open(directory.path()).unwrap();
        assert_eq!(answers.len(), 1);
        assert!(
            matches!(&answers[0].1.answered, Answered::Completed(json) if json == "{\"a\": 1}")
        );
        journal.append("third", &answer("3")).unwrap();
        drop(journal);
        assert_eq!(keys(directory.path()), ["first", "third"]);
    }

    #[test]
    fn it_is_bounded_and_keeps_the_latest() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        for number in 0..MAX_ANSWERS * 5 / 2 {
            journal.append(&number.to_string(), &answer("1")).unwrap();
        }
        drop(journal);
        let kept = keys(directory.path());
        assert!((MAX_ANSWERS..=2 * MAX_ANSWERS).contains(&kept.len()));
        assert_eq!(kept.last().unwrap(), &(MAX_ANSWERS * 5 / 2 - 1).to_string());
        let large = format!("\"{}\"", "x".repeat(MAX_BYTES / 2));
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        for number in 0..6 {
            journal
                .append(&format!("large-{number}"), &answer(&large))
                .unwrap();
        }
        drop(journal);
        let files = fs::read_dir(directory.path()).unwrap();
        let bytes: u64 = files.map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= MAX_FILE, "{bytes}");
        assert_eq!(keys(directory.path()).last().unwrap(), "large-5");
    }

    #[test]
    fn what_is_older_than_any_task_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        let mut old = answer("1");
        old.finished_at = Timestamp::from_millis(1);
        journal.append("old", &old).unwrap();
        journal.append("new", &answer("1")).unwrap();
        drop(journal);
        assert_eq!(keys(directory.path()), ["new"]);
    }
}
