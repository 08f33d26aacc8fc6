//! What goes into statements, and what comes out of them. Each is about many records.

use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres, Row as _};

use super::records::Records;
use crate::protocol::{Claim, Grant};
use crate::store::claim_call::ClaimCall;
use crate::store::sql::{Aim, Row, millis};
use crate::store::{ClaimRequest, Claimant, Permit};

/// How often a record may change between the claim and the look at why it was not granted.
const ROUNDS: usize = 16;

/// The answers to claims of different keys, in their order. Waits for others as long as
/// `lock_timeout` says, if there is one.
pub(super) async fn claim(
    records: &Records,
    connection: &mut PgConnection,
    claims: &[&ClaimCall],
    aim: Aim,
    lock_timeout: Option<&str>,
) -> sqlx::Result<Vec<Claim>> {
    let mut answers = vec![None; claims.len()];
    let mut left: Vec<usize> = (0..claims.len()).collect();
    for _ in 0..ROUNDS {
        let asked: Vec<&ClaimCall> = left.iter().map(|index| claims[*index]).collect();
        let rows = try_claim(records, connection, &asked, aim, lock_timeout).await?;
        if rows.len() != asked.len() {
            let text = format!("{} answers to {} claims", rows.len(), asked.len());
            return Err(sqlx::Error::Protocol(text));
        }
        let mut next = Vec::new();
        for (index, row) in left.into_iter().zip(rows) {
            answers[index] = said(records, claims[index], &row)?;
            if answers[index].is_none() {
                next.push(index);
            }
        }
        if next.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        left = next;
    }
    Err(sqlx::Error::Protocol("the record changed at each look".to_owned()))
}

async fn try_claim(
    records: &Records,
    connection: &mut PgConnection,
    claims: &[&ClaimCall],
    aim: Aim,
    lock_timeout: Option<&str>,
) -> sqlx::Result<Vec<PgRow>> {
    let query = sqlx::query(AssertSqlSafe(records.table.claim.clone()))
        .bind(records.now())
        .bind(lock_timeout);
    of_claims(records, query, claims, aim).fetch_all(connection).await
}

/// What a record that is claimed is then.
pub(super) fn status(aim: Aim) -> &'static str {
    match aim {
        Aim::Work => "in progress",
        Aim::Done => "done",
    }
}

/// How long the lease of a claim is, and for how long its record is kept.
pub(super) fn times(records: &Records, call: &ClaimCall, aim: Aim) -> (Option<i64>, Option<i64>) {
    match aim {
        Aim::Work => {
            let lease = millis(call.lease);
            (Some(lease), Some(lease.saturating_add(millis(records.retention.of_failures()))))
        }
        Aim::Done => (None, records.retention.of_done().map(millis)),
    }
}

/// What is asked of each, from the status on.
pub(super) fn of_claims<'q>(
    records: &Records,
    query: Query<'q>,
    claims: &[&'q ClaimCall],
    aim: Aim,
) -> Query<'q> {
    let (lease, kept): (Vec<_>, Vec<_>) =
        claims.iter().map(|call| times(records, call, aim)).unzip();
    let texts = |text: fn(&ClaimCall) -> &str| -> Vec<&str> {
        claims.iter().map(|call| text(call)).collect()
    };
    let correlation: Vec<_> = claims.iter().map(|call| call.correlation_id.as_deref()).collect();
    let fingerprint =
        claims.iter().map(|call| call.fingerprint.as_ref().map(|digest| &digest.as_bytes()[..]));
    let traces = claims.iter().map(|call| call.trace.map(|trace| trace.to_string()));
    let owner = claims.iter().map(|call| &call.owner.as_bytes()[..]);
    query
        .bind(status(aim))
        .bind(texts(|call| call.key.scope()))
        .bind(texts(|call| call.key.id()))
        .bind(texts(|call| &call.service))
        .bind(texts(|call| &call.subscription))
        .bind(texts(|call| &call.instance))
        .bind(correlation)
        .bind(texts(|call| &call.message_type))
        .bind(fingerprint.collect::<Vec<_>>())
        .bind(owner.collect::<Vec<_>>())
        .bind(lease)
        .bind(kept)
        .bind(traces.collect::<Vec<_>>())
}

