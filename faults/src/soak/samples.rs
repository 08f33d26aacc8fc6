//! How a soak goes, second by second.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::stage::Stage;

/// One moment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Seconds since the beginning.
    pub(super) at: f64,
    /// Effects so far.
    pub(super) effects: u64,
    /// Messages confirmed so far.
    pub(super) confirmed: u64,
    /// Resident memory of the consumer that is never made to end, in bytes.
    pub(super) memory: Option<u64>,
}

/// Counts effects while they come.
pub(super) enum Counter {
    /// Rows, by the number of the last one. A number whose transaction failed is not used again, so this counts a few
    /// too many.
    Rows(Option<PgConnection>),
    /// Lines in the journals of consumers.
    Lines { journals: PathBuf, read: Vec<u64>, effects: u64 },
}

impl Counter {
    pub(super) fn of(stage: &Stage, journals: &Path, consumers: u16) -> Self {
        match stage.postgres {
            Some(_) => Self::Rows(None),
            None => Self::Lines {
                journals: journals.to_owned(),
                read: vec![0; consumers.into()],
                effects: 0,
            },
        }
    }

    /// How many there are; nothing if it cannot be known at the moment.
    pub(super) async fn count(&mut self, stage: &Stage) -> Option<u64> {
        match self {
            Self::Rows(connection) => {
                let mut session = match connection.take() {
                    Some(session) => session,
                    None => stage.database().await.ok()?,
                };
                let last = "SELECT coalesce(max(n), 0) FROM effects";
                let count: i64 = sqlx::query_scalar(last).fetch_one(&mut session).await.ok()?;
                *connection = Some(session);
                count.try_into().ok()
            }
            Self::Lines { journals, read, effects } => {
                for (number, read) in read.iter_mut().enumerate() {
                    let path = journals.join(format!("consumer-{number}.jsonl"));
                    *effects += count_new(&path, read).unwrap_or_default();
                }
                Some(*effects)
            }
        }
    }
}

/// Counts the effects in what was appended since the last time.
fn count_new(path: &Path, read: &mut u64) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*read))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    *read += whole as u64;
    let lines = text[..whole].split(|byte| *byte == b'\n');
    let is_effect = |line: &&[u8]| line.windows(8).any(|part| part == b"\"effect\"");
    Ok(lines.filter(is_effect).count() as u64)
}
