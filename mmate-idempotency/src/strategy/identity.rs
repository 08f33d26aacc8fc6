//! Who a message is: its key, and what it contains.

use std::time::Duration;

use mmate_core::{BoxError, Context, DeadReason, HandlerError};

use super::{Fingerprint, Key, MissingId};
use crate::store::{ClaimRequest, Claimant, RecordKey};

/// How a strategy tells messages apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) key: Key,
    pub(super) missing: MissingId,
    pub(super) fingerprint: Fingerprint,
}

impl Identity {
    /// The claim for a message; `None` if it has no key and is to be handled without protection.
    ///
    /// # Errors
    /// Permanent ones: nothing of a message changes by showing it again.
    pub(super) fn claim<'a>(
        &self,
        context: &'a Context,
        lease: Duration,
    ) -> Result<Option<ClaimRequest<'a>>, HandlerError> {
        let Some(key) = self.record_key(context)? else { return Ok(None) };
        let claimant = Claimant {
            service: context.service(),
            subscription: context.subscription(),
            instance: context.instance(),
        };
        let mut request = ClaimRequest::new(key, claimant, lease);
        request.fingerprint = self.fingerprint.of(context)?;
        request.correlation_id = context.meta().correlation_id.as_ref().map(AsRef::as_ref);
        request.message_type = context.message_type();
        Ok(Some(request))
    }

    fn record_key(&self, context: &Context) -> Result<Option<RecordKey>, HandlerError> {
        let scope = context.scope();
        if let (true, Some(id)) = (self.key.is_message_id(), context.message_id()) {
            return Ok(Some(RecordKey::of_message(scope, id)));
        }
        let malformed = |error: BoxError| HandlerError::dead(DeadReason::Malformed, error);
        let text = match self.key.text(context).map_err(|error| malformed(error.into()))? {
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
        RecordKey::new(scope.clone(), text)
            .map(Some)
            .map_err(|error| malformed(UnusableKey { error }.into()))
    }
}

/// A key that no store is asked about.
#[derive(Debug, thiserror::Error)]
#[error("the message's key cannot be used: {error}")]
struct UnusableKey {
    error: mmate_core::InvalidId,
}
