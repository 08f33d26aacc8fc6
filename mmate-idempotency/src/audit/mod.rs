//! Asking what became of messages.
//!
//! A store in a SQL database keeps a record of each message it was asked about, for as long as the
//! window lasts. [`Audit`] asks for them: by id, by conversation, by scope, service or type, by
//! status and by time.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mmate_idempotency::audit::{Audit, AuditQuery};
//! use mmate_idempotency::{SqliteStore, Store};
//!
//! # let folder = tempfile::tempdir()?;
//! let store = SqliteStore::open(folder.path().join("records.db")).await?;
//! store.migrate().await?;
//! // Everything that was handled because of one order, in the order in which it was claimed.
//! for message in store.chain("order-4711").await? {
//!     println!("{} {} {}", message.message_type, message.message_id, message.status);
//! }
//! // What has been in progress for longer than its lease: its process died, or was stopped.
//! let query = AuditQuery::new().in_progress().service("billing").limit(20);
//! let abandoned = store.find(&query).await?.into_iter().filter(|message| message.lease_is_over);
//! # assert_eq!(abandoned.count(), 0);
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! Asking by id and scope is as quick as a claim. For questions by conversation or time in a large
//! table, [`Audit::create_indexes`] makes two indexes; each claim then costs a little more, so they
//! are made on request only.

mod query;

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use mmate_core::TraceParent;

pub use query::AuditQuery;

use crate::store::StoreError;

/// A store that can be asked what became of messages.
#[async_trait]
pub trait Audit: Send + Sync {
    /// The records that a question asks for, the oldest claim first. There are at most as many as
    /// the question's limit; [`AuditQuery::after`] asks for those that come next.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn find(&self, query: &AuditQuery) -> Result<Vec<ProcessedMessage>, StoreError>;

    /// Makes indexes for questions by conversation and by time, if they are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    async fn create_indexes(&self) -> Result<(), StoreError>;

    /// Everything that was handled under a correlation id, the oldest claim first.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn chain(&self, correlation_id: &str) -> Result<Vec<ProcessedMessage>, StoreError> {
        let mut all: Vec<ProcessedMessage> = Vec::new();
        loop {
            let mut query = AuditQuery::new().correlation_id(correlation_id).limit(PAGE);
            if let Some(last) = all.last() {
                query = query.after(last);
            }
            let page = self.find(&query).await?;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }
}

const PAGE: u32 = 1_000;

/// What a store knows of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessedMessage {
    /// Within which the id stands for one effect.
    pub scope: String,
    /// The message's id, or its key where a strategy has another one.
    pub message_id: String,
    /// Where the work on it stands.
    pub status: ProcessedStatus,
    /// Since when it is done.
    pub processed_at: Option<SystemTime>,
    /// When it was claimed last.
    pub claimed_at: SystemTime,
    /// The service that claimed it last.
    pub service: String,
    /// The subscription that it was claimed through.
    pub subscription: String,
    /// The instance of the service.
    pub instance: String,
    /// The conversation.
    pub correlation_id: Option<String>,
    /// The message's type.
    pub message_type: String,
    /// Where in its trace it was handled last.
    pub trace: Option<TraceParent>,
    /// The number of the last attempt, from 1.
    pub attempt: u32,
    /// Rises with every claim.
    pub fence: u64,
    /// Whether the last claim took over from a holder whose lease had run out.
    pub taken_over: bool,
    /// Whether it is in progress and its lease is over: its holder is late, or gone.
    pub lease_is_over: bool,
    /// When it is forgotten; never if absent.
    pub expires_at: Option<SystemTime>,
    /// Whether a reply is kept for duplicates.
    pub has_reply: bool,
}

/// Where the work on a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the protocol has these three states and no other")]
pub enum ProcessedStatus {
    /// Somebody works on it.
    InProgress,
    /// The last attempt failed, and gave it back.
    Released,
    /// It is done; copies are duplicates.
    Done,
}

impl ProcessedStatus {
    /// The word in the table's column `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in progress",
            Self::Released => "released",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for ProcessedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