/// What a row says to a claim. Nothing, where the record has changed since the statement began:
/// then it is tried again.
fn said(records: &Records, call: &ClaimCall, row: &PgRow) -> sqlx::Result<Option<Claim>> {
    if let Some(fence) = row.try_get::<Option<i64>, _>("granted_fence")? {
        let attempt = row.try_get::<i64, _>("granted_attempt")?;
        return Ok(Some(Claim::Granted(Grant {
            fence: fence.unsigned_abs(),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            taken_over: row.try_get("granted_taken_over")?,
        })));
    }
    let is_there = row.try_get::<Option<&str>, _>("status")?.is_some();
    let record = is_there.then(|| Row::from_row(row)).transpose()?;
    let claimant = Claimant { subscription: &call.subscription, ..Claimant::default() };
    let mut request = ClaimRequest::new(call.key.clone(), claimant, call.lease);
    (request.owner, request.fingerprint) = (call.owner, call.fingerprint);
    Ok(match Row::answer(record, &request, &records.retention) {
        Claim::Granted(_) => None,
        refusal => Some(refusal),
    })
}

/// Whether they held, in their order.
pub(super) async fn heartbeat(
    records: &Records,
    connection: &mut PgConnection,
    calls: &[(&Permit, Duration)],
) -> sqlx::Result<Vec<bool>> {
    let of_failures = millis(records.retention.of_failures());
    let permits: Vec<&Permit> = calls.iter().map(|(permit, _)| *permit).collect();
    let lease: Vec<i64> = calls.iter().map(|(_, lease)| millis(*lease)).collect();
    let kept: Vec<i64> = lease.iter().map(|lease| lease.saturating_add(of_failures)).collect();
    let query = of_holders(records, &records.table.heartbeat, &permits)
        .bind(lease)
        .bind(kept)
        .bind(count(calls.len()));
    held(connection, query, calls.len()).await
}

/// Whether they held, in their order.
pub(super) async fn complete(
    records: &Records,
    connection: &mut PgConnection,
    calls: &[(&Permit, Option<&Bytes>)],
) -> sqlx::Result<Vec<bool>> {
    let permits: Vec<&Permit> = calls.iter().map(|(permit, _)| *permit).collect();
    let replies: Vec<Option<&[u8]>> =
        calls.iter().map(|(_, reply)| reply.map(|r| &r[..])).collect();
    let query = of_holders(records, &records.table.complete, &permits)
        .bind(fences(&permits))
        .bind(replies)
        .bind(records.retention.of_done().map(millis))
        .bind(count(calls.len()));
    held(connection, query, calls.len()).await
}

/// Whether they held, in their order.
pub(super) async fn release(
    records: &Records,
    connection: &mut PgConnection,
    permits: &[&Permit],
) -> sqlx::Result<Vec<bool>> {
    let query = of_holders(records, &records.table.release, permits)
        .bind(fences(permits))
        .bind(millis(records.retention.of_failures()))
        .bind(count(permits.len()));
    held(connection, query, permits.len()).await
}

pub(super) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn of_holders<'q>(records: &Records, sql: &std::sync::Arc<str>, permits: &[&Permit]) -> Query<'q> {
    let owners = permits.iter().map(|permit| permit.holder().owner.as_bytes().to_vec());
    sqlx::query(AssertSqlSafe(sql.clone()))
        .bind(records.now())
        .bind(records.lock_timeout())
        .bind(permits.iter().map(|permit| permit.key().scope()).collect::<Vec<_>>())
        .bind(permits.iter().map(|permit| permit.key().id()).collect::<Vec<_>>())
        .bind(owners.collect::<Vec<_>>())
}

fn count(asked: usize) -> i64 {
    i64::try_from(asked).unwrap_or(i64::MAX)
}

fn fences(permits: &[&Permit]) -> Vec<i64> {
    let fence = |permit: &&Permit| i64::try_from(permit.fence()).unwrap_or(i64::MAX);
    permits.iter().map(fence).collect()
}

async fn held(
    connection: &mut PgConnection,
    query: Query<'_>,
    asked: usize,
) -> sqlx::Result<Vec<bool>> {
    let mut held = vec![false; asked];
    for row in query.fetch_all(connection).await? {
        let number = row.try_get::<i64, _>(0)?;
        let index = usize::try_from(number - 1).ok();
        if let Some(one) = index.and_then(|index| held.get_mut(index)) {
            *one = true;
        }
    }
    Ok(held)
}

/// Forgets up to so many records whose time is over.
pub(super) async fn purge(
    records: &Records,
    connection: &mut PgConnection,
    at_most: u32,
) -> sqlx::Result<u64> {
    let done = sqlx::query(AssertSqlSafe(records.table.purge.clone()))
        .bind(records.now())
        .bind(records.lock_timeout())
        .bind(i64::from(at_most))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
