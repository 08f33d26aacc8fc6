//! A claim that waits.

use std::time::Duration;

use mmate_core::TraceParent;

use super::{ClaimRequest, RecordKey};
use crate::protocol::{Digest, Owner};

/// A [`ClaimRequest`] that owns what it says.
#[derive(Debug, Clone)]
pub(crate) struct ClaimCall {
    pub(crate) key: RecordKey,
    pub(crate) owner: Owner,
    pub(crate) fingerprint: Option<Digest>,
    pub(crate) lease: Duration,
    pub(crate) service: String,
    pub(crate) subscription: String,
    pub(crate) instance: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) message_type: String,
    pub(crate) trace: Option<TraceParent>,
}

impl From<&ClaimRequest<'_>> for ClaimCall {
    fn from(request: &ClaimRequest<'_>) -> Self {
        Self {
            key: request.key.clone(),
            owner: request.owner,
            fingerprint: request.fingerprint,
            lease: request.lease,
            service: request.claimant.service.to_owned(),
            subscription: request.claimant.subscription.to_owned(),
            instance: request.claimant.instance.to_owned(),
            correlation_id: request.correlation_id.map(str::to_owned),
            message_type: request.message_type.to_owned(),
            trace: request.trace,
        }
    }
}
