//! Connections, and round trips on them.

use std::ops::{Deref, DerefMut};

use futures_util::TryStreamExt;
use sqlx::mysql::MySqlRow;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Either, MySql, MySqlConnection, MySqlPool};

/// Begins a transaction in which nothing waits long for what others have locked: less than the
/// strategies wait for an answer, so that they learn why there is none. It is for the rest of the
/// session, and never longer than it was.
pub(super) const BEGIN: &str = "SET SESSION innodb_lock_wait_timeout = \
     LEAST(@@SESSION.innodb_lock_wait_timeout, 4); START TRANSACTION";

/// How many statements that is.
pub(super) const ANSWERS_OF_BEGIN: usize = 2;

/// A connection that goes back to its pool only if what was done with it came to its end. One that
/// was dropped in between may have a transaction open, or a lock, and is closed.
pub(crate) struct Session {
    /// Absent only while it is dropped.
    connection: Option<PoolConnection<MySql>>,
}

impl Session {
    pub(crate) async fn of(pool: &MySqlPool) -> sqlx::Result<Self> {
        Ok(Self { connection: Some(pool.acquire().await?) })
    }

    /// The connection is in order.
    pub(crate) fn settled(mut self) -> PoolConnection<MySql> {
        self.connection.take().expect(THERE)
    }
}

const THERE: &str = "the connection is there until it is settled or dropped";

impl Deref for Session {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        self.connection.as_ref().expect(THERE)
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        self.connection.as_mut().expect(THERE)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

/// What one statement of a round trip answers.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<MySqlRow>,
    /// How many rows its condition fits, whether they were changed or not.
    pub(super) matched: u64,
}

/// Makes a round trip: asks statements, divided by semicolons, one after the other. The first error
/// ends it, and those behind it are not executed.
pub(super) async fn ask(
    connection: &mut MySqlConnection,
    statements: String,
) -> sqlx::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut answer = Answer::default();
    let mut parts = sqlx::raw_sql(AssertSqlSafe(statements)).fetch_many(connection);
    while let Some(part) = parts.try_next().await? {
        match part {
            Either::Right(row) => answer.rows.push(row),
            Either::Left(end) => {
                answer.matched = end.rows_affected();
                answers.push(std::mem::take(&mut answer));
            }
        }
    }
    Ok(answers)
}
