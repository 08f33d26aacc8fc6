//! A row of the table, as the protocol sees it.

use std::time::Duration;

use sqlx::{ColumnIndex, Decode, FromRow, Type};

use crate::protocol::{
    Claim, Command, Digest, Done, Owner, Record, Retention, State, Time, Verdict, Work, step,
};
use crate::store::ClaimRequest;

/// What a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To work under a lease, and to complete later.
    Work,
    /// To be done with it when the transaction commits.
    Done,
}

/// A row of the table, with the time at which it was read. Times are in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) status: String,
    pub(crate) subscription: String,
    pub(crate) fingerprint: Option<Vec<u8>>,
    pub(crate) owner: Vec<u8>,
    pub(crate) fence: i64,
    pub(crate) attempt: i64,
    pub(crate) taken_over: bool,
    pub(crate) lease_until: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    /// Since when it is done.
    pub(crate) since: Option<i64>,
    pub(crate) reply: Option<Vec<u8>>,
    pub(crate) trace: Option<String>,
    pub(crate) now: i64,
}

impl<'r, R> FromRow<'r, R> for Row
where
    R: sqlx::Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    Option<Vec<u8>>: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            status: row.try_get("status")?,
            subscription: row.try_get("subscription")?,
            fingerprint: row.try_get("fingerprint")?,
            owner: row.try_get("owner")?,
            fence: row.try_get("fence")?,
            attempt: row.try_get("attempt")?,
            taken_over: row.try_get("taken_over")?,
            lease_until: row.try_get("lease_until")?,
            expires_at: row.try_get("expires_at")?,
            since: row.try_get("since")?,
            reply: row.try_get("reply")?,
            trace: row.try_get("trace_parent")?,
            now: row.try_get("now")?,
        })
    }
}

impl Row {
    /// What the record says to a claim. The protocol's own function is asked, so that a statement
    /// and the answer cannot disagree for long. Without a row the claim would be granted, and so it
    /// is where the record has changed since the statement refused it: then it is tried again.
    pub(crate) fn answer(
        row: Option<Self>,
        request: &ClaimRequest<'_>,
        retention: &Retention,
    ) -> Claim {
        let now = row.as_ref().map_or_else(Time::default, |row| moment(row.now));
        let command = Command::Claim {
            owner: request.owner,
            by: request.claimant.subscription.into(),
            fingerprint: request.fingerprint,
            lease: request.lease,
            trace: request.trace,
        };
        match step(row.map(Self::into_record), command, now, retention).1 {
            Verdict::Claim(claim) => claim,
            Verdict::Held(_) | Verdict::Purged(_) => unreachable!("a claim is answered by a claim"),
        }
    }

    fn into_record(self) -> Record {
        let time = |at: Option<i64>| at.map(moment);
        let forever = Time::from_millis(i64::MAX as u64);
        let fingerprint = self.fingerprint.as_deref().and_then(sixteen).map(Digest::from_bytes);
        let attempt = u32::try_from(self.attempt).unwrap_or(u32::MAX);
        let by = self.subscription.as_str().into();
        let until = time(self.expires_at);
        let trace = self.trace.as_deref().and_then(|text| text.parse().ok());
        let state = match self.status.as_str() {
            "done" => State::Done(Done {
                by,
                fingerprint,
                since: time(self.since).unwrap_or_default(),
                until,
                reply: self.reply.map(Into::into),
                trace,
            }),
            "released" => State::Released { attempt, until: until.unwrap_or(forever) },
            _ => State::InProgress(Work {
                owner: Owner::from_bytes(sixteen(&self.owner).unwrap_or_default()),
                by,
                attempt,
                taken_over: self.taken_over,
                fingerprint,
                lease_until: time(self.lease_until).unwrap_or_default(),
                until: until.unwrap_or(forever),
                trace,
            }),
        };
        Record::new(self.fence.unsigned_abs(), state)
    }
}

fn moment(millis: i64) -> Time {
    Time::from_millis(millis.unsigned_abs())
}

fn sixteen(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

/// Rounded up as the protocol does, and small enough that no sum in a statement overflows.
pub(crate) fn millis(duration: Duration) -> i64 {
    let millis = (Time::default() + duration).as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX).min(i64::MAX / 8)
}
