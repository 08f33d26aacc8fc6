//! Claims of keys that no record is there of.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::records::Records;
use super::rows::{claim, of_claims, status, times};
use crate::protocol::{Claim, Grant};
use crate::store::claim_call::ClaimCall;
use crate::store::sql::Aim;

/// The answers to claims of different keys, in their order, within a transaction. As a rule no record
/// is there of any, and then this asks less of the database than [`claim`].
pub(super) async fn insert_or_claim(
    records: &Records,
    connection: &mut PgConnection,
    claims: &[&ClaimCall],
    aim: Aim,
) -> sqlx::Result<Vec<Claim>> {
    if let [call] = claims {
        return match insert_one(records, &mut *connection, call, aim).await? {
            Some(grant) => Ok(vec![grant]),
            None => claim(records, connection, claims, aim, None).await,
        };
    }
    let query = sqlx::query(AssertSqlSafe(records.table.insert.clone())).bind(records.now());
    let rows = of_claims(records, query, claims, aim).fetch_all(&mut *connection).await?;
    if rows.len() == claims.len() {
        // All rows have the same.
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        return Ok(vec![grant(row)?; claims.len()]);
    }
    let mut granted = HashMap::with_capacity(rows.len());
    for row in &rows {
        granted.insert((row.try_get::<&str, _>(1)?, row.try_get::<&str, _>(2)?), grant(row)?);
    }
    let of = |call: &&ClaimCall| granted.get(&(call.key.scope(), call.key.id())).cloned();
    let left: Vec<_> = claims.iter().copied().filter(|call| of(call).is_none()).collect();
    let mut others = claim(records, connection, &left, aim, None).await?.into_iter();
    Ok(claims.iter().filter_map(|call| of(call).or_else(|| others.next())).collect())
}

/// The grant, if there was no record.
async fn insert_one(
    records: &Records,
    connection: &mut PgConnection,
    call: &ClaimCall,
    aim: Aim,
) -> sqlx::Result<Option<Claim>> {
    let (lease, kept) = times(records, call, aim);
    let row = sqlx::query(AssertSqlSafe(records.table.insert_one.clone()))
        .bind(records.now())
        .bind(status(aim))
        .bind(call.key.scope())
        .bind(call.key.id())
        .bind(&*call.service)
        .bind(&*call.subscription)
        .bind(&*call.instance)
        .bind(call.correlation_id.as_deref())
        .bind(&*call.message_type)
        .bind(call.fingerprint.as_ref().map(|digest| &digest.as_bytes()[..]))
        .bind(&call.owner.as_bytes()[..])
        .bind(lease)
        .bind(kept)
        .bind(call.trace.map(|trace| trace.to_string()))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(grant).transpose()
}

fn grant(row: &PgRow) -> sqlx::Result<Claim> {
    let fence = row.try_get::<i64, _>(0)?.unsigned_abs();
    Ok(Claim::Granted(Grant { fence, attempt: 1, taken_over: false }))
}
