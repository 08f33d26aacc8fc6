//! What happened.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Something that happened to a message, or to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// When, in microseconds since the Unix epoch.
    pub at: u64,
    /// What.
    pub what: What,
    /// The message's business id; of a fault, nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The process: that did it, or that it was done to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The key that the message is ordered by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its place among the messages of its key, in the order of publishing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// It is about to be published.
    Attempted,
    /// The broker has taken responsibility for it.
    Confirmed,
    /// It is one that no handling can help, and that belongs among the dead letters.
    Poison,
    /// A process takes it up, before it asks any record. Needed only to explain second effects.
    Began,
    /// Its effect is there.
    Effect,
    /// The process that it had its effect in has noted that for good: from here on nothing excuses
    /// another effect.
    Done,
    /// It was skipped as a duplicate.
    Suppressed,
    /// It is a dead letter.
    Parked,
    /// The process was killed, frozen or cut off. Those at the same time are one fault.
    Fault,
}

impl Event {
    /// Something that happened to this message, now.
    #[must_use]
    pub fn now(what: What, id: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            at: since.as_micros().try_into().unwrap_or(u64::MAX),
            what,
            id: id.into(),
            by: String::new(),
            key: None,
            seq: None,
        }
    }

    /// It is about to be published, now.
    #[must_use]
    pub fn attempted(id: impl Into<String>) -> Self {
        Self::now(What::Attempted, id)
    }

    /// The broker has confirmed it, now.
    #[must_use]
    pub fn confirmed(id: impl Into<String>) -> Self {
        Self::now(What::Confirmed, id)
    }

    /// It took effect, now.
    #[must_use]
    pub fn effect(id: impl Into<String>) -> Self {
        Self::now(What::Effect, id)
    }

    /// A process is harmed, now.
    #[must_use]
    pub fn fault(process: impl Into<String>) -> Self {
        Self::now(What::Fault, "").by(process)
    }

    /// The process.
    #[must_use]
    pub fn by(mut self, process: impl Into<String>) -> Self {
        self.by = process.into();
        self
    }

    /// Its place among the messages of a key.
    #[must_use]
    pub fn in_order(mut self, key: impl Into<String>, seq: u64) -> Self {
        (self.key, self.seq) = (Some(key.into()), Some(seq));
        self
    }

    /// At another time, in microseconds since the Unix epoch.
    #[must_use]
    pub fn at(mut self, micros: u64) -> Self {
        self.at = micros;
        self
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempted => "attempted",
            Self::Confirmed => "confirmed",
            Self::Poison => "poison",
            Self::Began => "began",
            Self::Effect => "effect",
            Self::Done => "done",
            Self::Suppressed => "suppressed",
            Self::Parked => "parked",
            Self::Fault => "fault",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what, id, by, .. } = self;
        let micros = i64::try_from(*at).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(micros) {
            Ok(at) => write!(f, "{at:.6}")?,
            Err(_) => write!(f, "{at} µs")?,
        }
        write!(f, " {what}")?;
        if !id.is_empty() {
            write!(f, " {id}")?;
        }
        if !by.is_empty() {
            write!(f, " by {by}")?;
        }
        if let (Some(key), Some(seq)) = (&self.key, self.seq) {
            write!(f, " ({key} #{seq})")?;
        }
        Ok(())
    }
}
