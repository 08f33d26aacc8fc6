//! The records, and how many calls about them are answered in one round trip.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{sleep, timeout};

use super::failure::{failed, is_conflict, is_lock_timeout, not_reached};
use super::hand::{Hand, Source};
use super::insert::insert_or_claim;
use super::rows;
use super::table::Table;
use crate::protocol::{Claim, Held, Retention, Verdict};
use crate::store::claim_call::ClaimCall;
use crate::store::coalesce::{Call, Together};
use crate::store::sql::Aim;
use crate::store::{ClaimRequest, ManualClock, Permit, StoreError, StoreErrorKind};

/// The records in a table.
#[derive(Clone)]
pub(crate) struct Records {
    pub(super) source: Source,
    pub(super) table: Table,
    pub(super) retention: Retention,
    pub(super) clock: Option<ManualClock>,
}

/// How long a statement on many records waits for one that somebody else has locked. Only
/// transactions that claim by themselves, and somebody at the console, lock one for long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_TIMEOUT_TEXT: &str = "2s";

/// How long an answer may take. A connection without one is closed: who waits for an answer on a
/// dead connection waits for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a statement is repeated that was rolled back in favour of others.
const ROUNDS: u32 = 16;

impl Records {
    /// What a clock for tests says; PostgreSQL's own is asked where this is absent.
    pub(super) fn now(&self) -> Option<i64> {
        let now = self.clock.as_ref()?.now().as_millis();
        Some(i64::try_from(now).unwrap_or(i64::MAX))
    }

    pub(super) fn lock_timeout(&self) -> &'static str {
        LOCK_TIMEOUT_TEXT
    }

    pub(super) async fn hand(&self, attempted: &'static str) -> Result<Hand, StoreError> {
        self.source.hand().await.map_err(not_reached(attempted))
    }

    pub(super) async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        const PURGING: &str = "purge records";
        within(PURGING, async {
            let mut hand = self.hand(PURGING).await?;
            let mut round = 0;
            let done = loop {
                let done = rows::purge(self, &mut hand, at_most).await;
                if !give_way(&done, &mut round).await {
                    break done;
                }
            };
            hand.give_back(done).map_err(failed(PURGING))
        })
        .await
    }

    /// Claims within a transaction, and is done with it when that commits. It waits for others as
    /// long as the transaction's `lock_timeout` says.
    pub(crate) async fn claim_in_transaction(
        &self,
        connection: &mut PgConnection,
        call: &ClaimCall,
    ) -> Result<Claim, StoreError> {
        match insert_or_claim(self, connection, &[call], Aim::Done).await {
            Ok(claims) => claims.into_iter().next().ok_or_else(|| {
                StoreError::new(StoreErrorKind::Unknown, CLAIMING, "no answer came")
            }),
            Err(error) if is_lock_timeout(&error) => Ok(LOCKED),
            Err(error) => Err(failed(CLAIMING)(error)),
        }
    }

    /// Claims for a group within its transaction, to be completed before that commits.
    pub(crate) async fn claim_all_in_transaction(
        &self,
        connection: &mut PgConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        let calls: Vec<_> = requests.iter().map(ClaimCall::from).collect();
        let calls: Vec<_> = calls.iter().collect();
        let claims = insert_or_claim(self, connection, &calls, Aim::Work).await;
        claims.map_err(failed(CLAIMING))
    }

    /// Completes what a group has claimed: whether all of it was there.
    pub(crate) async fn complete_all_in_transaction(
        &self,
        connection: &mut PgConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        let permits: Vec<_> = permits.iter().map(|permit| (permit, None)).collect();
        let held = rows::complete(self, connection, &permits).await;
        Ok(held.map_err(failed("complete the claims of a group"))?.into_iter().all(|held| held))
    }

    /// Adds the answer to a record that is done, within the transaction that made it so.
    pub(crate) async fn answer_in_transaction(
        &self,
        connection: &mut PgConnection,
        permit: &Permit,
        reply: &[u8],
    ) -> Result<(), StoreError> {
        let holder = permit.holder();
        sqlx::query(AssertSqlSafe(Arc::clone(&self.table.answer)))
            .bind(permit.key().scope())
            .bind(permit.key().id())
            .bind(&holder.owner.as_bytes()[..])
            .bind(i64::try_from(holder.fence).unwrap_or(i64::MAX))
            .bind(reply)
            .execute(connection)
            .await
            .map(drop)
            .map_err(failed("keep an answer"))
    }

    /// On a connection of its own, once.
    async fn ask(&self, calls: &[Call], attempted: &'static str) -> Result<Asked, StoreError> {
        within(attempted, async {
            let mut hand = self.hand(attempted).await?;
            let answer = match self.insist(&mut hand, calls).await {
                Ok(verdicts) => Ok(Asked::Verdicts(verdicts)),
                Err(error) if is_lock_timeout(&error) => Ok(Asked::Locked(error)),
                Err(error) => Err(error),
            };
            hand.give_back(answer).map_err(failed(attempted))
        })
        .await
    }

    async fn insist(
        &self,
        connection: &mut PgConnection,
        calls: &[Call],
    ) -> sqlx::Result<Vec<Verdict>> {
        let mut round = 0;
        loop {
            let done = self.on(connection, calls).await;
            if !give_way(&done, &mut round).await {
                return done;
            }
        }
    }

    /// One statement for each kind of call.
    async fn on(
        &self,
        connection: &mut PgConnection,
        calls: &[Call],
    ) -> sqlx::Result<Vec<Verdict>> {
        let mut verdicts = vec![Verdict::Held(Held::Refused); calls.len()];
        let mut put = |indices: Vec<usize>, held: Vec<bool>| {
            for (index, held) in indices.into_iter().zip(held) {
                let held = if held { Held::Yes } else { Held::Refused };
                verdicts[index] = Verdict::Held(held);
            }
        };
        let (at, these) = pick(calls, |call| match call {
            Call::Complete { permit, reply } => Some((permit, reply.as_ref())),
            _ => None,
        });
        if !these.is_empty() {
            put(at, rows::complete(self, connection, &these).await?);
        }
        let (at, these) = pick(calls, |call| match call {
            Call::Heartbeat { permit, lease } => Some((permit, *lease)),
            _ => None,
        });
        if !these.is_empty() {
            put(at, rows::heartbeat(self, connection, &these).await?);
        }
        let (at, these) = pick(calls, |call| match call {
            Call::Release { permit } => Some(permit),
            _ => None,
        });
        if !these.is_empty() {
            put(at, rows::release(self, connection, &these).await?);
        }
        let (at, these) = pick(calls, |call| match call {
            Call::Claim(claim) => Some(&**claim),
            _ => None,
        });
        if !these.is_empty() {
            let timeout = Some(self.lock_timeout());
            let claims = rows::claim(self, connection, &these, Aim::Work, timeout).await?;
            for (index, claim) in at.into_iter().zip(claims) {
                verdicts[index] = Verdict::Claim(claim);
            }
        }
        Ok(verdicts)
    }
}

