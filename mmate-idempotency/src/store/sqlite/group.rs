//! Claims of a group of messages, in one statement.

use std::collections::HashMap;
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::SqliteStore;
use super::failure::failed;
use super::rows::{self, grant};
use crate::protocol::Claim;
use crate::store::sql::{Aim, millis};
use crate::store::{ClaimRequest, Permit, StoreError, StoreErrorKind};

const CLAIMING: &str = "claim the keys of a group";
const COMPLETING: &str = "complete the claims of a group";

/// Claims different keys, within a transaction.
pub(super) async fn claim_all(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    requests: &[ClaimRequest<'_>],
) -> Result<Vec<Claim>, StoreError> {
    let columns = requests.iter().map(|request| {
        (
            request.key.scope(),
            request.key.id(),
            request.claimant.service,
            request.claimant.subscription,
            request.claimant.instance,
            request.correlation_id,
            request.message_type,
            request.fingerprint.map(|digest| hex(digest.as_bytes())),
            hex(request.owner.as_bytes()),
            request.trace.map(|trace| trace.to_string()),
        )
    });
    let rows = sqlx::query(AssertSqlSafe(store.table.claim_all.clone()))
        .bind(store.now())
        .bind(json(&columns.collect::<Vec<_>>(), CLAIMING)?)
        .bind(millis(store.retention.of_failures()))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed(CLAIMING))?;
    let mut grants = HashMap::with_capacity(rows.len());
    for row in &rows {
        let key: (&str, &str) = (
            row.try_get("scope").map_err(failed(CLAIMING))?,
            row.try_get("message_id").map_err(failed(CLAIMING))?,
        );
        grants.insert(key, grant(row).map_err(failed(CLAIMING))?);
    }
    let mut claims = Vec::with_capacity(requests.len());
    for request in requests {
        claims.push(match grants.remove(&(request.key.scope(), request.key.id())) {
            Some(grant) => Claim::Granted(grant),
            // Why it was not granted.
            None => rows::claim(store, connection, request, Aim::Work).await?,
        });
    }
    Ok(claims)
}

/// Completes claims, within their transaction: whether all of them were there.
pub(super) async fn complete_all(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    permits: &[Permit],
) -> Result<bool, StoreError> {
    let columns = permits.iter().map(|permit| {
        (permit.key().scope(), permit.key().id(), hex(permit.holder().owner.as_bytes()))
    });
    let completed = sqlx::query(AssertSqlSafe(store.table.complete_all.clone()))
        .bind(store.now())
        .bind(json(&columns.collect::<Vec<_>>(), COMPLETING)?)
        .bind(store.retention.of_done().map(millis))
        .execute(connection)
        .await
        .map_err(failed(COMPLETING))?;
    Ok(completed.rows_affected() == permits.len() as u64)
}

fn json<T: serde::Serialize>(columns: &T, attempted: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(columns)
        .map_err(|error| StoreError::new(StoreErrorKind::Permanent, attempted, error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a String never fails.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
