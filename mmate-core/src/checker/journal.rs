//! Events in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::event::Event;

/// A file that a process appends what happens to, one JSON object a line.
///
/// A line is written by one call of the system: what [`note`](Self::note) has returned from is in
/// the file, even if the process is killed at once. (Not if the machine fails.)
#[derive(Debug)]
pub struct Journal {
    file: File,
}

/// A journal that cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be used.
    #[error("cannot use the journal {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event.
    #[error("line {line} of the journal {path} is no event")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Journal {
    /// Opens a journal at its end, or begins one.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn append(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref();
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        Ok(Self { file })
    }

    /// Notes what happened. Several processes and threads may write to one file.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn note(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }
}

/// What is in a journal, in its order. A last line that is not whole was never finished, and is
/// left out.
///
/// # Errors
/// [`JournalError`], also for each event.
pub fn read(
    path: impl AsRef<Path>,
) -> Result<impl Iterator<Item = Result<Event, JournalError>>, JournalError> {
    let path = path.as_ref().to_owned();
    let failed = {
        let path = path.clone();
        move |source| JournalError::Io { path: path.clone(), source }
    };
    let mut lines = BufReader::new(File::open(&path).map_err(&failed)?);
    let mut number = 0;
    let mut text = Vec::new();
    Ok(std::iter::from_fn(move || {
        text.clear();
        number += 1;
        match lines.read_until(b'\n', &mut text) {
            Ok(_) if text.last() != Some(&b'\n') => None,
            Ok(_) => Some(serde_json::from_slice(&text).map_err(|source| JournalError::Line {
                path: path.clone(),
                line: number,
                source,
            })),
            Err(error) => Some(Err(failed(error))),
        }
    }))
}
