//! Claims within the transaction of a handler.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Database, FromRow, MySql, MySqlConnection, MySqlPool, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::time::sleep;

use super::batch::{DEADLOCKS, no_answer};
use super::failure::{failed, is_deadlock, is_lock_wait_timeout, unreached};
use super::records::{Records, refusal};
use super::session::{BEGIN, Session, ask};
use crate::protocol::{Claim, Grant};
use crate::store::claim_call::ClaimCall;
use crate::store::sql::{Aim, Row};
use crate::store::{ClaimRequest, Permit, StoreError, StoreErrorKind};

/// By this the end of a transaction is noticed. Without it nobody would know: a `COMMIT` after the
/// handler's own, or after a statement that commits by itself as `CREATE TABLE` does, succeeds like
/// any other. So it does after a deadlock, which rolls all of it back, if the handler goes on.
const SAVEPOINT: &str = "SAVEPOINT mmate_transaction";

/// What is done after such an end is in no transaction. So that it is not committed, statement by
/// statement, the session commits nothing by itself meanwhile.
const COMMIT_NOTHING: &str = "SET SESSION autocommit = 0";
const COMMIT_AGAIN: &str = "SET SESSION autocommit = 1";

/// Fails if the transaction is not the one that was begun, and then commits nothing.
const COMMIT: &str = "RELEASE SAVEPOINT mmate_transaction; COMMIT";

pub(crate) async fn begin(pool: &MySqlPool) -> Result<PoolConnection<MySql>, StoreError> {
    const BEGINNING: &str = "begin a transaction";
    let mut session = Session::of(pool).await.map_err(unreached(BEGINNING))?;
    let begun = <MySql as Database>::TransactionManager::begin(
        &mut session,
        Some(AssertSqlSafe(format!("{COMMIT_NOTHING}; {BEGIN}; {SAVEPOINT}")).into_sql_str()),
    );
    begun.await.map_err(failed(BEGINNING))?;
    Ok(session.settled())
}

pub(crate) async fn commit(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    ask(connection, format!("{COMMIT}; {COMMIT_AGAIN}")).await?;
    forget_transaction(connection);
    Ok(())
}

pub(crate) async fn rollback(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    ask(connection, format!("ROLLBACK; {COMMIT_AGAIN}")).await?;
    forget_transaction(connection);
    Ok(())
}

/// sqlx thinks that the transaction is still open. It may roll it back: there is none.
fn forget_transaction(connection: &mut MySqlConnection) {
    <MySql as Database>::TransactionManager::start_rollback(connection);
}

impl Records {
    /// Claims, and is done with it when the transaction commits.
    pub(super) async fn claim_within(
        &self,
        connection: &mut MySqlConnection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        if let Some(text) = refusal(&request.key) {
            return Err(StoreError::new(StoreErrorKind::Permanent, CLAIMING, text));
        }
        let claim = ClaimCall::from(request);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.try_within(connection, request, &claim).await? {
                Ok(claim) => return Ok(claim),
                Err(error) => error,
            };
            // Whoever has the record has it in an open transaction.
            if is_lock_wait_timeout(&error) {
                return Ok(Claim::Busy { remaining: Duration::ZERO });
            }
            if !is_deadlock(&error) || tries > DEADLOCKS {
                return Err(failed(CLAIMING)(error));
            }
            sleep(Duration::from_millis(fastrand::u64(1..=10 * tries))).await;
            let again = format!("ROLLBACK; {BEGIN}; {SAVEPOINT}");
            ask(connection, again).await.map_err(failed(CLAIMING))?;
        }
    }

    /// Claims for a group, one after the other, to be completed before the transaction commits. A
    /// deadlock has undone all of it, and is an error.
    pub(super) async fn claim_all_within(
        &self,
        connection: &mut MySqlConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        let mut claims = Vec::with_capacity(requests.len());
        for request in requests {
            if let Some(text) = refusal(&request.key) {
                return Err(StoreError::new(StoreErrorKind::Permanent, CLAIMING, text));
            }
            let claim = ClaimCall::from(request);
            let mut statements = String::new();
            self.write_claims(&mut statements, &[(&claim, self.term(Aim::Work, claim.lease))]);
            statements.push_str(" FOR UPDATE");
            claims.push(match ask(connection, statements).await {
                Ok(answers) => {
                    let [_, look] = &answers[..] else { return Err(no_answer()) };
                    let row = look.rows.first().map(Row::from_row).transpose();
                    self.verdict(request, row.map_err(failed(CLAIMING))?)?
                }
                Err(error) if is_lock_wait_timeout(&error) => {
                    Claim::Busy { remaining: Duration::ZERO }
                }
                Err(error) => return Err(failed(CLAIMING)(error)),
            });
        }
        Ok(claims)
    }

    /// Completes what a group has claimed: whether all of it was there.
    pub(super) async fn complete_all_within(
        &self,
        connection: &mut MySqlConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        let mut statements = String::new();
        for (number, permit) in permits.iter().enumerate() {
            statements.push_str(if number == 0 { "" } else { "; " });
            self.write_complete(&mut statements, permit, None);
        }
        let answers = ask(connection, statements).await;
        let answers = answers.map_err(failed("complete the claims of a group"))?;
        Ok(answers.iter().filter(|answer| answer.matched > 0).count() == permits.len())
    }

    /// Adds the answer to a record that is done, within the transaction that made it so.
    pub(super) async fn answer_within(
        &self,
        connection: &mut MySqlConnection,
        permit: &Permit,
        reply: &[u8],
    ) -> Result<(), StoreError> {
        let mut statement = String::new();
        self.write_answer(&mut statement, permit, reply);
        ask(connection, statement).await.map(drop).map_err(failed("keep an answer"))
    }

    async fn try_within(
        &self,
        connection: &mut MySqlConnection,
        request: &ClaimRequest<'_>,
        claim: &ClaimCall,
    ) -> Result<sqlx::Result<Claim>, StoreError> {
        let mut statements = String::new();
        self.write_claims(&mut statements, &[(claim, self.term(Aim::Done, claim.lease))]);
        // The latest version, whatever the transaction's isolation: the claim has locked the row.
        statements.push_str(" FOR UPDATE; ");
        // Of another's claim nothing is completed: the owner is asked for.
        let grant = Grant { fence: 0, attempt: 1, taken_over: false };
        self.write_complete(&mut statements, &Permit::new(request, grant), None);

        let answers = match ask(connection, statements).await {
            Ok(answers) => answers,
            Err(error) => return Ok(Err(error)),
        };
        let [_, look, complete] = &answers[..] else { return Err(no_answer()) };
        let row = look.rows.first().map(Row::from_row).transpose().map_err(failed(CLAIMING))?;
        let claim = self.verdict(request, row)?;
        if matches!(claim, Claim::Granted(_)) && complete.matched == 0 {
            let text = "the record that was claimed cannot be completed";
            return Err(StoreError::new(StoreErrorKind::Permanent, CLAIMING, text));
        }
        Ok(Ok(claim))
    }
}

const CLAIMING: &str = "claim a key";
