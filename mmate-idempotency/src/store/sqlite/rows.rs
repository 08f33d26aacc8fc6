//! Claiming: what goes into a row, and what comes out of it.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::SqliteStore;
use super::failure::failed;
use crate::protocol::{Claim, Grant};
use crate::store::sql::{Aim, Row, millis};
use crate::store::{ClaimRequest, StoreError, StoreErrorKind};

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
        .bind(request.trace.map(|trace| trace.to_string()))
        .fetch_optional(connection)
        .await
        .map_err(failed(CLAIMING))?;
    row.map(|row| grant(&row).map_err(failed(CLAIMING))).transpose()
}

pub(super) fn grant(row: &SqliteRow) -> sqlx::Result<Grant> {
    Ok(Grant {
        fence: row.try_get::<i64, _>("fence")?.unsigned_abs(),
        attempt: u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX),
        taken_over: row.try_get("taken_over")?,
    })
}

/// What the record says to the claim.
async fn look(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    request: &ClaimRequest<'_>,
) -> Result<Claim, StoreError> {
    let row = sqlx::query_as::<_, Row>(AssertSqlSafe(store.table.look.clone()))
        .bind(store.now())
        .bind(request.key.scope())
        .bind(request.key.id())
        .fetch_optional(connection)
        .await
        .map_err(failed(CLAIMING))?;
    Ok(Row::answer(row, request, &store.retention))
}
