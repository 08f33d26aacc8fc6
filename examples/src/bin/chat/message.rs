//! What is said, and how it is shown.

use std::time::{SystemTime, UNIX_EPOCH};

use mmate_examples::sign_in::Name;
use serde::{Deserialize, Serialize};

/// A message on its way to its number: the payload of the request `Say`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Say {
    /// `anna/m-1`: the sender and the id that the sender's client gave it, the same in every attempt.
    pub(crate) id: String,
    pub(crate) conversation: String,
    pub(crate) sender: Name,
    pub(crate) what: What,
}

/// What is said, or done to a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "said")]
pub(crate) enum What {
    Text(String),
    Added(Name),
    Removed(Name),
    /// The group was made.
    Made,
}

impl Say {
    /// The id as the sender's client gave it.
    pub(crate) fn message_id(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(_, id)| id)
    }
}

impl What {
    /// As it is in the table.
    pub(crate) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Text(text) => ("text", text),
            Self::Added(name) => ("added", name.as_str()),
            Self::Removed(name) => ("removed", name.as_str()),
            Self::Made => ("made", ""),
        }
    }
}

/// The answer to it, and to every copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Said {
    pub(crate) number: i64,
    pub(crate) sent_at_ms: i64,
    /// `false` if it was said so long ago that its record is gone.
    pub(crate) is_new: bool,
}

/// Says to all servers that there is a message, and for whom.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) conversation: String,
    pub(crate) members: Vec<Name>,
}

/// A message as a client is shown it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) conversation: String,
    pub(crate) number: i64,
    pub(crate) sender: String,
    pub(crate) message_id: String,
    pub(crate) kind: String,
    pub(crate) said: String,
    pub(crate) sent_at_ms: i64,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
