//! Who a message is: its key, and what it contains.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mmate_core::{Context, DeadReason, HandlerError, Surroundings};

use super::{Fingerprint, Key, MissingId};
use crate::protocol::Retention;
use crate::store::{ClaimRequest, Claimant, RecordKey};

/// How a strategy tells messages apart.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: Key,
    pub(super) missing: MissingId,
    pub(super) fingerprint: Fingerprint,
    /// How long after it was dead-lettered a message may be replayed.
    pub(super) replayed_within: Duration,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            key: Key::default(),
            missing: MissingId::default(),
            fingerprint: Fingerprint::default(),
            replayed_within: Duration::from_secs(24 * 3600),
        }
    }
}

impl Identity {
    /// The claim for a message; `None` if it has no key and is to be handled without protection.
    ///
    /// # Errors
    /// Permanent ones: nothing of a message changes by showing it again.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(super) fn claim<'a>(
        &self,
        context: &'a Context,
        lease: Duration,
    ) -> Result<Option<ClaimRequest<'a>>, HandlerError> {
        let key = self.record_key(context, context.scope())?;
        key.map(|key| self.claim_of(context, key, lease)).transpose()
    }

    /// The claim of a message with that key.
    ///
    /// # Errors
    /// As above.
    pub(super) fn claim_of<'a>(
        &self,
        context: &'a Context,
        key: RecordKey,
        lease: Duration,
    ) -> Result<ClaimRequest<'a>, HandlerError> {
        let mut request = request(context, key, lease);
        request.fingerprint = self.fingerprint.of(context)?;
        Ok(request)
    }

    /// What of a message is compared, as it came: what is equal in that has the same fingerprint. Nothing if nothing is
    /// compared.
    pub(super) fn content<'a>(&self, context: &'a Context) -> Option<(&'a str, &'a Bytes)> {
        match self.fingerprint {
            Fingerprint::Off => None,
            Fingerprint::Payload | Fingerprint::Body => {
                Some((context.message_type(), &context.message().body))
            }
        }
    }

    /// The message's key within a scope; `None` if it has none and is to go on without.
    ///
    /// # Errors
    /// As above.
    pub(super) fn record_key(
        &self,
        context: &Context,
        scope: &Arc<str>,
    ) -> Result<Option<RecordKey>, HandlerError> {
        if let (true, Some(id)) = (self.key.is_message_id(), context.message_id()) {
            return Ok(Some(RecordKey::of_message(scope, id)));
        }
        let text = match self.key.text(context)? {
            Some(text) => text,
            None => match self.missing {
                MissingId::Unprotected => return Ok(None),
                MissingId::FromContent => Fingerprint::content_id(context)?,
                MissingId::DeadLetter => {
                    let error = self.key.what_is_missing();
                    return Err(HandlerError::dead(DeadReason::MissingId, error));
                }
            },
        };
        RecordKey::new(Arc::clone(scope), text)
            .map(Some)
            .map_err(|error| HandlerError::dead(DeadReason::Malformed, UnusableKey { error }))
    }

    /// Says why the key can be no message's, if it cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        self.key.problem().map_or(Ok(()), Err)
    }

    /// S38: says if a copy may come when its record is gone.
    pub(super) fn warnings(
        &self,
        kept: Option<Retention>,
        surroundings: &Surroundings,
    ) -> Vec<String> {
        let Some(window) = kept.and_then(|retention| retention.of_done()) else {
            return Vec::new();
        };
        let (retries, replayed) = (surroundings.retry_schedule, self.replayed_within);
        let needed = retries.saturating_add(replayed);
        if window >= needed {
            return Vec::new();
        }
        vec![format!(
            "duplicates are recognised for {window:?} after the work was done, but a copy may come \
             up to {needed:?} later, and then runs again: its retries may take {retries:?}, and dead \
             letters may be replayed for {replayed:?}. Raise .window(…), retry for a shorter time, \
             or say with .replayed_within(…) that dead letters are replayed sooner or never"
        )]
    }
}

/// A claim of a key for a message, whose content is not compared.
pub(super) fn request<'a>(
    context: &'a Context,
    key: RecordKey,
    lease: Duration,
) -> ClaimRequest<'a> {
    let claimant = Claimant {
        service: context.service(),
        subscription: context.subscription(),
        instance: context.instance(),
    };
    let mut request = ClaimRequest::new(key, claimant, lease);
    request.correlation_id = context.meta().correlation_id.as_ref().map(AsRef::as_ref);
    request.message_type = context.message_type();
    request.trace = context.trace_parent();
    request
}

/// A key that no store is asked about.
#[derive(Debug, thiserror::Error)]
#[error("the message's key cannot be used: {error}")]
struct UnusableKey {
    error: mmate_core::InvalidId,
}
