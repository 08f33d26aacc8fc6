//! Claiming: what goes into a row, and what comes out of it.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::SqliteStore;
use super::failure::failed;
use crate::protocol::{
    Claim, Command, Digest, Done, Grant, Owner, Record, State, Time, Verdict, Work, step,
};
use crate::store::{ClaimRequest, StoreError, StoreErrorKind};

/// What a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To work under a lease, and to complete later.
    Work,
    /// To be done with it when the transaction commits.
    Done,
}

/// How often the record may change between the claim and the look at why it was not granted.
const ROUNDS: usize = 16;

pub(super) async fn claim(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    request: &ClaimRequest<'_>,
    aim: Aim,
) -> Result<Claim, StoreError> {
    for _ in 0..ROUNDS {
        if let Some(grant) = try_claim(store, connection, request, aim).await? {
            return Ok(Claim::Granted(grant));
        }
        // Whoever has it may be done or gone by now: then the claim is tried again.
        match look(store, connection, request).await? {
            Claim::Granted(_) => {}
            refusal => return Ok(refusal),
        }
    }
    let text = "the record changed at each look";
    Err(StoreError::new(StoreErrorKind::Unavailable, CLAIMING, text))
}

const CLAIMING: &str = "claim a key";

async fn try_claim(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    request: &ClaimRequest<'_>,
    aim: Aim,
) -> Result<Option<Grant>, StoreError> {
    let (status, lease, kept) = match aim {
        Aim::Work => {
            let lease = millis(request.lease);
            let kept = lease.saturating_add(millis(store.retention.of_failures()));
            ("in progress", Some(lease), Some(kept))
        }
        Aim::Done => ("done", None, store.retention.of_done().map(millis)),
    };
    let row = sqlx::query(AssertSqlSafe(store.table.claim.clone()))
        .bind(store.now())
        .bind(request.key.scope())
        .bind(request.key.id())
        .bind(status)
        .bind(request.claimant.service)
        .bind(request.claimant.subscription)
        .bind(request.claimant.instance)
        .bind(request.correlation_id)
        .bind(request.message_type)
        .bind(request.fingerprint.map(|digest| digest.as_bytes().to_vec()))
        .bind(&request.owner.as_bytes()[..])
        .bind(lease)
        .bind(kept)
        .fetch_optional(connection)
        .await
        .map_err(failed(CLAIMING))?;
    row.map(|row| grant(&row).map_err(failed(CLAIMING))).transpose()
}

fn grant(row: &SqliteRow) -> sqlx::Result<Grant> {
    Ok(Grant {
        fence: row.try_get::<i64, _>("fence")?.unsigned_abs(),
        attempt: attempt(row)?,
        taken_over: row.try_get("taken_over")?,
    })
}

/// What the record says to the claim. The protocol's own function is asked, so that the statement
/// and the answer cannot disagree for long.
async fn look(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    request: &ClaimRequest<'_>,
) -> Result<Claim, StoreError> {
    let row = sqlx::query(AssertSqlSafe(store.table.look.clone()))
        .bind(store.now())
        .bind(request.key.scope())
        .bind(request.key.id())
        .fetch_optional(connection)
        .await
        .map_err(failed(CLAIMING))?;
    let (record, now) = match row {
        Some(row) => record(&row).map_err(failed(CLAIMING))?,
        None => (None, Time::default()),
    };
    let command = Command::Claim {
        owner: request.owner,
        by: request.claimant.subscription.into(),
        fingerprint: request.fingerprint,
        lease: request.lease,
    };
    match step(record, command, now, &store.retention).1 {
        Verdict::Claim(claim) => Ok(claim),
        Verdict::Held(_) | Verdict::Purged(_) => unreachable!("a claim is answered by a claim"),
    }
}

fn record(row: &SqliteRow) -> sqlx::Result<(Option<Record>, Time)> {
    let time = |name| row.try_get::<Option<i64>, _>(name).map(|at| at.map(moment));
    let by = || row.try_get::<&str, _>("subscription").map(Into::into);
    let fingerprint = || -> sqlx::Result<_> {
        let bytes: Option<&[u8]> = row.try_get("fingerprint")?;
        Ok(bytes.and_then(sixteen).map(Digest::from_bytes))
    };
    let forever = Time::from_millis(i64::MAX as u64);
    let state = match row.try_get::<&str, _>("status")? {
        "done" => State::Done(Done {
            by: by()?,
            fingerprint: fingerprint()?,
            since: time("since")?.unwrap_or_default(),
            until: time("expires_at")?,
            reply: row.try_get::<Option<Vec<u8>>, _>("reply")?.map(Into::into),
        }),
        "released" => State::Released {
            attempt: attempt(row)?,
            until: time("expires_at")?.unwrap_or(forever),
        },
        _ => State::InProgress(Work {
            owner: Owner::from_bytes(sixteen(row.try_get("owner")?).unwrap_or_default()),
            by: by()?,
            attempt: attempt(row)?,
            taken_over: row.try_get("taken_over")?,
            fingerprint: fingerprint()?,
            lease_until: time("lease_until")?.unwrap_or_default(),
            until: time("expires_at")?.unwrap_or(forever),
        }),
    };
    let fence = row.try_get::<i64, _>("fence")?.unsigned_abs();
    let now = moment(row.try_get("now")?);
    Ok((Some(Record::new(fence, state)), now))
}

fn attempt(row: &SqliteRow) -> sqlx::Result<u32> {
    Ok(u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX))
}

fn moment(millis: i64) -> Time {
    Time::from_millis(millis.unsigned_abs())
}

fn sixteen(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

/// Rounded up as the protocol does, and small enough that no sum in a statement overflows.
pub(super) fn millis(duration: Duration) -> i64 {
    let millis = (Time::default() + duration).as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX).min(i64::MAX / 8)
}