const CLAIMING: &str = "claim a key";

/// The answer to a claim of a record that somebody else has locked: who works on it in a
/// transaction holds no lease.
const LOCKED: Claim = Claim::Busy { remaining: LOCK_TIMEOUT };

enum Asked {
    Verdicts(Vec<Verdict>),
    Locked(sqlx::Error),
}

#[async_trait]
impl Together for Records {
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
        let Some(first) = calls.first() else { return Ok(Vec::new()) };
        let error = match self.ask(calls, first.attempted()).await? {
            Asked::Verdicts(verdicts) => return Ok(verdicts),
            Asked::Locked(error) => error,
        };
        match calls {
            [Call::Claim(_)] => Ok(vec![Verdict::Claim(LOCKED)]),
            [_] => Err(failed(first.attempted())(error)),
            // One record is locked: that is not to keep the others waiting.
            _ => {
                let mut verdicts = Vec::with_capacity(calls.len());
                for call in calls {
                    verdicts.extend(self.answer(std::slice::from_ref(call)).await?);
                }
                Ok(verdicts)
            }
        }
    }
}

/// Whether a statement is to be repeated, since it was rolled back in favour of others, as happens
/// at isolation levels above READ COMMITTED. Waits a moment then.
async fn give_way<T>(done: &sqlx::Result<T>, round: &mut u32) -> bool {
    let gives_way = done.as_ref().is_err_and(is_conflict) && *round < ROUNDS;
    if gives_way {
        *round += 1;
        sleep(Duration::from_millis(fastrand::u64(..1 << (*round).min(6)))).await;
    }
    gives_way
}

/// Those of a kind, and where they are among all.
fn pick<'a, T>(calls: &'a [Call], of_kind: impl Fn(&'a Call) -> Option<T>) -> (Vec<usize>, Vec<T>) {
    let all = calls.iter().enumerate();
    all.filter_map(|(index, call)| Some((index, of_kind(call)?))).unzip()
}

/// An answer, bounded in time.
pub(super) async fn within<T>(
    attempted: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let text = format!("no answer within {ANSWER_TIMEOUT:?}");
        Err(StoreError::new(StoreErrorKind::Unknown, attempted, text))
    })
}
